"""Requests that a model's `logging_config` has written to files: by the real server, over gRPC and REST."""

import base64
import io
import logging
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image
from tensorflow_serving.apis import (
    classification_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

from client.classifier_client import Client, GrpcTransport, RestTransport
from serving.local_server.errors import Code, StartError
from serving.local_server.flags import Flags
from serving.local_server.metrics import Metrics
from serving.local_server.model_config import LoggingConfig, ModelConfig
from serving.local_server.request_log import PREDICT, RequestLog
from serving.local_server.settings import read_models
from serving.local_server.versions import Version
from serving.shared.capture import Captured, read_captured
from tests.client.litert_files import CLASS_NAMES
from tests.serving.local_server.conftest import (
    CALL_S,
    Server,
    linux,
    refusal,
    start_server,
    wait_until,
    write_config,
)
from tests.serving.local_server.test_limits import IMAGES, KNOWN, SETS, SIZE_PX, Colours, encode

GREY = np.asarray(IMAGES[0])


def logged(prefix: Path, rate: float = 1.0, kind: str = "file") -> str:
    """Return the `logging_config` of a model."""
    return (
        f'logging_config {{ log_collector_config {{ type: "{kind}" filename_prefix: "{prefix}" }} '
        f"sampling_config {{ sampling_rate: {rate} }} }}"
    )


@pytest.fixture(scope="module")
def capturing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server of one model under several names, and its folder; its configuration has a prefix `<folder>/<name>/x`."""
    folder = tmp_path_factory.mktemp("capture")
    model = Colours()
    signatures = {"serving_default": model.encoded, "images": model.images, "classify": model.classify}
    tf.saved_model.save(model, str(folder / "model" / "1"), signatures=signatures)
    monitoring = folder / "monitoring.config"
    monitoring.write_text("prometheus_config { enable: true }")
    names = ("both", "other", "full", "reloaded")
    models = {name: (folder / "model", logged(folder / name / "x")) for name in names}
    models |= {"off": (folder / "model", ""), "never": (folder / "model", logged(folder / "never" / "x", 0))}
    with start_server(
        folder / "server.log",
        model_config_file=write_config(folder / "models.config", models),
        monitoring_config_file=monitoring,
    ) as server:
        yield server, folder


def read(folder: Path, count: int) -> list[Captured]:
    """Return what was captured below a folder as soon as so many photos are there."""
    wait_until(lambda: folder.is_dir() and len(list(read_captured(folder))) >= count)
    return list(read_captured(folder))


def count(server: Server, model: str, status: str) -> float:
    line = f':tensorflow:serving:request_log_count{{model_name="{model}",status_code="{status}"}} '
    page = server.request("GET", "/monitoring/prometheus/metrics").text
    return float(next((each.removeprefix(line) for each in page.splitlines() if each.startswith(line)), 0))


def is_capturing(server: Server, model: str) -> str | None:
    line = f':tensorflow:serving:request_log_is_capturing{{model_name="{model}"}} '
    page = server.request("GET", "/monitoring/prometheus/metrics").text
    return next((each.removeprefix(line) for each in page.splitlines() if each.startswith(line)), None)


def test_requests_over_both_protocols_are_records_of_each_photo(capturing: tuple[Server, Path]) -> None:
    server, folder = capturing
    for transport in (RestTransport(f"127.0.0.1:{server.rest_port}", "both"), GrpcTransport(server.target, "both")):
        with Client(transport) as client:
            predicted = list(client.classify(IMAGES))
    found = read(folder / "both", 6)
    assert len(found) == 6
    for number, photo in enumerate(found):
        expected: Any = predicted[number % 3]
        assert (photo.model_name, photo.version, photo.class_names) == ("both", 1, CLASS_NAMES)
        assert photo.probabilities == pytest.approx([expected.probabilities[name] for name in CLASS_NAMES])
        assert photo.p_value == pytest.approx(expected.p_value)
        assert photo.is_known == KNOWN[number % 3]
        assert photo.prediction_set == tuple(n for n, held in zip(CLASS_NAMES, SETS[number % 3], strict=True) if held)
        assert photo.image
        pixels = np.asarray(Image.open(io.BytesIO(photo.image)).convert("RGB"))
        np.testing.assert_array_equal(pixels, np.asarray(IMAGES[number % 3]))
    assert count(server, "both", "OK") == 2
    assert is_capturing(server, "both") == "1.0"


def test_tensorflow_reads_the_records_as_prediction_logs(capturing: tuple[Server, Path]) -> None:
    server, folder = capturing
    encoded = encode(IMAGES[1])
    assert server.predict("other", instances=[encoded])[0] == 200
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "other", "classify"
    request.input.example_list.examples.add()
    with grpc.insecure_channel(server.target) as channel:
        prediction_service_pb2_grpc.PredictionServiceStub(channel).Classify(request, timeout=CALL_S)
    wait_until(lambda: count(server, "other", "OK") == 2)
    (path,) = (folder / "other").iterdir()
    raw = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    predict, classify = map(prediction_log_pb2.PredictionLog.FromString, raw)
    for log in (predict, classify):
        assert (log.log_metadata.model_spec.name, log.log_metadata.model_spec.version.value) == ("other", 1)
        assert log.log_metadata.sampling_config.sampling_rate == 1
        assert log.log_metadata.timestamp_secs > 1_700_000_000
    assert predict.predict_log.request.model_spec.signature_name == "serving_default"
    (image,) = predict.predict_log.request.inputs["images"].string_val
    assert image == base64.b64decode(encoded["b64"])
    assert tf.make_ndarray(predict.predict_log.response.outputs["probabilities"]).shape == (1, 3)
    assert classify.classify_log.request == request
    assert [each.label for each in classify.classify_log.response.result.classifications[0].classes] == [*CLASS_NAMES]
    assert len(read(folder / "other", 1)) == 1  # a classification has no probabilities


def test_nothing_is_captured_of_others_nor_of_requests_that_fail(capturing: tuple[Server, Path]) -> None:
    server, folder = capturing
    before = count(server, "both", "OK")
    for model in ("off", "never"):
        assert server.predict(model, instances=[encode(IMAGES[0])])[0] == 200
    assert server.predict("both", instances=[{"b64": "bm8gaW1hZ2U="}])[0] == 400
    assert server.predict("both", instances=[encode(IMAGES[0])])[0] == 200
    wait_until(lambda: count(server, "both", "OK") == before + 1)
    assert not (folder / "off").exists()
    assert not (folder / "never").exists()
    assert (is_capturing(server, "off"), is_capturing(server, "never")) == (None, "1.0")


def test_a_reload_turns_capture_off_and_on(capturing: tuple[Server, Path]) -> None:
    server, folder = capturing
    config = (folder / "models.config").read_text()
    with grpc.insecure_channel(server.target) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)

        def reload(text: str) -> Any:
            request = model_management_pb2.ReloadConfigRequest()
            text_format.Parse(text, request.config)
            return stub.HandleReloadConfigRequest(request, timeout=CALL_S)

        reload(config.replace(logged(folder / "reloaded" / "x"), ""))
        assert server.predict("reloaded", instances=[encode(IMAGES[0])])[0] == 200
        assert is_capturing(server, "reloaded") is None
        broken = config.replace('type: "file"', 'type: "bigquery"', 1)
        code, message = refusal(reload, broken)
        assert (code, "Cannot find LogCollector::Factory for type: bigquery" in message) == (Code.NOT_FOUND, True)
        assert not (folder / "reloaded").exists()
        reload(config)
    assert server.predict("reloaded", instances=[encode(IMAGES[0])])[0] == 200
    assert len(read(folder / "reloaded", 1)) == 1


@linux
def test_a_full_disk_stops_capture_and_not_serving(capturing: tuple[Server, Path]) -> None:
    server, folder = capturing
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "full", "images"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(np.broadcast_to(GREY, (2000, SIZE_PX, SIZE_PX, 3))))
    soft, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with grpc.insecure_channel(server.target) as channel:
            for _ in range(3):
                prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=CALL_S)
        wait_until(lambda: count(server, "full", "RESOURCE_EXHAUSTED") == 3)
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (soft, hard))
    assert is_capturing(server, "full") == "0.0"
    assert list((folder / "full").iterdir()) == []
    assert server.log().count("capture: stops, and serving goes on: [Errno 27] File too large") == 1


def test_an_unknown_collector_ends_the_start(tmp_path: Path) -> None:
    config = write_config(tmp_path / "models.config", {"m": (tmp_path, logged(tmp_path / "x", kind="pubsub"))})
    with pytest.raises(StartError, match="Cannot find LogCollector::Factory for type: pubsub"):
        read_models(Flags(model_config_file=str(config)))


@pytest.mark.parametrize("with_inputs", [True, False])
def test_scores_alone_are_kept_where_that_is_asked_for(tmp_path: Path, with_inputs: bool) -> None:
    log = RequestLog(Flags(request_log_inputs=with_inputs), Metrics())
    log.configure([ModelConfig("m", tmp_path, logging=LoggingConfig(str(tmp_path / "log" / "x"), 1.0))])
    version = Version("m", 3, tmp_path)
    outputs = {"probabilities": np.ones((1, 1), np.float32), "classes": np.array([[b"rose"]], object)}
    log.add_arrays(version, "serving_default", {"images": np.array([b"an image"], object)}, outputs)
    request, response = predict_pb2.PredictRequest(), predict_pb2.PredictResponse()
    request.model_spec.signature_name = "serving_default"
    for protos, arrays in ((request.inputs, {"images": np.array([b"an image"], object)}), (response.outputs, outputs)):
        for name, array in arrays.items():
            protos[name].CopyFrom(tf.make_tensor_proto(array))
    log.add(PREDICT, version, request, response)
    log.close()
    found = list(read_captured(tmp_path / "log"))
    assert [photo.image for photo in found] == [b"an image" if with_inputs else None] * 2
    assert [(photo.version, photo.class_names, photo.probabilities.tolist()) for photo in found] == [
        (3, ("rose",), [1.0])
    ] * 2
    written = b"".join(path.read_bytes() for path in (tmp_path / "log").iterdir())
    assert (b"an image" in written) == with_inputs
    assert written.count(b"serving_default") >= 2


def test_models_with_one_configuration_share_files_and_one_that_is_gone_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    log = RequestLog(Flags(), Metrics())
    shared = LoggingConfig(str(tmp_path / "log" / "x"), 1.0)
    outputs = {"probabilities": np.ones((1, 1), np.float32), "classes": np.array([[b"rose"]], object)}
    for configs in (
        [ModelConfig(name, tmp_path, logging=shared) for name in ("a", "b")],
        [ModelConfig("a", tmp_path), ModelConfig("b", tmp_path, logging=shared)],
    ):
        log.configure(configs)
        for name in ("a", "b"):
            log.add_arrays(Version(name, 1, tmp_path), "s", {}, outputs)
    log.close()
    assert len(list((tmp_path / "log").iterdir())) == 1
    assert [photo.model_name for photo in read_captured(tmp_path / "log")] == ["a", "b", "b"]
