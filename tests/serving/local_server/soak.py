"""Load on a server, and mischief in its folders: little of each in the fast tests, much in the slow one.

Every function sends requests over REST and gRPC in turn, and reports what went wrong.
"""

import base64
import functools
import gzip
import io
import itertools
import json
import os
import random
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import requests
import tensorflow as tf
from google.protobuf.message import DecodeError
from PIL import Image
from requests.adapters import HTTPAdapter
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from tests.serving.local_server.conftest import Server, wait_until

CALL_S = 30
MAX_CONNECTIONS = 64
# Float32 sums differ in their last digits with the size of the batch that an image was in.
TOLERANCE = 1e-4


def encode(width_px: int, height_px: int, kind: str = "JPEG", seed: int = 0) -> bytes:
    """Encode an image, the same for the same seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((width_px, height_px)).save(buffer, kind)
    return buffer.getvalue()


def to_json(*images: bytes) -> bytes:
    return json.dumps({"instances": [{"b64": base64.b64encode(image).decode()} for image in images]}).encode()


def to_request(model: str, *images: bytes) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    tensor = request.inputs["image_bytes"]
    tensor.dtype = types_pb2.DT_STRING
    tensor.tensor_shape.dim.add().size = len(images)
    tensor.string_val.extend(images)
    return request


def save_gate(path: Path) -> None:
    """Write a model that waits: it writes to the named pipe whose path it is sent, which takes until somebody reads."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def wait(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([tf.io.write_file(image_bytes[0], "")]):
            return {"probabilities": tf.ones([tf.size(image_bytes)])}

    module = tf.Module()
    tf.saved_model.save(module, str(path), signatures=wait)


def open_gate(pipe: Path, is_done: Callable[[], bool]) -> None:
    """Let through whoever waits at a pipe, and who comes to it, until all is done."""
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        wait_until(is_done)
    finally:
        os.close(reader)


class Client:
    """Calls one model over both APIs, on connections of its own."""

    def __init__(self, server: Server, model: str, target: str = "") -> None:
        self.model = model
        self._url = f"{server.url}/v1/models/{model}:predict"
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify, self._session.cert = server.session.verify, server.session.cert
        self._session.mount("http://", HTTPAdapter(pool_maxsize=MAX_CONNECTIONS))
        self._channel = grpc.insecure_channel(target or server.target)
        self.stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def post(self, body: bytes) -> requests.Response:
        return self._session.post(self._url, data=body, timeout=CALL_S)

    def predict(self, *images: bytes) -> Any:
        return self.stub.Predict(to_request(self.model, *images), timeout=CALL_S)

    def begin(self, *images: bytes) -> list[Any]:
        """Send a request for each image over gRPC; return the calls, which go on."""
        return [self.stub.Predict.future(to_request(self.model, image), timeout=CALL_S) for image in images]

    def predict_rest(self, *images: bytes) -> list[float]:
        response = self.post(to_json(*images))
        assert response.status_code == 200, response.text
        return [p for row in response.json()["predictions"] for p in row["probabilities"]]

    def predict_grpc(self, *images: bytes) -> list[float]:
        return list(self.predict(*images).outputs["probabilities"].float_val)

    def get_metadata(self) -> Any:
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = self.model
        return self.stub.GetModelMetadata(request, timeout=CALL_S)

    def close(self) -> None:
        self._session.close()
        self._channel.close()


@contextmanager
def client_of(server: Server, model: str, target: str = "") -> Iterator[Client]:
    client = Client(server, model, target)
    try:
        yield client
    finally:
        client.close()


def version_states(server: Server, model: str) -> dict[int, tuple[str, str]]:
    """Return the state and the error of each version; none where the model has no versions."""
    with requests.Session() as session:
        session.trust_env = False
        status = session.get(f"{server.url}/v1/models/{model}", timeout=CALL_S).json()
    return {
        int(found["version"]): (found["state"], found["status"]["error_message"])
        for found in status.get("model_version_status", [])
    }


def available(server: Server, model: str) -> list[int]:
    return sorted(n for n, (state, _) in version_states(server, model).items() if state == "AVAILABLE")


def push(source_dir: Path, base_dir: Path, version: int) -> None:
    """Copy a SavedModel beside the version folders, then rename it to be one."""
    staged = base_dir.parent / f"{base_dir.name}-staged-{version}"
    shutil.copytree(source_dir, staged)
    staged.rename(base_dir / str(version))


