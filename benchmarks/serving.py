"""The local server beside a direct call of the same SavedModel, and encoded photos beside pixels as JSON.

Both sides classify in turns, so that a machine whose speed drifts slows both. The direct call is
`tf.saved_model.load(…).signatures["serving_default"]` in this process, on encoded photos; the clients run in this
process too, on the same processors as the server.
"""

import base64
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import requests

from benchmarks import photos
from benchmarks.peak import MultiplyAdds, describe_shares, read_multiply_adds, share_of_peak
from export import preprocessing
from export.spec import read_spec
from serving.launcher import CONFIG, Server, serve

NAME = "flowers"
NUM_CLIENTS = 8
NUM_PHOTOS = 64
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
NUM_STARTS = 3
NUM_ROUNDS = 5
CALLS_A_ROUND = 10
ROUND_S = 6.0
BATCHING = (
    "--enable_batching",
    f"--batching_parameters_file={Path(__file__).parent.parent / 'serving' / 'config' / 'batching.config'}",
)

Call = Callable[[int], Any]
"""Classifies the i-th photo."""


def measure(data: str, model_dir: Path, file: Path) -> None:
    """Print the ratios of a served model: a folder with a SavedModel in it, and the int8 LiteRT file made from it."""
    with ExitStack() as stack:
        folder = stack.enter_context(photos.folder(data))
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        encoded = [path.read_bytes() for path in sorted(folder.glob("test/*/*.jpg"))[:NUM_PHOTOS]]
        _measure_start(model_dir, work, encoded)
        direct, direct_batch = _load(model_dir, encoded)
        shutil.copytree(model_dir, work / NAME / "1")
        with served(work / NAME, work / "float.log", *BATCHING) as server:
            of_file, of_model = read_multiply_adds(file)
            _measure_latency(server, encoded, direct, of_model)
            _measure_throughput(server, encoded, direct_batch, of_model)
            pixels = [preprocessing.load(e, read_spec(model_dir)["image_size_px"]).numpy() for e in encoded]
            _measure_formats(server, encoded, pixels, of_model)
            shutil.copy(file, work / NAME / "1" / "model.tflite")
            with served(work / NAME, work / "int8.log", "--prefer_tflite_model") as quantized:
                _measure_int8(server, quantized, pixels, of_model, of_file)


def _measure_start(model_dir: Path, work: Path, encoded: Sequence[bytes]) -> None:
    """Compare starting the server with importing TensorFlow and loading the model; its first call with later ones."""
    script = f"import tensorflow as tf; tf.saved_model.load({str(model_dir)!r})"
    (work / "start" / "1").parent.mkdir()
    (work / "start" / "1").symlink_to(model_dir.absolute())
    ours, peer, first_ms, later_ms = [], [], [], []
    for _ in range(NUM_STARTS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
        peer.append(time.perf_counter() - start)
        start = time.perf_counter()
        with served(work / "start", work / "start.log") as server:
            ours.append(time.perf_counter() - start)
            # The client connects before its first request.
            call = _rest_photos(server, encoded)
            first_ms.append(elapsed_ms(call, 0))
            later_ms += [elapsed_ms(call, i) for i in range(1, CALLS_A_ROUND)]
    report("serving, start to AVAILABLE (s)", min(ours), "importing TensorFlow and loading the model", min(peer))
    slowest, median = max(first_ms), statistics.median(later_ms)
    report(f"serving, slowest first request of {NUM_STARTS} starts (ms)", slowest, "the median one", median)


def _load(model_dir: Path, encoded: Sequence[bytes]) -> tuple[Call, Callable[[int, int], None]]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(model_dir))
    signature = loaded.signatures["serving_default"]

    def call(first: int, size: int) -> None:
        batch = [encoded[(first + i) % len(encoded)] for i in range(size)]
        signature(image_bytes=tf.constant(batch))["probabilities"].numpy()

    call.keep_alive = loaded  # type: ignore[attr-defined]  # a signature does not hold its model
    return lambda i: call(i, 1), call


@contextmanager
def served(base_path: Path, log_path: Path, *flags: str, config_dir: Path | None = CONFIG) -> Iterator[Server]:
    """Serve a model with the local server; its own defaults, without batching, hold where `config_dir` is `None`."""
    with serve(
        model_name=NAME, base_path=base_path, log_path=log_path, engine="local", flags=flags, config_dir=config_dir
    ) as server:
        yield server


def _grpc_asker(server: Server, signature: str, make_input: Callable[[int], tuple[str, Any]]) -> Call:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc_target))

    def call(i: int) -> Any:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = NAME
        request.model_spec.signature_name = signature
        name, value = make_input(i)
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        return stub.Predict(request, timeout=60)

    return call


def _grpc_photos(server: Server, encoded: Sequence[bytes]) -> Call:
    return _grpc_asker(server, "serving_default", lambda i: ("image_bytes", [encoded[i % len(encoded)]]))


def grpc_pixels(server: Server, pixels: Sequence[Any]) -> Call:
    """Return a call that sends one image after the other as pixels, over gRPC."""
    return _grpc_asker(server, "images", lambda i: ("images", pixels[i % len(pixels)][np.newaxis]))


def _rest_photos(server: Server, encoded: Sequence[bytes]) -> Call:
    session = _connect(server)

    def call(i: int) -> Any:
        photo = base64.b64encode(encoded[i % len(encoded)]).decode()
        return _post(session, server, json.dumps({"instances": [{"b64": photo}]}))

    return call


