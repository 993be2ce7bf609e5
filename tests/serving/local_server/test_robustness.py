"""Bad input, bad clients and bad luck: who caused it is told so, nobody else is hurt, and nothing leaks."""

import base64
import gzip
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests
import trustme
from google.protobuf import text_format
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.local_server import protos
from tests.serving.local_server import soak
from tests.serving.local_server.conftest import (
    ROOT,
    Server,
    command,
    free_ports,
    start_server,
    wait_until,
    write_config,
)

Code = grpc.StatusCode
MAX_REQUEST_BYTES = 8_000_000
REST_TIMEOUT_S = 3
END_S = 10
METRICS = "/monitoring/prometheus/metrics"
GOOD = soak.picture(48, 40)

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("robustness")


@pytest.fixture(scope="module")
def config(folder: Path, export_dir: Path) -> Path:
    """The configuration of models that are well, change, come late, or are broken when the server starts."""
    for name in ("flowers", "reloaded", "broken"):
        shutil.copytree(export_dir, folder / name / "1")
    shutil.copytree(export_dir, folder / "half" / "1")
    shutil.rmtree(folder / "half" / "1" / "variables")
    soak.save_gate(folder / "gate" / "1")
    os.mkfifo(folder / "pipe")
    (folder / "empty").mkdir()
    names = ("flowers", "gate", "reloaded", "broken", "half", "empty", "missing")
    return write_config(folder / "models.config", {name: folder / name for name in names})


@pytest.fixture(scope="module")
def server(folder: Path, config: Path) -> Iterator[Server]:
    """A server that tests are hard on; each leaves it as it was, but for versions of the other models."""
    (folder / "batching.config").write_text(
        "max_batch_size { value: 8 } num_batch_threads { value: 2 } max_enqueued_batches { value: 3 }"
    )
    (folder / "monitoring.config").write_text("prometheus_config { enable: true }")
    with start_server(
        folder / "server.log",
        model_config_file=config,
        model_config_file_poll_wait_seconds=1,
        file_system_poll_wait_seconds=0.1,
        enable_batching=True,
        batching_parameters_file=folder / "batching.config",
        monitoring_config_file=folder / "monitoring.config",
        rest_api_timeout_in_ms=REST_TIMEOUT_S * 1000,
        max_request_bytes=MAX_REQUEST_BYTES,
        max_num_load_retries=0,
        log_level="debug",
    ) as server:
        yield server


@pytest.fixture(scope="module")
def pipe(folder: Path, config: Path) -> Path:
    """What the model `gate` waits at."""
    return folder / "pipe"


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[soak.Client]:
    with soak.client_of(server, "flowers") as client:
        yield client


