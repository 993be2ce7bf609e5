"""What is at a URL is fetched once, and again when it has changed; what is on this machine is taken as it is."""

import http.server
import socket
import threading
import time
from pathlib import Path

import pytest

from components.errors import StorageError
from components.storage import cache
from components.storage.bucket import Bucket
from components.storage.cache import is_reachable
from tests.s3 import S3


def test_a_path_is_itself():
    assert cache.fetch_file("weights/3/a.h5") == Path("weights/3/a.h5")
    assert cache.fetch_file("~/a.h5") == Path.home() / "a.h5"
    assert cache.fetch_folder("models/flowers/1", marker="saved_model.pb") == Path("models/flowers/1")


def test_a_file_is_fetched_once_and_again_when_it_has_changed(s3: S3):
    url = f"{s3.url}/weights/3/backbone.weights.h5"
    s3.put("weights/3/backbone.weights.h5", b"one")
    local = cache.fetch_file(url)
    assert (local.parent.name, local.name, local.read_bytes()) == ("3", "backbone.weights.h5", b"one")
    written = local.stat().st_mtime_ns
    assert cache.fetch_file(url).stat().st_mtime_ns == written
    s3.put("weights/3/backbone.weights.h5", b"two")
    assert cache.fetch_file(url).read_bytes() == b"two"
    with pytest.raises(StorageError, match=r"There is no file at s3://.*/weights/none\. Give one"):
        cache.fetch_file(f"{s3.url}/weights/none")


def test_a_folder_is_fetched_once_and_only_when_it_is_complete(s3: S3, tmp_path, monkeypatch):
    files = {"saved_model.pb": "graph", "variables/variables.index": "index"}
    folder = tmp_path / "model"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    Bucket(s3.url).upload(folder, "flowers/1", marker="saved_model.pb")
    local = cache.fetch_folder(f"{s3.url}/flowers/1", marker="saved_model.pb")
    assert {name: (local / name).read_text() for name in files} == files
    s3.unplug(monkeypatch)
    assert cache.fetch_folder(f"{s3.url}/flowers/1", marker="saved_model.pb") == local
    with pytest.raises(StorageError):
        cache.fetch_folder(f"{s3.url}/flowers/2", marker="saved_model.pb")


def test_a_host_that_responds_is_reachable_whatever_it_says():
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("localhost", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert is_reachable(f"http://localhost:{server.server_port}")
        server.shutdown()
    assert not is_reachable(f"http://localhost:{server.server_port}")


def test_a_host_that_does_not_respond_costs_no_more_than_the_timeout():
    with socket.create_server(("localhost", 0)) as silent:
        started = time.monotonic()
        assert not is_reachable(f"http://localhost:{silent.getsockname()[1]}", timeout_s=0.1)
        assert time.monotonic() - started < 5
