"""A model that knows its limits behind the server: truth values over REST and gRPC, and the client's predictions."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_service_pb2_grpc

from client.classifier_client import Client, GrpcTransport, RestTransport
from tests.client.litert_files import CLASS_NAMES, MIN_PROBABILITY, P_VALUE_OF_GREY, REFUSED_SHARE
from tests.serving.local_server.conftest import CALL_S, Server, start_server

SIZE_PX = 8
GREY, RED, YELLOW = (Image.new("RGB", (SIZE_PX, SIZE_PX), color) for color in ("grey", "red", "yellow"))
IMAGES = [GREY, RED, YELLOW]
KNOWN = [False, True, True]
SETS = [[True, True, True], [True, False, False], [True, True, False]]


class Colours(tf.Module):
    """Tells colours apart, and refuses greys."""

    def _predict(self, pixels: Any) -> dict[str, Any]:
        probabilities = tf.nn.softmax(4.0 * tf.reduce_mean(tf.cast(pixels, tf.float32) / 127.5 - 1.0, [1, 2]))
        best = tf.reduce_max(probabilities, axis=1)
        p_value = tf.maximum((3.0 * best - 1.0) / 2.0, P_VALUE_OF_GREY)
        return {
            "probabilities": probabilities,
            "classes": tf.tile([list(CLASS_NAMES)], [tf.shape(pixels)[0], 1]),
            "p_value": p_value,
            "is_known": p_value > REFUSED_SHARE,
            "prediction_set": (probabilities >= MIN_PROBABILITY) | (probabilities >= best[:, tf.newaxis]),
        }

    @tf.function(input_signature=[tf.TensorSpec([None, SIZE_PX, SIZE_PX, 3], tf.uint8, "images")], autograph=False)
    def images(self, images: Any) -> dict[str, Any]:
        return self._predict(images)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "images")], autograph=False)
    def encoded(self, images: Any) -> dict[str, Any]:
        decoded = tf.map_fn(tf.io.decode_png, images, fn_output_signature=tf.uint8)
        return self._predict(tf.ensure_shape(decoded, [None, SIZE_PX, SIZE_PX, 3]))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")], autograph=False)
    def classify(self, inputs: Any) -> dict[str, Any]:
        scores = tf.ones([tf.shape(inputs)[0], 3])
        return {"classes": tf.tile([list(CLASS_NAMES)], [tf.shape(inputs)[0], 1]), "scores": scores}


@pytest.fixture(scope="module", params=[False, True], ids=["typed fields", "bytes"])
def colours(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("limits")
    model = Colours()
    signatures = {"serving_default": model.encoded, "images": model.images, "classify": model.classify}
    tf.saved_model.save(model, str(folder / "flowers" / "1"), signatures=signatures)
    with start_server(
        folder / "server.log",
        model_name="flowers",
        model_base_path=folder / "flowers",
        enable_serialization_as_tensor_content=request.param,
    ) as server:
        yield server


def encode(image: Image.Image) -> dict[str, str]:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"b64": base64.b64encode(buffer.getvalue()).decode()}


def test_truth_values_are_json_in_rows_and_in_columns(colours: Server) -> None:
    images = [encode(image) for image in IMAGES]
    _, columns = colours.predict("flowers", inputs=images)
    assert columns["outputs"]["is_known"] == KNOWN
    assert columns["outputs"]["prediction_set"] == SETS
    assert columns["outputs"]["p_value"][0] == pytest.approx(P_VALUE_OF_GREY)
    _, rows = colours.predict("flowers", instances=images)
    assert [row["is_known"] for row in rows["predictions"]] == KNOWN
    assert [row["prediction_set"] for row in rows["predictions"]] == SETS
    assert [row["p_value"] for row in rows["predictions"]] == columns["outputs"]["p_value"]


def test_truth_values_are_tensors_over_grpc(colours: Server) -> None:
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "flowers", "images"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(np.stack([np.asarray(image) for image in IMAGES])))
    with grpc.insecure_channel(colours.target) as channel:
        outputs = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=CALL_S).outputs
    assert tf.make_ndarray(outputs["is_known"]).tolist() == KNOWN
    assert tf.make_ndarray(outputs["prediction_set"]).tolist() == SETS
    is_typed = not outputs["is_known"].tensor_content
    assert list(outputs["is_known"].bool_val) == (KNOWN if is_typed else [])


def test_the_client_reads_them(colours: Server) -> None:
    for transport in (RestTransport(f"127.0.0.1:{colours.rest_port}"), GrpcTransport(colours.target)):
        with Client(transport) as client:
            grey, red, yellow = client.classify(IMAGES)
        assert (grey.is_known, grey.p_value) == (False, pytest.approx(P_VALUE_OF_GREY))
        assert (red.is_known, red.prediction_set) == (True, ("red",))
        assert (yellow.is_known, set(yellow.prediction_set)) == (True, {"red", "green"})


def test_classify_is_as_before(colours: Server) -> None:
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = "flowers", "classify"
    request.input.example_list.examples.add()
    with grpc.insecure_channel(colours.target) as channel:
        result = prediction_service_pb2_grpc.PredictionServiceStub(channel).Classify(request, timeout=CALL_S).result
    assert [each.label for each in result.classifications[0].classes] == list(CLASS_NAMES)