def _rest_pixels(server: Server, pixels: Sequence[Any]) -> Call:
    session = _connect(server)

    def call(i: int) -> Any:
        instances = pixels[i % len(pixels)][np.newaxis].tolist()
        return _post(session, server, json.dumps({"signature_name": "images", "instances": instances}))

    return call


def _connect(server: Server) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.get(f"{server.rest_url}/v1/models/{NAME}", timeout=60).raise_for_status()
    return session


def _post(session: requests.Session, server: Server, body: str) -> Any:
    response = session.post(f"{server.rest_url}/v1/models/{NAME}:predict", data=body, timeout=60)
    response.raise_for_status()
    return response.json()


def _measure_latency(server: Server, encoded: Sequence[bytes], direct: Call, of_model: MultiplyAdds) -> None:
    """Compare one photo at a time."""
    sides = {"direct": direct, "gRPC": _grpc_photos(server, encoded), "REST": _rest_photos(server, encoded)}
    p50 = _median_ms(sides)
    for protocol in ("gRPC", "REST"):
        shares = [share_of_peak(of_model, 1000 / p50[side]) for side in (protocol, "direct")]
        what = f"serving, p50 of a photo over {protocol} (ms)"
        report(what, p50[protocol], "a direct call", p50["direct"], shares=shares)


def _measure_throughput(
    server: Server, encoded: Sequence[bytes], direct_batch: Callable[[int, int], None], of_model: MultiplyAdds
) -> None:
    calls = [_grpc_photos(server, encoded) for _ in range(NUM_CLIENTS)]
    speeds: dict[int, list[float]] = {size: [] for size in BATCH_SIZES}
    for size in BATCH_SIZES:
        direct_batch(0, size)
        speeds[size].append(_rate(lambda i, size=size: direct_batch(i, size), size))  # type: ignore[misc]
    best = max(BATCH_SIZES, key=lambda size: speeds[size][0])
    ours, peer = [], []
    crowd_rate(calls)
    for _ in range(NUM_ROUNDS):
        peer.append(_rate(lambda i: direct_batch(i, best), best))
        ours.append(crowd_rate(calls))
    rates = statistics.median(ours), statistics.median(peer)
    report(
        f"serving, photos a second of {NUM_CLIENTS} clients",
        rates[0],
        f"direct calls in batches of {best}",
        rates[1],
        shares=[share_of_peak(of_model, rate) for rate in rates],
    )


def _measure_formats(server: Server, encoded: Sequence[bytes], pixels: Sequence[Any], of_model: MultiplyAdds) -> None:
    p50 = _median_ms({"bytes": _rest_photos(server, encoded), "pixels": _rest_pixels(server, pixels)})
    shares = [share_of_peak(of_model, 1000 / taken_ms) for taken_ms in p50.values()]
    what = "serving, p50 over REST of an encoded photo (ms)"
    report(what, p50["bytes"], "its pixels as JSON", p50["pixels"], shares=shares)


def _measure_int8(
    server: Server, quantized: Server, pixels: Sequence[Any], of_model: MultiplyAdds, of_file: MultiplyAdds
) -> None:
    calls = {side: [grpc_pixels(side, pixels) for _ in range(NUM_CLIENTS)] for side in (server, quantized)}
    rates: dict[Server, list[float]] = {server: [], quantized: []}
    for crowd in calls.values():
        crowd_rate(crowd)
    for _ in range(NUM_ROUNDS):
        for side, crowd in calls.items():
            rates[side].append(crowd_rate(crowd))
    ours, peer = statistics.median(rates[quantized]), statistics.median(rates[server])
    shares = share_of_peak(of_file, ours), share_of_peak(of_model, peer)
    report(f"serving, images a second of {NUM_CLIENTS} clients, int8", ours, "the float model", peer, shares=shares)


def _median_ms(sides: dict[str, Call]) -> dict[str, float]:
    """Call each side in turns; return the medians of their milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side(0)
    for i in range(NUM_ROUNDS * CALLS_A_ROUND):
        for name, side in sides.items():
            times[name].append(elapsed_ms(side, i))
    return {name: statistics.median(found) for name, found in times.items()}


def elapsed_ms(call: Callable[..., Any], *arguments: Any) -> float:
    """Return the milliseconds that a call takes."""
    start = time.perf_counter()
    call(*arguments)
    return (time.perf_counter() - start) * 1000


def _rate(call: Call, size: int) -> float:
    """Return the photos a second of one caller that never pauses."""
    start = time.perf_counter()
    for i in count(1):
        call(i)
        if (elapsed := time.perf_counter() - start) > ROUND_S:
            return i * size / elapsed
    raise AssertionError


def crowd_rate(calls: Sequence[Call]) -> float:
    """Return the photos a second of several clients, each calling again as soon as it has a response."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return sum(pool.map(lambda call: _rate(call, 1), calls))


def report(what: str, ours: float, peer_name: str, peer: float, *, shares: Sequence[float | None] = ()) -> None:
    """Print one ratio; there is none to a peer of zero. `shares` are those of the peak, where both run a network."""
    ratio = f"{ours / peer:.3f}" if peer else "none"
    print(f"{what}: ours {ours:.3g}, {peer_name} {peer:.3g}: ratio {ratio}; {describe_shares(*shares)}", flush=True)