@pytest.fixture(autouse=True)
def _still_well(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test with the server, it answers."""
    client = request.getfixturevalue("client") if "server" in request.fixturenames else None
    yield
    if client:
        assert len(client.ask_rest(GOOD)) == len(client.ask_grpc(GOOD)) == 5


def counter(server: Server, name: str, **labels: str) -> float:
    """Read one of the server's metrics."""
    found = 0.0
    for line in server.request("GET", METRICS).text.splitlines():
        key, _, value = line.rpartition(" ")
        if key.partition("{")[0] == name and all(f'{k}="{v}"' in key for k, v in labels.items()):
            found += float(value)
    return found


def num_batches(server: Server) -> float:
    return counter(server, ":tensorflow:serving:batching_session:processed_batch_size_count")


def num_rows(server: Server) -> float:
    return counter(server, ":tensorflow:serving:batching_session:processed_batch_size_sum")


@contextmanager
def busy(server: Server, pipe: Path) -> Iterator[None]:
    """Keep both of the server's threads busy for as long as the block lasts."""
    before = num_batches(server)
    with soak.client_of(server, "gate") as client:
        request = soak.to_request("gate", bytes(pipe))
        # They do not share a batch: the second one is sent when the first is at work.
        calls = []
        for num_calls in (1, 2):
            calls.append(client.stub.Predict.future(request, timeout=soak.CALL_S))
            wait_until(lambda num_calls=num_calls: num_batches(server) == before + num_calls)  # type: ignore[misc]
        try:
            yield
        finally:
            soak.open_gate(pipe, lambda: all(call.done() for call in calls))
        assert [list(call.result().outputs["probabilities"].float_val) for call in calls] == [[1.0], [1.0]]


def begin(server: Server, length: int) -> socket.socket:
    """Send the head of a request, which announces a body of some length."""
    connection = socket.create_connection(("127.0.0.1", server.rest_port), timeout=soak.CALL_S)
    head = (
        f"POST /v1/models/flowers:predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    )
    connection.sendall(head.encode())
    return connection


def read_body(connection: socket.socket) -> bytes:
    answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    return answer.partition(b"\r\n\r\n")[2]


def wait_until_queued(server: Server, client: soak.Client) -> None:
    """Return when what was sent before waits for the model: what is asked later is answered by then."""
    for _ in range(3):
        client.ask_metadata()
        server.get("/v1/models/flowers")


def refused(call: Any, request: Any) -> tuple[Code, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=soak.CALL_S)
    return caught.value.code(), caught.value.details()


def post(server: Server, body: Any, path: str = "/v1/models/flowers:predict", **options: Any) -> tuple[int, str]:
    status, answer = server.post(path, body, **options)
    return status, answer.get("error", "")


# What the protocol says of wrong requests.


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("models/nope:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(nope)"),
        (
            "models/flowers/versions/9:predict",
            {"instances": [1]},
            404,
            "Servable not found for request: Specific(flowers, 9)",
        ),
        (
            f"models/flowers/versions/{'9' * 5000}:predict",
            {"instances": [1]},
            400,
            "Failed to convert version: 999",
        ),
        ("models/flowers/labels/L:predict", {"instances": [1]}, 400, "Unrecognized servable version label: L"),
        ("models/flowers:predict", '{"instances"', 400, "JSON Parse error: "),
        ("models/flowers:predict", "", 400, "JSON Parse error: The document is empty"),
        ("models/flowers:predict", {"x": 1}, 400, "Missing 'inputs' or 'instances' key"),
        ("models/flowers:predict", {"inputs": [], "instances": []}, 400, "expecting only one of"),
        ("models/flowers:predict", {"instances": [{"nope": "x"}]}, 400, "element: 0"),
        ("models/flowers:predict", {"inputs": {"nope": ["x"]}}, 400, "Missing named input: image_bytes"),
        ("models/flowers:predict", {"instances": ["x", 3]}, 400, "element: 1"),
        ("models/flowers:predict", {"instances": [{"b64": "%"}]}, 400, "Unable to base64 decode"),
        (
            "models/flowers:predict",
            {"signature_name": "s", "instances": ["x"]},
            400,
            'Serving signature name: "s" not found in signature def',
        ),
        ("models/flowers:predict", {"signature_name": "images", "instances": [[[1], [2, 3]]]}, 400, "element: 0"),
        ("models/flowers:predict", {"signature_name": "images", "instances": [[[[1.5]]]]}, 400, "element: 0"),
        ("models/flowers:predict", {"signature_name": "images", "instances": [[[[-1]]]]}, 400, "element: 0"),
        ("models/flowers:predict", {"signature_name": "images", "instances": [[[[1, 2, 3]]]]}, 400, "images"),
        ("models/flowers:predict", '{"signature_name": "images", "instances": [NaN]}', 400, "NaN"),
        ("models/flowers:predict", '{"instances": [1e999]}', 400, "Number too big"),
        ("models/flowers:predict", '{"instances": [%s]}' % ("9" * 5000), 400, "Number too big"),
        ("models/flowers:predict", '{"signature_name": "\\ud800", "instances": [1]}', 400, "surrogate"),
        ("models/flowers:predict", '{"instances": [{"\\udfff": 1}]}', 400, "surrogate"),
        ("models/flowers:explode", {"instances": [1]}, 400, "Malformed request: POST /v1/models/flowers:explode"),
        ("nothing", {"instances": [1]}, 400, "Malformed request: POST /v1/nothing"),
    ],
)
def test_rest_says_what_is_wrong_with_a_request(server: Server, path: str, body: Any, status: int, error: str) -> None:
    found, message = post(server, body, f"/v1/{path}")
    assert found == status
    assert error in message
    assert len(message) < 1100


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("models/nope", 404, "Could not find any versions of model nope"),
        ("models/flowers/versions/9", 404, "Could not find version 9 of model flowers"),
        ("models/flowers:predict", 400, "Malformed request: GET /v1/models/flowers:predict"),
        (f"models/{'x' * 50_000}", 404, "Could not find any versions of model xxx"),
    ],
)
def test_rest_says_what_is_wrong_with_a_question(server: Server, path: str, status: int, error: str) -> None:
    found, answer = server.get(f"/v1/{path}")
    assert found == status
    assert error in answer["error"]
    assert len(answer["error"]) < 1100