def take_away(base_dir: Path, version: int) -> None:
    """Remove a version at one stroke."""
    removed = base_dir.parent / f"{base_dir.name}-removed-{version}"
    (base_dir / str(version)).rename(removed)
    shutil.rmtree(removed)


@dataclass
class Responses:
    """What clients received."""

    num_requests: int = 0
    failures: list[str] = field(default_factory=list)
    versions: set[int] = field(default_factory=set)


@contextmanager
def requests_all_along(server: Server, model: str, *, num_clients: int) -> Iterator[Responses]:
    """Let clients send requests while the block lasts; `versions` grows meanwhile, the rest comes at its end."""
    image = encode(48, 40)
    done = threading.Event()
    total = Responses()

    def send() -> Responses:
        responses = Responses()
        with client_of(server, model) as client:
            expected = client.predict_grpc(image)
            for turn in itertools.count():
                if done.is_set() and turn:
                    return responses
                responses.num_requests += 1
                try:
                    if turn % 2:
                        found = client.predict_rest(image)
                    else:
                        response = client.predict(image)
                        found = list(response.outputs["probabilities"].float_val)
                        total.versions.add(response.model_spec.version.value)  # the block may wait for one
                    if not np.allclose(found, expected, atol=TOLERANCE):
                        responses.failures.append(f"{found} instead of {expected}")
                except (grpc.RpcError, requests.RequestException, AssertionError) as exc:
                    responses.failures.append(f"{type(exc).__name__}: {exc}")
        raise AssertionError

    with ThreadPoolExecutor(num_clients) as pool:
        sending = [pool.submit(send) for _ in range(num_clients)]
        try:
            yield total
        finally:
            done.set()
        for responses in (future.result() for future in sending):
            total.num_requests += responses.num_requests
            total.failures += responses.failures


def reload(
    server: Server, model: str, *, base_dir: Path, source_dir: Path, num_reloads: int, num_clients: int = 8
) -> Responses:
    """Push versions under load; every second one replaces the one before, the others come beside it."""
    first = max(available(server, model)) + 1
    with requests_all_along(server, model, num_clients=num_clients) as responses:
        wait_until(lambda: first - 1 in responses.versions)
        for version in range(first, first + num_reloads):
            push(source_dir, base_dir, version)
            if version % 2:
                take_away(base_dir, version - 1)
            wait_until(lambda version=version: available(server, model) == [version])  # type: ignore[misc]
            wait_until(lambda version=version: version in responses.versions)  # type: ignore[misc]
    return responses


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _scramble(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(max(path.stat().st_size, 1000)))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


_GRAPH, _INDEX, _DATA = "saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"
BREAKS: dict[str, Callable[[Path], Any]] = {
    "an empty folder": lambda path: (shutil.rmtree(path), path.mkdir()),
    "a graph of random bytes": lambda path: _scramble(path / _GRAPH),
    "half a graph": lambda path: _cut(path / _GRAPH),
    "no variables": lambda path: shutil.rmtree(path / "variables"),
    "half the variables": lambda path: _cut(path / _DATA),
    "an empty graph": lambda path: (path / _GRAPH).write_bytes(b""),
    "no graph": lambda path: (path / _GRAPH).unlink(),
    "no data of variables": lambda path: (path / _DATA).unlink(),
    "no index of variables": lambda path: (path / _INDEX).unlink(),
    "half an index": lambda path: _cut(path / _INDEX),
    "an index of random bytes": lambda path: _scramble(path / _INDEX),
    "a flipped bit in the variables": lambda path: _flip(path / _DATA),
    "empty variables": lambda path: (path / _DATA).write_bytes(b""),
    "a folder for a graph": lambda path: _replace_by_folder(path / _GRAPH),
    "text for a graph": lambda path: (path / _GRAPH).write_text("graph"),
    "warmup of random bytes": lambda path: _scramble(path / "assets.extra" / "tf_serving_warmup_requests"),
    "half the warmup": lambda path: _cut(path / "assets.extra" / "tf_serving_warmup_requests"),
}


