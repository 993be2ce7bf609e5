"""Large bodies of JSON: read by a process of their own, with the results of small ones, and nothing waits for them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
import requests
import tensorflow as tf
from tensorflow_serving.apis import input_pb2

from serving.local_server import json_bodies, json_requests, json_tensors
from serving.local_server.errors import MAX_STRINGS, Code
from serving.local_server.json_bodies import LARGE_BODY_BYTES, Bodies
from serving.local_server.tensor_protos import runtime_name
from tests.serving.local_server.conftest import (
    CALL_S,
    Server,
    linux,
    status_error,
    wait_until,
)
from tests.serving.local_server.test_json import infos

PADDING = b" " * LARGE_BODY_BYTES
DTYPES = ["bool", "int8", "uint64", "float16", "bfloat16", "float32", "float64", "string"]
# The promise, and what the tests' own processes may take of two processors that others use, too.
HEALTH_S = 0.1
pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def bodies() -> Iterator[Bodies]:
    found = Bodies()
    yield found
    if found._process:
        found._process.kill()
        found._process._connection.close()


def pid_of(bodies: Bodies) -> int:
    assert bodies._process
    return bodies._process._process.pid


async def read(bodies: Bodies, body: bytes, **dtypes: str) -> Any:
    async with bodies.read(body) as document:
        return document.signature_name, *(await document.read_inputs(infos(**dtypes)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 0), (1,), (30_000, 1), (3, 2, 2)])
async def test_a_large_body_is_read_as_a_small_one(bodies: Bodies, dtype: str, shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape) % 2
    written = {"bool": values == 1, "string": np.where(values, "ä", "")}.get(dtype, values).tolist()
    for document in (
        {"inputs": {"x": written, "y": [1]}, "signature_name": "s"},
        {"instances": [{"x": written, "y": 1}]},
    ):
        body = json.dumps(document).encode()
        expected = json_requests.read_inputs(json_requests.parse(body), infos(x=dtype, y="int32"))
        name, arrays, rows = await read(bodies, body + PADDING, x=dtype, y="int32")
        assert (name, rows) == (document.get("signature_name", ""), expected[1])
        for alias, array in expected[0].items():
            np.testing.assert_array_equal(arrays[alias], array)
            assert (arrays[alias].dtype, arrays[alias].flags.writeable) == (array.dtype, True)


async def test_errors_are_those_of_small_bodies_and_the_process_lives_on(bodies: Bodies) -> None:
    for body, error in (
        (b'{"inputs": [1, x]}', "JSON Parse error: Invalid value. at offset: 15"),
        (b'{"inputs": [1, "a"]}', 'JSON Value: "a" Type: String is not of expected type: int32'),
        (b'{"signature_name": 1}', "'signature_name' key must be a string value."),
        (b'{"other": [1]}', "Missing 'inputs' or 'instances' key"),
        (b'{"inputs": [[1], [2, 3]]}', "Encountered list at unexpected size: 2 at level: 1 expected size: 1"),
    ):
        with status_error(Code.INVALID_ARGUMENT, error.replace("[", r"\[")):
            await read(bodies, body + PADDING, x="int32")
        pid = pid_of(bodies)
        # And where the caller refuses it.
        with status_error(Code.NOT_FOUND, "nobody"):
            async with bodies.read(b'{"inputs": 1}' + PADDING):
                raise json_bodies.StatusError(Code.NOT_FOUND, "nobody")
        assert (await read(bodies, b'{"inputs": [7]}' + PADDING, x="int32"))[1]["x"] == 7
        assert pid_of(bodies) == pid
    with status_error(Code.UNIMPLEMENTED, "to type: complex64"):
        await read(bodies, b'{"inputs": [1]}' + PADDING, x="complex64")


async def test_strings_of_any_length_come_through(bodies: Bodies) -> None:
    lengths = [0, 3, (1 << 20) - 3, 1, 1 << 20, 0, (1 << 21) + 1, *range(3000), 0]
    written = [chr(97 + i % 26) * length for i, length in enumerate(lengths)]
    body = json.dumps({"inputs": written}).encode()
    assert (await read(bodies, body, x="string"))[1]["x"].tolist() == [text.encode() for text in written]


async def test_more_strings_than_a_tensor_may_have_are_refused(bodies: Bodies) -> None:
    strings = b",".join([b'"a"'] * (MAX_STRINGS + 1))
    error = rf"^INVALID_ARGUMENT: A tensor may have {MAX_STRINGS} strings, .* Received: {MAX_STRINGS + 1}\. Send fewer"
    for body in (b'{"instances":[%b]}', b'{"inputs":[%b]}', b'{"inputs":{"x":[[%b]]}}'):
        with status_error(Code.INVALID_ARGUMENT, error):
            await read(bodies, body % strings, x="string")
    with status_error(Code.INVALID_ARGUMENT, error):
        async with bodies.read(b'{"examples":[%b{}]}' % (b"{}," * MAX_STRINGS)) as document:
            await document.fill_examples(input_pb2.Input())


async def test_examples_of_large_bodies(bodies: Bodies) -> None:
    examples = [{"n": list(range(25_000)), "t": ["a"] * 11_000}, {}, *({"f": 0.5, "b": {"b64": "/w=="}},) * 12_000]
    for document in ({"examples": examples}, {"examples": examples, "context": {"c": [1.5] * 20_000}}):
        small, large = input_pb2.Input(), input_pb2.Input()
        body = json.dumps(document).encode()
        json_requests.fill_examples(json_requests.parse(body), small)
        async with bodies.read(body + PADDING) as read:
            await read.fill_examples(large)
        assert large == small
    with status_error(Code.INVALID_ARGUMENT, "unexpected JSON type: Null"):
        async with bodies.read(b'{"examples": [{"x": 1}, {"x": null}]}' + PADDING) as read:
            await read.fill_examples(large)


async def test_a_process_that_dies_fails_one_request(bodies: Bodies) -> None:
    body = b'{"inputs": [7]}' + PADDING
    await read(bodies, body, x="int32")
    dead = pid_of(bodies)
    os.kill(dead, signal.SIGKILL)
    assert bodies._process
    bodies._process._process.wait()
    # Between requests nobody notices.
    assert (await read(bodies, body, x="int32"))[1]["x"] == 7
    with status_error(Code.UNAVAILABLE, "Send less at once"):
        async with bodies.read(body) as document:
            os.kill(pid_of(bodies), signal.SIGKILL)
            await document.read_inputs(infos(x="int32"))
    assert (await read(bodies, body, x="int32"))[1]["x"] == 7


async def test_the_work_of_a_request_that_is_given_up_ends(bodies: Bodies) -> None:
    endless = b'{"inputs": [' + b"[1]," * 4_000_000 + b"[1, 2]]}"
    await read(bodies, b'{"inputs": [7]}' + PADDING, x="int32")
    assert bodies._process
    first = bodies._process._process
    with anyio.move_on_after(0.3) as scope:
        await read(bodies, endless, x="int32")
    assert scope.cancelled_caught
    first.wait(CALL_S)
    assert (await read(bodies, b'{"inputs": [7]}' + PADDING, x="int32"))[1]["x"] == 7


def test_the_reading_process_needs_no_tensorflow() -> None:
    code = "import sys, serving.local_server.json_worker; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=json_bodies._ROOT, check=True)


def test_types_have_their_numbers_and_names() -> None:
    for number, (name, dtype) in json_tensors._TYPES.items():
        found = tf.dtypes.as_dtype(number)
        assert (runtime_name(found), np.dtype(found.as_numpy_dtype)) == (name, np.dtype(dtype))
    for number, name in json_tensors._OTHER_NAMES.items():
        assert runtime_name(tf.dtypes.as_dtype(number)) == name


# The server.


LARGE = 40_000_000
SLOW = pytest.mark.slow


def rows_of(row: bytes, signature: str = "float32", end: bytes = b"]}") -> bytes:
    head = b'{"signature_name":"' + signature.encode() + b'","instances":['
    return head + b",".join([row] * (LARGE // (len(row) + 1))) + end


def make_body(kind: str) -> bytes:
    row, signature, end = {
        "pixels": (b"[" + b",".join([b"0.123456"] * 150_528) + b"]", "float32", b"]}"),
        "small lists": (b"[1]", "float32", b"]}"),
        "named rows": (b'{"x":1.5}', "float32", b"]}"),
        "no JSON": (b"[1]", "float32", b",]}"),
        "strings": (b'"' + b"x" * (LARGE // MAX_STRINGS) + b'"', "string", b"]}"),
        "too many strings": (b'"abc"', "string", b"]}"),
        "base64": (b'{"b64":"' + b"AAAA" * (LARGE // 4 - 100) + b'"}', "bytes", b"]}"),
        "a text": (b'"' + "ö".encode() * (LARGE // 2 - 100) + b'"', "string", b"]}"),
    }[kind]
    return rows_of(row, signature, end)


def send(server: Server, body: bytes) -> requests.Response:
    return requests.post(f"{server.url}/v1/models/echo:predict", data=body, timeout=CALL_S)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("pixels", 200),
        pytest.param("small lists", 200, marks=SLOW),
        pytest.param("named rows", 200, marks=SLOW),
        pytest.param("no JSON", 400, marks=SLOW),
        pytest.param("strings", 200, marks=SLOW),
        pytest.param("too many strings", 400, marks=SLOW),
        pytest.param("a text", 200, marks=SLOW),
        pytest.param("base64", 200, marks=SLOW),
    ],
)
def test_health_waits_for_no_large_body(server: Server, kind: str, status: int) -> None:
    body = make_body(kind)
    waits: list[float] = []
    with ThreadPoolExecutor(1) as pool, requests.Session() as session:
        session.trust_env = False
        session.get(f"{server.url}/healthz", timeout=CALL_S)
        sent = pool.submit(send, server, body)
        while not sent.done():
            start = time.monotonic()
            assert session.get(f"{server.url}/healthz", timeout=CALL_S).status_code == 200
            waits.append(time.monotonic() - start)
            threading.Event().wait(0.005)
    assert sent.result().status_code == status, sent.result().content[:200]
    if kind in ("strings", "a text", "base64"):  # which are the same in the response
        assert sent.result().content == b'{"predictions":[' + body[body.index(b"[") + 1 :]
    assert len(waits) > 20
    # What other work on this machine takes is not the server's: all but a few must be in time, and none be long.
    waits.sort()
    assert waits[int(len(waits) * 0.99)] < HEALTH_S, waits[-10:]
    assert waits[-1] < 5 * HEALTH_S, waits[-10:]


@linux
def test_the_reading_process_dies_with_the_server() -> None:
    code = (
        "import sys; from serving.local_server.json_bodies import _Process; process = _Process(); "
        "assert process.parse(b'{}') == ''; print(process._process.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=json_bodies._ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout
        child = Path("/proc") / parent.stdout.readline().strip()
        assert (child / "cmdline").read_text().split("\0")[2] == "serving.local_server.json_worker"
        parent.kill()
        parent.wait()
        wait_until(lambda: not child.exists() or not (child / "cmdline").read_bytes())  # of a zombie it is empty