def test_grpc_says_what_is_wrong_with_a_request(client: soak.Client) -> None:
    def with_spec(**spec: Any) -> predict_pb2.PredictRequest:
        request = soak.to_request("flowers", GOOD)
        version = spec.pop("version", None)
        for name, value in spec.items():
            setattr(request.model_spec, name, value)
        if version is not None:
            request.model_spec.version.value = version
        return request

    def with_tensor(alias: str = "image_bytes", signature: str = "", **tensor: Any) -> predict_pb2.PredictRequest:
        request = with_spec(signature_name=signature)
        request.ClearField("inputs")
        proto = request.inputs[alias]
        for size in tensor.pop("shape"):
            proto.tensor_shape.dim.add().size = size
        for name, value in tensor.items():
            if isinstance(value, list):
                getattr(proto, name).extend(value)
            else:
                setattr(proto, name, value)
        return request

    string, uint8, wrong = types_pb2.DT_STRING, types_pb2.DT_UINT8, Code.INVALID_ARGUMENT
    for request, code, error in (
        (predict_pb2.PredictRequest(), wrong, "Missing ModelSpec"),
        (with_spec(name="nope"), Code.NOT_FOUND, "Servable not found for request: Latest(nope)"),
        (with_spec(name="x" * 100_000), Code.NOT_FOUND, "Latest(xxx"),
        (with_spec(version=9), Code.NOT_FOUND, "Servable not found for request: Specific(flowers, 9)"),
        (with_spec(version_label="L"), wrong, "Unrecognized servable version label: L"),
        (with_spec(signature_name="é" * 5000), Code.FAILED_PRECONDITION, 'Serving signature key "é'),
        (with_tensor("y" * 50_000, dtype=string, shape=[1], string_val=[GOOD]), wrong, "image_bytes"),
        (with_tensor(dtype=string, shape=[-1], string_val=[GOOD]), wrong, "image_bytes"),
        (with_tensor(dtype=string, shape=[2**40], string_val=[b"x"]), wrong, "bytes"),
        # One value stands for all that follow it: these would be 8 GB.
        (with_tensor(dtype=string, shape=[800_000], string_val=[b"x" * 10_000]), wrong, "last value repeated"),
        (with_tensor(dtype=string, shape=[0, 2**62], string_val=[]), wrong, ""),
        (with_tensor(dtype=string, shape=[1] * 70, string_val=[GOOD]), wrong, ""),
        (with_tensor(dtype=string, shape=[2], tensor_content=b"\5\5abc"), wrong, ""),
        (with_tensor(dtype=types_pb2.DT_RESOURCE, shape=[1]), wrong, ""),
        (with_tensor(dtype=types_pb2.DT_VARIANT, shape=[1]), wrong, ""),
        (with_tensor(dtype=types_pb2.DT_FLOAT, shape=[1], float_val=[1.0]), wrong, "Expects arg[0] to be string"),
        (with_tensor("images", "images", dtype=uint8, shape=[1], int_val=[300]), wrong, ""),
        (with_tensor("images", "images", dtype=uint8, shape=[1, 32, 31, 3], int_val=[0]), wrong, "images"),
        (with_tensor("images", "images", dtype=uint8, shape=[1, 32, 32, 3], tensor_content=b"x"), wrong, "images"),
    ):
        found, details = refused(client.stub.Predict, request)
        assert (found, error in details) == (code, True), details
        assert len(details) < 1100


def test_bytes_that_are_no_message_are_refused_as_such(server: Server) -> None:
    with grpc.insecure_channel(server.target) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        for body in (b"\xff" * 50, soak.to_request("flowers", GOOD).SerializeToString()[:-10]):
            # gRPC's own code for it.
            assert refused(call, body) == (Code.INTERNAL, "the request is not a valid protobuf message of its type")
        assert refused(channel.unary_unary("/tensorflow.serving.PredictionService/Nope"), b"")[0] is Code.UNIMPLEMENTED
    assert "DecodeError" not in server.log()


# Images.