def push_broken(
    server: Server, model: str, *, base_dir: Path, source_dir: Path, num_versions: int
) -> tuple[Responses, dict[str, str]]:
    """Copy broken versions into the base path file by file, as by hand; return their errors by kind of break."""
    first = max(version_states(server, model)) + 1
    kinds = list(itertools.islice(itertools.cycle(BREAKS), num_versions))
    with requests_all_along(server, model, num_clients=1) as responses:
        for version, kind in enumerate(kinds, start=first):
            broken = base_dir.parent / f"{base_dir.name}-broken-{version}"
            shutil.copytree(source_dir, broken)
            BREAKS[kind](broken)
            shutil.copytree(broken, base_dir / str(version))
            wait_until(lambda version=version: version_states(server, model).get(version, ("",))[0] == "END")  # type: ignore[misc]
    states = version_states(server, model)
    errors = {}
    for version, kind in enumerate(kinds, start=first):
        state, message = states[version]
        assert (state, bool(message)) == ("END", True), (kind, state, message)
        errors[f"{version}: {kind}"] = message
    return responses, errors


@dataclass
class Overload:
    """How a server bore more requests than it can process; rates are responses in a second."""

    rate_before: float
    rate_during: float
    rate_after: float
    responded_after_s: list[float]
    refused_after_s: list[float]
    failures: list[str]


def measure_rate(server: Server, model: str, images: Sequence[bytes], *, num_clients: int, duration_s: float) -> float:
    """Return the responses per second to clients that each wait for theirs; refusals count as failures."""
    start = time.monotonic()

    def send(i: int) -> int:
        with client_of(server, model) as client:
            for turn in itertools.count():
                if time.monotonic() > start + duration_s:
                    return turn
                (client.predict_rest if (i + turn) % 2 else client.predict_grpc)(*images)
        raise AssertionError

    with ThreadPoolExecutor(num_clients) as pool:
        num_responses = sum(pool.map(send, range(num_clients)))
    return num_responses / (time.monotonic() - start)


def overload(
    server: Server, model: str, images: Sequence[bytes], *, factor: float, duration_s: float, num_clients: int = 4
) -> Overload:
    """Send `factor` times what a server can process, at even intervals; measure its rate before and after."""
    rate_before = measure_rate(server, model, images, num_clients=num_clients, duration_s=duration_s / 2)
    interval_s = 1 / (factor * rate_before)
    num_requests = int(duration_s / interval_s)
    outcomes: list[tuple[str, float]] = []
    body, request = to_json(*images), to_request(model, *images)

    def predict_rest(client: Client) -> None:
        start = time.monotonic()
        try:
            response = client.post(body)
            outcome = {200: "responded", 503: "refused"}.get(response.status_code, response.text)
        except requests.RequestException as exc:
            outcome = f"{type(exc).__name__}: {exc}"
        outcomes.append((outcome, time.monotonic() - start))

    def note_grpc(start: float, future: Any) -> None:
        code = future.code()
        refused = "refused" if code is grpc.StatusCode.UNAVAILABLE else f"{code}: {future.details()}"
        outcomes.append(("responded" if code is grpc.StatusCode.OK else refused, time.monotonic() - start))

    start = time.monotonic()
    with ThreadPoolExecutor(MAX_CONNECTIONS) as pool, client_of(server, model) as client:
        pending: list[Future[None]] = []
        for i in range(num_requests):
            time.sleep(max(0.0, start + i * interval_s - time.monotonic()))
            if i % 2:
                pending.append(pool.submit(predict_rest, client))
            else:
                future = client.stub.Predict.future(request, timeout=CALL_S)
                future.add_done_callback(functools.partial(note_grpc, time.monotonic()))
        for each in pending:
            each.result()
        wait_until(lambda: len(outcomes) == num_requests)
    took_s = time.monotonic() - start
    rate_after = measure_rate(server, model, images, num_clients=num_clients, duration_s=duration_s / 2)
    responded_after_s = [s for outcome, s in outcomes if outcome == "responded"]
    return Overload(
        rate_before=rate_before,
        rate_during=len(responded_after_s) / took_s,
        rate_after=rate_after,
        responded_after_s=responded_after_s,
        refused_after_s=[s for outcome, s in outcomes if outcome == "refused"],
        failures=[outcome for outcome, _ in outcomes if outcome not in ("responded", "refused")],
    )


@dataclass
class Mutations:
    """How often mutated requests got each status, and the requests whose status tells of a bug."""

    statuses: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    growth_bytes: int = 0


