"""A server that speaks S3 on a free loopback port, as the tests see it: written through s3fs, read with boto3."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import s3fs

from components.storage import bucket as storage

WRITES = ("pipe_file", "put_file", "cp_file", "rm_file")


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it, and nothing more is written."""


class S3:
    """One bucket of its own on the server."""

    def __init__(self, client: Any, name: str) -> None:
        self.name = name
        self.url = f"s3://{name}"
        self.client = client
        self.client.create_bucket(Bucket=name)

    def keys_below(self, prefix: str = "") -> list[str]:
        """Return the name of every object below a prefix, without it."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [found["Key"].removeprefix(prefix) for page in pages for found in page.get("Contents", ())]

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def forbid(self, action: str) -> None:
        """Deny an action, such as `s3:PutObject`, on the objects of this bucket."""
        rule = {"Effect": "Deny", "Principal": "*", "Action": action, "Resource": f"arn:aws:s3:::{self.name}/*"}
        self.client.put_bucket_policy(
            Bucket=self.name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [rule]})
        )

    def lead_to(self, server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let `s3://` lead to another address from now on."""
        host, port = server.getsockname()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        s3fs.S3FileSystem.clear_instance_cache()

    def unplug(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let `s3://` lead to a port where nobody listens."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.lead_to(server, monkeypatch)


def _die() -> None:
    raise Killed


@contextmanager
def killed_after(num_writes: int, die: Callable[[], None] = _die) -> Iterator[None]:
    """Let that many writes to a bucket through and die at the next one."""
    done: list[str] = []
    one_at_a_time = threading.Lock()
    do = storage.Bucket._do

    def do_or_die(bucket: storage.Bucket, method: str, *arguments: Any, **options: Any) -> Any:
        if method in WRITES:
            with one_at_a_time:
                if len(done) == num_writes:
                    die()
                done.append(method)
        return do(bucket, method, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage.Bucket, "_do", do_or_die)
        yield