@pytest.fixture(scope="module")
def vast_png() -> bytes:
    """A PNG of 12000 × 12000 pixels in 17 KB: a bit for each, all alike."""
    row = b"\0" + b"\0" * 1500
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 12_000, 12_000, 1, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(row * 12_000, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


@linux
def test_an_image_that_cannot_be_read_is_the_callers_mistake(
    server: Server, client: soak.Client, vast_png: bytes
) -> None:
    assert len(vast_png) < 20_000
    before = soak.memory_bytes(server, "VmHWM")
    for image, error in (
        (GOOD[: len(GOOD) // 2], "JPEG"),
        (soak.picture(40, 40, "PNG")[:60], "PNG"),
        (b"", "must be a JPEG, PNG, GIF or BMP file"),
        (b"hello, this is no image", "must be a JPEG, PNG, GIF or BMP file"),
        (vast_png, "at most 25,000,000 pixels"),
    ):
        for images in ((image,), (GOOD, image)):
            code, details = refused(client.stub.Predict, soak.to_request("flowers", *images))
            assert (code, error in details) == (Code.INVALID_ARGUMENT, True), details
            status, message = post(server, soak.to_json(*images))
            assert (status, error in message) == (400, True), message
    # Decoded, the vast one alone takes 300 MB or more.
    assert soak.memory_bytes(server, "VmHWM") - before < 100e6


def test_one_bad_image_does_not_fail_the_good_ones_of_its_batch(
    server: Server, client: soak.Client, pipe: Path
) -> None:
    expected = client.ask_grpc(GOOD)
    body = soak.to_json(GOOD)
    with ExitStack() as stack:
        with busy(server, pipe):
            before = num_batches(server)
            connections = [stack.enter_context(begin(server, len(body))) for _ in range(3)]
            for connection in connections:
                connection.sendall(body)
            calls = client.begin(*[GOOD] * 2, b"no image", *[GOOD] * 2)
            wait_until_queued(server, client)
        *good, bad = calls[:2] + calls[3:] + calls[2:3]
        assert bad.code() is Code.INVALID_ARGUMENT
        answers = [list(call.result().outputs["probabilities"].float_val) for call in good]
        answers += [json.loads(read_body(connection))["predictions"][0]["probabilities"] for connection in connections]
    assert np.allclose(answers, [expected] * 7, atol=soak.TOLERANCE)
    assert num_batches(server) == before + 1


# Sizes.


@linux
def test_a_hundred_megabytes_are_refused_and_take_no_memory(server: Server, client: soak.Client) -> None:
    before = soak.memory_bytes(server, "VmHWM")
    vast = b"x" * 100_000_000
    code, details = refused(client.stub.Predict, soak.to_request("flowers", vast))
    assert (code, "larger than max" in details) == (Code.RESOURCE_EXHAUSTED, True)
    chunked = (vast[i : i + 1_000_000] for i in range(0, len(vast), 1_000_000))
    for options in (
        {"data": vast},
        {"data": chunked},
        {"data": gzip.compress(vast, 1), "headers": {"Content-Encoding": "gzip"}},
    ):
        response = server.session.post(f"{server.url}/v1/models/flowers:predict", timeout=soak.CALL_S, **options)
        assert response.status_code == 413
        assert "--max_request_bytes" in response.json()["error"]
    assert soak.memory_bytes(server, "VmHWM") - before < 50e6


def test_a_client_that_waits_for_leave_to_send_is_refused_before_it_sends(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=soak.CALL_S) as connection:
        connection.sendall(
            b"POST /v1/models/flowers:predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            b"Content-Length: 100000000\r\n\r\n"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_gzip_is_unpacked_within_bounds(server: Server) -> None:
    packed = gzip.compress(soak.to_json(GOOD))
    for body, status, error in (
        (packed, 200, ""),
        (packed[:-20], 400, "it ends too early"),
        (packed[:5], 400, "it ends too early"),
        (packed[:-6] + b"\0" * 6, 400, "incorrect data check"),
        (b"hello", 400, "incorrect header check"),
        (b"", 400, "it ends too early"),
        (gzip.compress(b"0" * 200_000_000), 413, "--max_request_bytes"),
    ):
        found, message = post(server, body, headers={"Content-Encoding": "gzip"})
        assert (found, error in message) == (status, True), message


@pytest.mark.parametrize("depth", [100, 100_000])
def test_json_may_be_nested_to_any_depth_and_is_refused(server: Server, depth: int) -> None:
    for body in (
        '{"instances": ' + "[" * depth + "1" + "]" * depth + "}",
        '{"signature_name": "images", "instances": ' + "[" * depth + "1" + "]" * depth + "}",
        '{"instances": [' + '{"a": ' * depth + "1" + "}" * depth + "]}",
        '{"instances": ' + "[" * depth,
        "[" * depth,
    ):
        status, message = post(server, body)
        assert (status, bool(message), len(message) < 1100) == (400, True, True)


@linux
def test_a_wrong_comma_in_megabytes_costs_no_seconds(server: Server) -> None:
    before, start = soak.memory_bytes(server, "VmHWM"), time.monotonic()
    status, message = post(server, b'{"instances": ["' + b"A" * (MAX_REQUEST_BYTES - 100) + b'" "x"]}')
    assert (status, "Missing a comma" in message) == (400, True)
    assert time.monotonic() - start < 5
    assert soak.memory_bytes(server, "VmHWM") - before < 100e6


# Clients.


def test_a_client_that_hangs_up_in_its_body_leaves_nothing_behind(server: Server) -> None:
    # All bodies together may take eight times the limit for one; these would be twice that.
    part = b'{"instances": ["' + b"x" * (MAX_REQUEST_BYTES - 1000)
    for _ in range(16):
        with begin(server, MAX_REQUEST_BYTES) as connection:
            connection.sendall(part)
    body = part[:-1000] + b'"]}'
    wait_until(lambda: post(server, body)[0] == 400)
    assert server.log().count("Traceback") == 0


def test_nothing_is_computed_for_a_client_that_hung_up(server: Server, client: soak.Client, pipe: Path) -> None:
    body = soak.to_json(GOOD)
    cancelled = counter(server, ":tensorflow:serving:request_count", status="CANCELLED")
    with busy(server, pipe), ExitStack() as stack:
        rows = num_rows(server)
        connections = [stack.enter_context(begin(server, len(body))) for _ in range(3)]
        for connection in connections:
            connection.sendall(body)
        calls = client.begin(GOOD, GOOD, GOOD)
        # One more, with a deadline instead of hanging up.
        late = client.stub.Predict.future(soak.to_request("flowers", GOOD), timeout=0.2)
        wait_until_queued(server, client)
        assert late.code() is Code.DEADLINE_EXCEEDED
        for connection in connections:
            connection.close()
        for call in calls:
            call.cancel()
        wait_until(lambda: counter(server, ":tensorflow:serving:request_count", status="CANCELLED") >= cancelled + 6)
    client.ask_grpc(GOOD)
    assert num_rows(server) == rows + 1


def test_slow_clients_are_cut_off_and_hurt_nobody(server: Server, client: soak.Client) -> None:
    with ExitStack() as stack:
        in_body = [stack.enter_context(begin(server, 10_000)) for _ in range(40)]
        in_head = [stack.enter_context(socket.create_connection(("127.0.0.1", server.rest_port))) for _ in range(20)]
        for connection in in_head:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        silent = stack.enter_context(socket.create_connection(("127.0.0.1", server.rest_port)))
        answers = dict.fromkeys((*in_body, *in_head, silent), b"")
        open_ones, slowest_s, start = set(answers), 0.0, time.monotonic()
        while open_ones:
            assert time.monotonic() < start + 5 * REST_TIMEOUT_S
            for connection in open_ones & {*in_body, *in_head}:
                with suppress(OSError):  # it is cut off; what came before is read below
                    connection.send(b"x")
            asked = time.monotonic()
            client.ask_rest(GOOD)
            slowest_s = max(slowest_s, time.monotonic() - asked)
            for connection in select.select(list(open_ones), [], [], 0.02)[0]:
                try:
                    received = connection.recv(10_000)
                except ConnectionResetError:
                    received = b""
                answers[connection] += received
                if not received:
                    open_ones.discard(connection)
    assert slowest_s < REST_TIMEOUT_S
    assert all(answers[connection].startswith(b"HTTP/1.1 504 ") for connection in in_body)
    assert not any(answers[connection] for connection in (*in_head, silent))


def test_a_client_that_offers_another_protocol_is_answered_over_http_1(server: Server) -> None:
    for upgrade in ("h2c", "websocket"):
        headers = {"Upgrade": upgrade, "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
        assert post(server, soak.to_json(GOOD), headers=headers) == (200, "")


# Models that are not there, are broken, or change.


def test_a_model_that_is_missing_empty_or_half_is_served_once_it_is_whole(
    server: Server, folder: Path, export_dir: Path
) -> None:
    assert "half: no version, empty: no version, missing: no version" in server.ready_line
    log = server.log()
    assert f"Could not find base path {folder / 'missing'} for servable missing" in log
    assert f"No versions of servable empty found under base path {folder / 'empty'}" in log
    assert "half version 1 cannot be served" in log
    for name in ("missing", "empty"):
        assert server.get(f"/v1/models/{name}")[0] == 404
    state, error = soak.version_states(server, "half")[1]
    assert (state, "not a valid checkpoint" in error) == ("END", True)
    assert post(server, soak.to_json(GOOD), "/v1/models/half:predict")[0] == 404
    shutil.copytree(export_dir / "variables", folder / "half" / "1" / "variables")
    (folder / "missing").mkdir()
    for name in ("empty", "missing"):
        soak.push(export_dir, folder / name, 7)
    for name, version in (("half", 1), ("empty", 7), ("missing", 7)):
        wait_until(lambda name=name, version=version: soak.available(server, name) == [version])  # type: ignore[misc]
        assert post(server, soak.to_json(GOOD), f"/v1/models/{name}:predict") == (200, "")


def test_reloads_fail_no_request(server: Server, folder: Path, export_dir: Path) -> None:
    answers = soak.reload(
        server, "reloaded", base_dir=folder / "reloaded", source_dir=export_dir, num_reloads=3, num_clients=4
    )
    assert answers.failures == []
    assert answers.versions == {1, 2, 3, 4}


def test_broken_versions_are_reported_and_the_old_one_is_served_on(
    server: Server, folder: Path, export_dir: Path
) -> None:
    answers, errors = soak.push_broken(
        server, "broken", base_dir=folder / "broken", source_dir=export_dir, num_versions=5
    )
    assert (answers.failures, answers.versions) == ([], {1})
    assert len(errors) == 5
    assert soak.available(server, "broken") == [1]


def test_a_bad_configuration_changes_nothing(server: Server, config: Path) -> None:
    before = config.read_text()
    models = {
        name: soak.available(server, name) for name in ("flowers", "reloaded", "broken", "half", "empty", "missing")
    }
    config.write_text(before + " nonsense { }")
    wait_until(lambda: "Error parsing text-format tensorflow.serving.ModelServerConfig" in server.log())
    assert "the configuration stays as it was" in server.log()
    request = model_management_pb2.ReloadConfigRequest()
    with grpc.insecure_channel(server.target) as channel:
        reload = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest
        assert refused(reload, request)[0] is Code.INVALID_ARGUMENT
        request.config.model_config_list.config.add(name="flowers")
        assert refused(reload, request)[0] is Code.INVALID_ARGUMENT
    config.write_text(before)
    assert {name: soak.available(server, name) for name in models} == models


# Load.


def test_overload_is_refused_promptly_and_soon_forgotten(server: Server) -> None:
    images = [soak.picture(1500, 1000)] * 8
    load = soak.overload(server, "flowers", images, factor=4, duration_s=2)
    assert load.failures == []
    assert len(load.refused_after_s) > len(load.answered_after_s) > 0
    # How prompt is measured by the slow test: here two cores are shared with whatever else runs.
    assert np.median(load.refused_after_s) < 1
    # Two cores that others use, too: more than noise would be a queue that never empties.
    assert load.rate_after > load.rate_before / 5


@linux
def test_damaged_requests_break_nothing(server: Server) -> None:
    found = soak.mutate(server, "flowers", num_requests=150, num_warmup=50, seed=1)
    assert found.unexpected == []
    assert found.statuses["REST 200"] > 0
    assert found.statuses["Predict OK"] > 0
    assert found.growth_bytes < 50e6
    assert server.log().count("Traceback") == 0


def test_logs_name_the_model_and_hold_no_data(server: Server, client: soak.Client) -> None:
    secret = b"orchid-in-a-photo"
    encoded = base64.b64encode(secret).decode()
    bodies = (
        {"instances": [secret.decode()]},
        {"instances": [{"b64": encoded}]},
        [{"b64": encoded}],
        {"instances": {"b64": encoded}},
        {"instances": [{"nope": secret.decode()}]},
        {"signature_name": "images", "instances": [secret.decode(), 271828182]},
        {"signature_name": secret.decode(), "instances": [1]},
        secret.decode(),
    )
    for body in bodies:
        assert post(server, body)[0] == 400
    for image in (secret, GOOD[:200] + secret):
        assert refused(client.stub.Predict, soak.to_request("flowers", image))[0] is Code.INVALID_ARGUMENT
    request = soak.to_request("flowers", GOOD)
    request.inputs[secret.decode()].CopyFrom(request.inputs["image_bytes"])
    refused(client.stub.Predict, request)
    with grpc.insecure_channel(server.target) as channel:
        refused(channel.unary_unary("/tensorflow.serving.PredictionService/Predict"), b"\xff" + secret)
    log = server.log()
    assert not [line for line in log.splitlines() if secret[:6].decode() in line or encoded[:8] in line]
    assert "271828182" not in log
    assert "flowers version 1 is available" in log
    assert "DEBUG POST /v1/models/flowers:predict: INVALID_ARGUMENT" in log
    assert "DEBUG Predict of model 'flowers': INVALID_ARGUMENT" in log


# The beginning.


def run_to_its_end(**flags: Any) -> tuple[int, str, bool]:
    """Run a server that ends by itself; give the exit status, what it says, and whether TensorFlow was imported."""
    python, *arguments = command(host="127.0.0.1", **flags)
    ended = subprocess.run(
        [python, "-X", "importtime", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    lines = ended.stderr.splitlines()
    imported = [line.split("|")[-1].strip() for line in lines if line.startswith("import time:")]
    said = "\n".join(line for line in lines if not line.startswith("import time:"))
    assert ended.stdout == ""
    return ended.returncode, said, "tensorflow" in imported


@pytest.mark.parametrize("flag", ["port", "rest_api_port"])
def test_a_taken_port_is_known_at_once(folder: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"port": free_ports(1)[0], flag: port}
        status, said, imported = run_to_its_end(model_base_path=folder, **ports)
    assert (status, imported) == (1, False)
    assert f"127.0.0.1:{port} (--{flag})" in said
    assert f"Choose another --{flag}" in said


@pytest.mark.parametrize(
    ("flag", "text", "error"),
    [
        (
            "model_config_file",
            'model_config_list { config { nme: "x" } }',
            "Error parsing text-format tensorflow.serving.ModelServerConfig",
        ),
        ("model_config_file", 'model_config_list { config { name: "x" } }', "base_path"),
        ("model_config_file", "custom_model_config { }", "custom_model_config"),
        ("model_config_file", b"\xff\xfe\0", "must be readable"),
        ("model_config_file", None, "must be readable"),
        (
            "batching_parameters_file",
            "max_batch_size 0",
            "Error parsing text-format tensorflow.serving.BatchingParameters",
        ),
        ("batching_parameters_file", "max_batch_size { value: 0 }", "max_batch_size must be at least 1"),
        ("monitoring_config_file", 'prometheus_config { enable: true path: "x" }', "begins with '/'"),
        ("ssl_config_file", "server_key", "Error parsing text-format tensorflow.serving.SSLConfig"),
        ("ssl_config_file", 'server_key: "x" server_cert: "y"', "PEM"),
        ("ssl_config_file", "client_verify: true", "custom_ca"),
    ],
)
def test_a_bad_file_is_known_at_once(tmp_path: Path, flag: str, text: str | bytes | None, error: str) -> None:
    path = tmp_path / "file"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    port, rest_port = free_ports(2)
    status, said, imported = run_to_its_end(
        port=port,
        rest_api_port=rest_port,
        model_base_path=tmp_path,
        **({"enable_batching": True} if flag == "batching_parameters_file" else {}),
        **{flag: path},
    )
    assert (status, imported) == (1, False)
    assert error in said
    assert str(path) in said or flag == "ssl_config_file"
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_label_for_a_version_that_is_not_served_ends_the_start(tmp_path: Path, export_dir: Path) -> None:
    shutil.copytree(export_dir, tmp_path / "flowers" / "1")
    labels = 'version_labels { key: "stable" value: 9 }'
    config = write_config(tmp_path / "models.config", {"flowers": (tmp_path / "flowers", labels)})
    status, said, _ = run_to_its_end(port=free_ports(1)[0], model_config_file=config)
    assert (status, "Request to assign label to version 9 of model flowers" in said) == (1, True)


# The end.


@contextmanager
def starting(log_path: Path, **flags: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server that is not waited for."""
    port, rest_port = free_ports(2)
    with log_path.open("w") as log:
        process = subprocess.Popen(
            command(host="127.0.0.1", port=port, rest_api_port=rest_port, **flags), cwd=ROOT, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@linux
def test_sigterm_ends_a_server_that_is_importing(tmp_path: Path) -> None:
    with starting(tmp_path / "log", model_base_path=tmp_path) as process:
        wait_until(lambda: "/tensorflow/" in Path(f"/proc/{process.pid}/maps").read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_S) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_sigint_ends_a_server_that_is_loading(tmp_path: Path, export_dir: Path) -> None:
    shutil.copytree(export_dir, tmp_path / "flowers" / "1")
    log_path = tmp_path / "log"
    flags = {"model_base_path": tmp_path / "flowers", "num_request_iterations_for_warmup": 1_000_000}
    with starting(log_path, **flags) as process:
        wait_until(lambda: "loading default version 1" in log_path.read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(END_S) == 0
    assert "ready:" not in log_path.read_text()
    assert "Traceback" not in log_path.read_text()


def test_sigterm_finishes_what_was_accepted(folder: Path, config: Path, pipe: Path, tmp_path: Path) -> None:
    (tmp_path / "monitoring.config").write_text("prometheus_config { enable: true }")
    with (
        start_server(
            tmp_path / "log",
            model_name="gate",
            model_base_path=folder / "gate",
            enable_batching=True,
            batching_parameters_file=folder / "batching.config",
            monitoring_config_file=tmp_path / "monitoring.config",
        ) as server,
        soak.client_of(server, "gate") as client,
        ThreadPoolExecutor(1) as pool,
    ):
        over_rest = pool.submit(client.post, soak.to_json(bytes(pipe)))
        wait_until(lambda: num_batches(server) == 1)
        (over_grpc,) = client.begin(bytes(pipe))
        wait_until(lambda: num_batches(server) == 2)
        (waiting,) = client.begin(bytes(pipe))
        client.ask_metadata()
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_listening(server.rest_port))
        server.process.send_signal(signal.SIGTERM)
        assert refused(client.stub.Predict, soak.to_request("gate", bytes(pipe)))[0] is Code.UNAVAILABLE
        assert not over_rest.done()
        soak.open_gate(pipe, lambda: waiting.done() and over_grpc.done() and over_rest.done())
        assert over_rest.result().json() == {"predictions": [1.0]}
        for call in (over_grpc, waiting):
            assert list(call.result().outputs["probabilities"].float_val) == [1.0]
        assert server.process.wait(END_S) == 0
        assert time.monotonic() - start < END_S
    assert "Traceback" not in server.log()


def is_listening(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


# TLS.


def test_tls_lets_in_whom_it_should(folder: Path, config: Path, tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    own, clients = authority.issue_cert("127.0.0.1"), authority.issue_cert("client@example.org")
    ssl_config = protos.SSLConfig(
        server_key=own.private_key_pem.bytes().decode(),
        server_cert=own.cert_chain_pems[0].bytes().decode(),
        custom_ca=authority.cert_pem.bytes().decode(),
        client_verify=True,
    )
    (tmp_path / "ssl.config").write_text(text_format.MessageToString(ssl_config))
    for name, blob in (("ca", authority.cert_pem), ("stranger", stranger.cert_pem)):
        blob.write_to_path(str(tmp_path / name))
    clients.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client"))

    def ask(server: Server, credentials: grpc.ChannelCredentials | None) -> Any:
        channel = (
            grpc.secure_channel(server.target, credentials) if credentials else grpc.insecure_channel(server.target)
        )
        with channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            return stub.Predict(soak.to_request("flowers", GOOD), timeout=soak.CALL_S)

    ca, key, chain = authority.cert_pem.bytes(), clients.private_key_pem.bytes(), clients.cert_chain_pems[0].bytes()
    good = {"verify": str(tmp_path / "ca"), "cert": str(tmp_path / "client")}
    with (
        start_server(
            tmp_path / "log",
            model_name="flowers",
            model_base_path=folder / "flowers",
            ssl_config_file=tmp_path / "ssl.config",
        ) as server,
        requests.Session() as session,
    ):
        session.trust_env = False
        assert "https://" in server.ready_line
        url = f"https://127.0.0.1:{server.rest_port}/v1/models/flowers"
        assert session.get(url, timeout=soak.CALL_S, **good).status_code == 200
        for wrong in ({**good, "verify": str(tmp_path / "stranger")}, {"verify": good["verify"]}):
            with pytest.raises(requests.ConnectionError):
                requests.get(url, timeout=soak.CALL_S, **wrong)
        with pytest.raises(requests.ConnectionError):
            requests.get(url.replace("https", "http"), timeout=soak.CALL_S)
        assert ask(server, grpc.ssl_channel_credentials(ca, key, chain)).model_spec.version.value == 1
        for credentials in (
            grpc.ssl_channel_credentials(stranger.cert_pem.bytes(), key, chain),
            grpc.ssl_channel_credentials(ca),
            None,
        ):
            with pytest.raises(grpc.RpcError) as caught:
                ask(server, credentials)
            assert caught.value.code() is Code.UNAVAILABLE
        answer = session.post(f"{url}:predict", data=soak.to_json(GOOD), timeout=soak.CALL_S, **good)
        assert len(answer.json()["predictions"]) == 1
        # The session keeps its connection open, and the server does not wait for it.
        start = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - start < END_S / 2