def mutate(server: Server, model: str, *, num_requests: int, num_warmup: int, seed: int) -> Mutations:
    """Send damaged requests; memory is taken to grow from the end of the first `num_warmup` of them on."""
    chance = random.Random(seed)
    found = Mutations()
    before = 0
    with grpc.insecure_channel(server.target) as channel:
        for turn in range(num_requests):
            if turn == num_warmup:
                before = server.memory_bytes()
            if turn % 2:
                method, body = _mutated_message(chance, model)
                status, is_expected = _call(channel, method, body)
                what = f"{method} {body[:300]!r}"
            else:
                method = "REST"
                what, status, is_expected = _send(server, _mutated_http(chance, model))
            found.statuses[f"{method} {status}"] += 1
            if not is_expected:
                found.unexpected.append(f"{status}: {what}")
            assert server.process.poll() is None, f"the server ended with {what}"
    found.growth_bytes = server.memory_bytes() - before
    return found


def damage(chance: random.Random, content: bytes) -> bytes:
    """Change some bytes: flip, cut, repeat, insert, or replace them by what parsers stumble over."""
    for _ in range(chance.randint(1, 2)):
        at = chance.randrange(len(content) + 1)
        to = min(len(content), at + chance.randint(0, 20))
        kind = chance.randrange(6)
        if kind == 0:
            middle = bytes(byte ^ (1 << chance.randrange(8)) for byte in content[at:to])
        elif kind == 1:
            middle, to = b"", len(content) if chance.random() < 0.3 else to
        elif kind == 2:
            middle = content[at:to] * chance.randint(2, 50)
        elif kind == 3:
            middle = chance.randbytes(chance.randint(1, 30))
        else:
            middle = chance.choice(_STUMBLING_BLOCKS)
        content = content[:at] + middle + content[to:]
    return content


_STUMBLING_BLOCKS = (
    *(b"\0", b"\xff\xfe", b"\r\n", b"%00", b"%", b"..", b"/", b":", b'"', b"\\", b"\\ud800", b"{", b"}", b"[", b"]"),
    *(b"[" * 70, b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-1", b"9" * 25, b"9" * 5000, b'{"b64": ""}'),
    *("grüße".encode(), b'{"b64": "%%%"}', b'"instances": [],', b'"signature_name": 3,', b"\x80" * 12, b"\x7f" * 8),
)


def _mutated_http(chance: random.Random, model: str) -> bytes:
    """Return a request as it is on the wire, with one part of it damaged."""
    image = encode(chance.randint(1, 40), chance.randint(1, 40), chance.choice(["JPEG", "PNG", "GIF", "BMP"]))
    parts = {
        "image": image,
        "method": chance.choice([b"POST"] * 8 + [b"GET", b"PUT"]),
        "path": f"/v1/models/{model}".encode()
        + chance.choice([b""] * 5 + [b"/versions/1", b"/labels/stable", b"/metadata"])
        + chance.choice([b":predict"] * 8 + [b":classify", b":regress", b""]),
        "headers": chance.choice([b"Content-Type: application/json", b"Accept: */*", b"Content-Encoding: gzip"]),
    }
    part = chance.choice(["image", "body", "body", "path", "headers", "method"])
    if part in parts:
        parts[part] = damage(chance, parts[part])
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).tolist()
    encoded = base64.b64encode(parts["image"])
    body = chance.choice(
        [
            b'{"instances": [{"b64": "%s"}]}' % encoded,
            b'{"inputs": {"image_bytes": [{"b64": "%s"}]}}' % encoded,
            b'{"signature_name": "serving_default", "instances": [{"image_bytes": {"b64": "%s"}}]}' % encoded,
            b'{"signature_name": "images", "instances": %s}' % str(pixels).encode(),
            b'{"examples": [{"image": {"b64": "%s"}, "size": 3}], "context": {"mean": 0.5}}' % encoded,
        ]
    )
    if parts["headers"].endswith(b"gzip") and chance.random() < 0.9:
        body = gzip.compress(body)
    if part == "body":
        body = damage(chance, body)
    head = b"%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n\r\n"
    return head % (parts["method"], parts["path"], len(body), parts["headers"]) + body


def _send(server: Server, request: bytes) -> tuple[str, str, bool]:
    """Send bytes, and nothing after them; return what was sent, the status, and whether it is allowed.

    A damaged head may announce more than comes: then no response is due, and the connection is all that ends.
    """
    what = f"{request[:300]!r} … {request[-100:]!r}"
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=CALL_S) as connection:
        try:
            connection.sendall(request)
            response = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        except (ConnectionError, TimeoutError) as exc:
            return what, type(exc).__name__, False
    status = response.split(b" ", 2)[1].decode() if response.startswith(b"HTTP/1.1 ") else "no response"
    # 504: the head was made to announce more than came, or to switch `Connection: close` off.
    return what, status, status[:1] in "234" or status in ("501", "504")


