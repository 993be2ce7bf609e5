"""The LiteRT files beside the SavedModel they were made from and beside OpenVINO; the client's start beside another.

The int8 file and the SavedModel classify in turns, each from an encoded photo on: `serving_default` decodes in its
graph, the LiteRT file is fed by the thin client. LiteRT and OpenVINO run each kind of file in turns, from the same
decoded photos on, with one thread each; the shortest call counts, as in `kernels`. Both clients send one photo to the
same local server over gRPC, each in a new process; the peer imports `tensorflow-serving-api`, as clients of TensorFlow
Serving usually do.
"""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from benchmarks import photos
from benchmarks.peak import read_multiply_adds, share_of_peak
from benchmarks.serving import NAME, elapsed_ms, report, served
from client.classifier_client import Client, ImageError, LiteRTTransport, preprocessing
from components.storage.files import size_bytes
from export.spec import read_spec
from serving.launcher import Server

NUM_ROUNDS = 5
CALLS_A_ROUND = 40
NUM_STARTS = 5
OPENVINO = "openvino==2026.4.0"
_PREDICT = Path(__file__).parent.parent / "client" / "predict.py"
_PEER = """
import sys
import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
target, photo = sys.argv[1:]
request = predict_pb2.PredictRequest()
request.model_spec.name = "flowers"
request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([open(photo, "rb").read()]))
with grpc.insecure_channel(target) as channel:
    response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request)
    print(tf.make_ndarray(response.outputs["probabilities"]))
"""

Classify = Callable[[bytes], int]
"""An encoded photo's class."""

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""The probabilities `[C]` of a decoded photo `[1, size, size, 3]`, 0–255."""


def measure(data: str, model_dir: Path, file: Path) -> None:
    """Print the ratios of a LiteRT file and of the client.

    Args:
        data: a folder `{train,validation,test}/<class>/*.jpg`, or `synthetic`.
        model_dir: a SavedModel.
        file: the LiteRT file that was made from it.
    """
    with photos.folder(data) as folder:
        paths = sorted(folder.glob("test/*/*.jpg"))
        _measure_model(model_dir, file, paths)
        _measure_openvino(file, paths)
        with tempfile.TemporaryDirectory() as work:
            (Path(work) / NAME).mkdir()
            (Path(work) / NAME / "1").symlink_to(model_dir.absolute())
            with served(Path(work) / NAME, Path(work) / "server.log") as server:
                _measure_start(server, paths[0])


def _measure_model(model_dir: Path, file: Path, paths: Sequence[Path]) -> None:
    names = read_spec(model_dir)["class_names"]
    encoded = [path.read_bytes() for path in paths]
    labels = np.array([names.index(path.parent.name) for path in paths])
    sides = {"int8": _open_file(file, names), "SavedModel": _open_saved_model(model_dir)}
    found = {side: np.array([classify(photo) for photo in encoded]) for side, classify in sides.items()}
    times: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(NUM_ROUNDS):
        for side, classify in sides.items():
            for call in range(CALLS_A_ROUND):
                photo = encoded[(number * CALLS_A_ROUND + call) % len(encoded)]
                times[side].append(elapsed_ms(classify, photo))
    ours, peer = (statistics.median(times[side]) for side in sides)
    of_file, of_model = read_multiply_adds(file)
    shares = share_of_peak(of_file, 1000 / ours), share_of_peak(of_model, 1000 / peer)
    report("on_device, a photo decoded and classified (ms)", ours, "SavedModel", peer, shares=shares)
    report("on_device, size (MB)", file.stat().st_size / 1e6, "SavedModel", size_bytes(model_dir) / 1e6)
    ours, peer = (float((found[side] == labels).mean()) for side in sides)
    agreement = float((found["int8"] == found["SavedModel"]).mean())
    report(f"on_device, accuracy on {len(labels)} photos, {agreement:.4f} in agreement", ours, "SavedModel", peer)


def _open_file(file: Path, names: Sequence[str]) -> Classify:
    client = Client(LiteRTTransport(file))

    def classify(photo: bytes) -> int:
        (result,) = client.classify(photo)
        if isinstance(result, ImageError):
            raise result
        return names.index(result.label)

    return classify


def _open_saved_model(model_dir: Path) -> Classify:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(model_dir))

    def classify(photo: bytes) -> int:
        outputs = loaded.signatures["serving_default"](image_bytes=tf.constant([photo]))
        return int(outputs["probabilities"].numpy()[0].argmax())

    return classify


def _measure_openvino(file: Path, paths: Sequence[Path]) -> None:
    """Compare the predictions and the time of each kind of file in LiteRT and in OpenVINO."""
    if find_spec("openvino") is None:
        print(f"on_device, in OpenVINO: left out, it is not installed: .venv/bin/uv pip install {OPENVINO}", flush=True)
        return
    size_px = LiteRTTransport(file).image_size_px()
    images = [np.asarray(preprocessing.load(path, name=path.name, size_px=size_px))[np.newaxis] for path in paths]
    for path in sorted(file.parent.glob(f"{file.stem.rpartition('_')[0]}_*.tflite")):
        try:
            sides = {"LiteRT": _open_litert(path), "OpenVINO": _open_openvino(path)}
        except RuntimeError as exc:
            print(f"on_device, {path.name}: refused: {' '.join(str(exc).split())}", flush=True)
            continue
        found = {side: np.stack([run(image) for image in images]) for side, run in sides.items()}
        times: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(NUM_ROUNDS):
            for side, run in sides.items():
                for call in range(CALLS_A_ROUND):
                    times[side].append(elapsed_ms(run, images[(number * CALLS_A_ROUND + call) % len(images)]))
        ours, peer = (min(times[side]) for side in sides)
        same = float((found["LiteRT"].argmax(axis=1) == found["OpenVINO"].argmax(axis=1)).mean())
        apart = float(np.abs(found["LiteRT"] - found["OpenVINO"]).mean())
        of_file, _ = read_multiply_adds(path)
        shares = [share_of_peak(of_file, 1000 / taken_ms, num_threads=1) for taken_ms in (ours, peer)]
        what = f"on_device, {path.name}, {same:.4f} in agreement, probabilities {apart:.4f} apart, shortest call (ms)"
        report(what, ours, "OpenVINO", peer, shares=shares)


def _open_litert(file: Path) -> Run:
    interpreter = Interpreter(str(file), num_threads=1)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        interpreter.set_tensor(taken["index"], image.astype(taken["dtype"]))
        interpreter.invoke()
        return interpreter.get_tensor(given["index"])[0]

    return run


def _open_openvino(file: Path) -> Run:
    import openvino

    # Where the processor has bfloat16, it would compute in that.
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino.Core().compile_model(file, "CPU", options)
    dtype = model.input(0).element_type.to_dtype()
    return lambda image: model(image.astype(dtype))[0][0]


def _measure_start(server: Server, photo: Path) -> None:
    """Compare the time from the command to its prediction."""
    ours = [sys.executable, str(_PREDICT), "--grpc", "--target", server.grpc_target, str(photo)]
    peer = [sys.executable, "-c", _PEER, server.grpc_target, str(photo)]
    run = partial(subprocess.run, check=True, capture_output=True, timeout=120)
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(NUM_STARTS):
        for side, command in {"ours": ours, "peer": peer}.items():
            times[side].append(elapsed_ms(run, command))
    ours_s, peer_s = (statistics.median(side) / 1000 for side in times.values())
    report(
        "on_device, from predict.py --grpc to the prediction (s)",
        ours_s,
        "a client with tensorflow-serving-api",
        peer_s,
    )