_METHODS: dict[str, Any] = {
    "Predict": predict_pb2.PredictRequest,
    "Classify": classification_pb2.ClassificationRequest,
    "Regress": regression_pb2.RegressionRequest,
    "MultiInference": inference_pb2.MultiInferenceRequest,
    "GetModelMetadata": get_model_metadata_pb2.GetModelMetadataRequest,
    "GetModelStatus": get_model_status_pb2.GetModelStatusRequest,
}


def _valid_message(chance: random.Random, method: str, model: str) -> Any:
    message = _METHODS[method]()
    spec = message.tasks.add().model_spec if method == "MultiInference" else message.model_spec
    spec.name = model
    if chance.random() < 0.2:
        spec.version.value = 1
    if method == "Predict":
        image = encode(chance.randint(1, 40), chance.randint(1, 40), chance.choice(["JPEG", "PNG", "GIF", "BMP"]))
        message.CopyFrom(to_request(model, damage(chance, image) if chance.random() < 0.5 else image))
    elif method == "GetModelMetadata":
        message.metadata_field.append("signature_def")
    elif method != "GetModelStatus":
        feature = message.input.example_list.examples.add().features.feature["image"]
        feature.bytes_list.value.append(encode(8, 8))
    if method == "MultiInference":
        message.tasks[0].method_name = "tensorflow/serving/classify"
    return message


def _mutated_message(chance: random.Random, model: str) -> tuple[str, bytes]:
    method = chance.choice(["Predict"] * 5 + list(_METHODS))
    message = _valid_message(chance, method, model)
    how = chance.random()
    if how < 0.4:
        return method, damage(chance, message.SerializeToString())
    if how < 0.8 and method == "Predict":
        _mutate_tensor(chance, message)
    return method, message.SerializeToString()


def _mutate_tensor(chance: random.Random, message: Any) -> None:
    """Change a well-formed request into one that says something else."""
    tensor = message.inputs["image_bytes"]
    change = chance.randrange(9)
    if change == 0:
        tensor.dtype = chance.choice([*types_pb2.DataType.values(), 999])
    elif change == 1:
        del tensor.tensor_shape.dim[:]
        for _ in range(chance.randint(0, 70)):
            tensor.tensor_shape.dim.add().size = chance.choice([0, 1, 1, 2, 3, -1, 2**31, 2**62])
    elif change == 2:
        message.model_spec.signature_name = chance.choice(["images", "x" * 100_000, "é\0", "serving_default"])
    elif change == 3:
        message.output_filter.extend(chance.choices(["probabilities", "classes", "x" * 20_000, ""], k=3))
    elif change == 4:
        message.inputs[chance.choice(["", "images", "y" * 50_000])].CopyFrom(tensor)
    elif change == 5:
        message.model_spec.version_label = chance.choice(["stable", "z" * 50_000])
    elif change == 6:
        message.model_spec.version.value = chance.choice([0, -1, 2**63 - 1])
    elif change == 7:
        field_name = chance.choice(["int_val", "float_val", "half_val", "uint64_val", "bool_val"])
        getattr(tensor, field_name).extend(chance.choices([0, 1], k=chance.randint(1, 3000)))
        tensor.dtype = chance.choice(types_pb2.DataType.values())
    else:
        tensor.tensor_content = chance.randbytes(chance.randint(1, 4000))
        tensor.dtype = chance.choice(types_pb2.DataType.values())


def _call(channel: grpc.Channel, method: str, body: bytes) -> tuple[str, bool]:
    """Send bytes to a method; return the status, and whether it is allowed."""
    service = "ModelService" if method == "GetModelStatus" else "PredictionService"
    call = channel.unary_unary(f"/tensorflow.serving.{service}/{method}")
    try:
        call(body, timeout=CALL_S)
    except grpc.RpcError as exc:
        code = exc.code()
        if code is grpc.StatusCode.INTERNAL:
            return code.name, not _is_message(_METHODS[method], body)
        return code.name, code not in _BUGS
    return "OK", True


_BUGS = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.DEADLINE_EXCEEDED)


def _is_message(kind: Any, body: bytes) -> bool:
    try:
        kind.FromString(body)
    except DecodeError:
        return False
    return True
