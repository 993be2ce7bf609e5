"""Clients written for TensorFlow Serving, over gRPC: its official stubs, the requests of its own tests, every refusal.

The models are those of `models.py`; `half_plus_two` is TensorFlow Serving's own.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tensorflow.core.example import example_pb2
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from tests.serving.local_server import models
from tests.serving.local_server.conftest import CALL_S, Server, linux, refusal, wait_until, write_config

NOT_FOUND, INVALID, PRECONDITION = (
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
)
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


class Client:
    """The official stubs on one channel."""

    def __init__(self, target: str) -> None:
        self.channel = grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)])
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def predict(self, model: str, timeout_s: float = CALL_S, **request: Any) -> Any:
        return self.prediction.Predict(predict_request(model, **request), timeout_s)

    def half_plus(self, model: str, **spec: Any) -> tuple[float, int]:
        """Send 2 to a half_plus model; return its output and the version that computed it."""
        response = self.predict(model, x=np.float32([2]), **spec)
        return tf.make_ndarray(response.outputs["y"]).item(), response.model_spec.version.value

    def serves(self, model: str) -> bool:
        try:
            self.half_plus(model)
        except grpc.RpcError:
            return False
        return True

    def echo(self, dtype: tf.DType, proto: Any) -> Any:
        """Return what comes back of a tensor through the echo of its type."""
        return self.predict("echo", signature=dtype.name, x=proto).outputs["y"]

    def status(self, model: str, **spec: Any) -> list[tuple[int, int]]:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec_of(model, **spec))
        found = self.model.GetModelStatus(request, CALL_S).model_version_status
        return [(each.version, each.state) for each in found]

    def classify(self, model: str, *examples: Mapping[str, Any], **spec: Any) -> list[list[tuple[str, float]]]:
        """Return the classes of each example, by label and score."""
        request = example_request(classification_pb2.ClassificationRequest, model, *examples, **spec)
        return read_classes(self.prediction.Classify(request, CALL_S))

    def regress(self, model: str, *examples: Mapping[str, Any], **spec: Any) -> list[float]:
        request = example_request(regression_pb2.RegressionRequest, model, *examples, **spec)
        return [each.value for each in self.prediction.Regress(request, CALL_S).result.regressions]

    def multi_infer(self, *tasks: tuple[str, str, str]) -> Any:
        """Send an example with x = 2 through signatures: of each, the model, its name and the method."""
        request = inference_pb2.MultiInferenceRequest(input={"example_list": {"examples": [example(x=2.0)]}})
        for model, signature, method in tasks:
            request.tasks.add(method_name=method, model_spec=spec_of(model, signature=signature))
        return self.prediction.MultiInference(request, CALL_S).results

    def metadata(self, model: str, *fields: str, **spec: Any) -> Any:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            metadata_field=fields, model_spec=spec_of(model, **spec)
        )
        return self.prediction.GetModelMetadata(request, CALL_S)

    def reload(self, config: Any) -> Any:
        return self.model.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest(config=config), CALL_S)


def spec_of(model: str, *, signature: str = "", version: int | None = None, label: str | None = None) -> Any:
    spec = model_pb2.ModelSpec(name=model, signature_name=signature, version_label=label)
    if version is not None:
        spec.version.value = version
    return spec


def predict_request(
    model: str,
    *,
    outputs: Sequence[str] = (),
    signature: str = "",
    version: int | None = None,
    label: str | None = None,
    **inputs: Any,
) -> Any:
    return predict_pb2.PredictRequest(
        model_spec=spec_of(model, signature=signature, version=version, label=label),
        output_filter=outputs,
        inputs={
            alias: value if isinstance(value, tensor_pb2.TensorProto) else tf.make_tensor_proto(value)
            for alias, value in inputs.items()
        },
    )


def example(**features: Any) -> Any:
    kinds = {float: "float_list", int: "int64_list", bytes: "bytes_list"}
    written = {name: {kinds[type(value)]: {"value": [value]}} for name, value in features.items()}
    return example_pb2.Example(features={"feature": written})


def example_request(kind: Any, model: str, *examples: Mapping[str, Any], **spec: Any) -> Any:
    written = [example(**features) for features in examples]
    return kind(model_spec=spec_of(model, **spec), input={"example_list": {"examples": written}})


def read_classes(response: Any) -> list[list[tuple[str, float]]]:
    return [[(each.label, each.score) for each in found.classes] for found in response.result.classifications]


def read_spec(response: Any) -> tuple[str, str, int]:
    spec = response.model_spec
    return spec.name, spec.signature_name, spec.version.value


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    client = Client(server.target)
    with client.channel:
        yield client


@pytest.fixture(scope="module")
def socket_client(server: Server) -> Iterator[Client]:
    client = Client(f"unix:{server.log_path.parent}/grpc.sock")
    with client.channel:
        yield client


@pytest.fixture(scope="module")
def other(other_server: tuple[Server, Path]) -> Iterator[Client]:
    client = Client(other_server[0].target)
    with client.channel:
        yield client


# The requests of TensorFlow Serving's own tests: tensorflow_model_server_test.py.


@pytest.fixture(params=["client", "socket_client"])
def any_client(request: pytest.FixtureRequest) -> Client:
    """A client over TCP, and one over a Unix socket."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("shape", [[1], [1, 1]])
@pytest.mark.parametrize("outputs", [["y"], []])
@pytest.mark.parametrize("signature", ["", "serving_default"])
def test_predict_returns_typed_values_and_the_version(any_client, shape, outputs, signature):
    proto = make_proto(tf.float32, shape, float_val=[2.0])
    response = any_client.predict("default", outputs=outputs, signature=signature, x=proto)
    assert list(response.outputs) == ["y"]
    assert response.outputs["y"].dtype == tf.float32.as_datatype_enum
    assert list(response.outputs["y"].float_val) == [3.0]
    assert [dim.size for dim in response.outputs["y"].tensor_shape.dim] == shape
    assert not response.outputs["y"].tensor_content
    assert read_spec(response) == ("default", "serving_default", 123)


def test_compressed_messages(any_client):
    request = predict_request("default", x=np.float32([2]))
    response = any_client.prediction.Predict(request, CALL_S, compression=grpc.Compression.Gzip)
    assert list(response.outputs["y"].float_val) == [3.0]


def test_a_model_config_file_serves_several_models(any_client):
    assert any_client.half_plus("half_plus_two") == (3.0, 123)
    assert any_client.half_plus("half_plus_three") == (4.0, 123)


def test_status(any_client):
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec_of("default"))
    (status,) = any_client.model.GetModelStatus(request, CALL_S).model_version_status
    assert (status.version, status.state) == (123, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
    assert (status.status.error_code, status.status.error_message) == (0, "")


def test_metadata_holds_the_signatures(any_client):
    response = any_client.metadata("default", "signature_def")
    assert read_spec(response) == ("default", "", 123)
    assert list(response.metadata) == ["signature_def"]
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    assert set(found.signature_def) == {
        "serving_default",
        "classify_x_to_y",
        "regress_x_to_y",
        "regress_x_to_y2",
        "regress_x2_to_y3",
    }
    x = found.signature_def["serving_default"].inputs["x"]
    assert (x.name, x.dtype, [dim.size for dim in x.tensor_shape.dim]) == ("x:0", 1, [-1, 1])


def test_classify(any_client):
    request = example_request(
        classification_pb2.ClassificationRequest, "default", {"x": 2.0}, {"x": 20.0}, signature="classify_x_to_y"
    )
    response = any_client.prediction.Classify(request, CALL_S)
    assert read_classes(response) == [[("", 3.0)], [("", 12.0)]]
    assert read_spec(response) == ("default", "classify_x_to_y", 123)


@pytest.mark.parametrize(("signature", "expected"), [("regress_x_to_y", [3.0, 42.0]), ("regress_x_to_y2", [4.0, 43.0])])
def test_regress(any_client, signature, expected):
    request = example_request(regression_pb2.RegressionRequest, "default", {"x": 2.0}, {"x": 80.0}, signature=signature)
    response = any_client.prediction.Regress(request, CALL_S)
    assert [each.value for each in response.result.regressions] == expected
    assert read_spec(response) == ("default", signature, 123)


def test_multi_inference_returns_a_result_for_each_task(any_client):
    regressed, classified, other = any_client.multi_infer(
        ("default", "regress_x_to_y", REGRESS),
        ("default", "classify_x_to_y", CLASSIFY),
        ("default", "regress_x_to_y2", REGRESS),
    )
    assert regressed.regression_result.regressions[0].value == 3.0
    assert classified.classification_result.classifications[0].classes[0].score == 3.0
    assert other.regression_result.regressions[0].value == 4.0
    assert read_spec(regressed) == ("default", "regress_x_to_y", 123)
    assert read_spec(classified) == ("default", "classify_x_to_y", 123)


def test_multi_inference_feeds_its_examples_to_the_input_of_each_signature(client):
    regressed, classified = client.multi_infer(("examples", "regress", REGRESS), ("examples", "classify", CLASSIFY))
    assert regressed.regression_result.regressions[0].value == 4.0
    assert classified.classification_result.classifications[0].classes[0].score == 2.0
    code, details = refusal(client.multi_infer, ("judge", "regress", REGRESS), ("judge", "other_inputs", REGRESS))
    assert code == INVALID
    assert "StringToNumberOp could not correctly convert string" in details


def test_signatures_of_tensorflow_2_classify_and_regress_too(client):
    found = client.classify("judge", {"x": 1.5, "query": b"hi"}, signature="native_classify")
    assert found == [[("hi", 1.5), ("HI", -1.0)]]
    assert client.regress("judge", {"x": 1.5}, signature="native_regress") == [1.5]
    tasks = ("judge", "native_classify", CLASSIFY), ("judge", "native_regress", REGRESS)
    assert client.multi_infer(*tasks)[1].regression_result.regressions[0].value == 2.0
    assert client.predict("judge", signature="no_method", x=[b"a"]).outputs["y"].string_val[0] == b"a"


def test_examples_share_a_context_and_may_overrule_it(client):
    examples = {"context": example(query=b"tulip", n=7), "examples": [example(x=1.0), example(x=2.0, n=8)]}
    request = classification_pb2.ClassificationRequest(
        model_spec=spec_of("judge"), input={"example_list_with_context": examples}
    )
    assert read_classes(client.prediction.Classify(request, CALL_S)) == [
        [("tulip", 1.0), ("TULIP", 7.0)],
        [("tulip", 2.0), ("TULIP", 8.0)],
    ]


def test_a_client_that_waits_for_the_server_finds_the_word_it_looks_for(any_client):
    code, details = refusal(any_client.predict, "intentionally_missing_model")
    assert code == NOT_FOUND
    assert "Servable" in details


def test_the_config_file_is_read_again(other_server, other, models_dir):
    config = other_server[1]
    bases = {"default": models_dir / "half_plus_two", "half_plus_three": models_dir / "half_plus_three"}
    write_config(config, bases)
    wait_until(lambda: other.serves("half_plus_three"))
    assert other.half_plus("half_plus_three") == (4.0, 123)
    assert other.half_plus("default") == (3.0, 123)


# Versions by number and label.


def test_a_request_names_a_version_by_number_or_label(client):
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert client.half_plus("two_versions") == (4.0, 2)
    for spec, expected in (
        ({"version": 1}, (3.0, 1)),
        ({"version": 2}, (4.0, 2)),
        ({"label": "stable"}, (3.0, 1)),
        ({"label": "canary"}, (4.0, 2)),
    ):
        assert client.half_plus("two_versions", **spec) == expected
        response = client.metadata("two_versions", "signature_def", **spec)
        assert response.model_spec.version.value == expected[1]
    assert client.status("two_versions", version=1) == [(1, available)]
    # As in TensorFlow Serving, a label does not narrow what is asked.
    for spec in ({}, {"label": "stable"}, {"label": "old"}):
        assert client.status("two_versions", **spec) == [(2, available), (1, available)]


@pytest.mark.parametrize(
    ("request_of", "alias", "shape"),
    [
        ({"model": "echo", "signature": "no_rows", "x": [b"a"]}, "y", [0, 2]),
        ({"model": "default", "x": np.zeros((0, 1), np.float32)}, "y", [0, 1]),
        ({"model": "exported", "x": np.zeros((0, 3), np.float32)}, "output_0", [0, 2]),
        ({"model": "echo", "signature": "string", "x": np.zeros((0, 3), object)}, "y", [0, 3]),
    ],
)
def test_a_tensor_may_have_no_rows(client, request_of, alias, shape):
    output = client.predict(**request_of).outputs[alias]
    assert [dim.size for dim in output.tensor_shape.dim] == shape
    assert tf.make_ndarray(output).size == 0


def test_an_input_with_a_default_may_be_left_out(client):
    request = {"signature": "defaults", "x": [b"tulip"]}
    assert client.predict("echo", **request).outputs["y"].string_val[0] == b"tulip!"
    assert client.predict("echo", **request, z=[b"?"]).outputs["y"].string_val[0] == b"tulip?"
    code, text = refusal(client.predict, "echo", signature="defaults", z=[b"?"])
    assert (code, text) == (
        INVALID,
        "Signature input alias: x(feed name: Placeholder_16:0) not found in request and no default value provided. "
        "Inputs expected to be in the request {z}, or default input alias set: z",
    )
    code, text = refusal(client.predict, "echo", **request, w=[b"?"])
    assert (code, text) == (INVALID, "Inputs contains invalid name. Used request inputs: x, request input: w,x")


# Refused requests, in the order of the checks.

X = np.float32([2])


@pytest.mark.parametrize(
    ("request_of", "code", "text"),
    [
        ({"model": "nobody", "x": X}, NOT_FOUND, "Servable not found for request: Latest(nobody)"),
        ({"model": "default", "version": 9, "x": X}, NOT_FOUND, "Servable not found for request: Specific(default, 9)"),
        ({"model": "nobody", "version": 0, "x": X}, NOT_FOUND, "Servable not found for request: Specific(nobody, 0)"),
        ({"model": "two_versions", "label": "old", "x": X}, INVALID, "Unrecognized servable version label: old"),
        ({"model": "nobody", "label": "stable", "x": X}, INVALID, "Unrecognized servable version label: stable"),
        ({"model": "", "x": X}, INVALID, "ModelSpec has no name specified."),
        ({"model": "default", "signature": "s", "x": X}, PRECONDITION, 'Serving signature key "s" not found.'),
        ({"model": "echo", "x": X}, PRECONDITION, 'Serving signature key "serving_default" not found.'),
        (
            {"model": "default"},
            INVALID,
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        ),
        (
            {"model": "default", "x": X, "z": X},
            INVALID,
            "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. Missing but required: "
            "{}.",
        ),
        (
            {"model": "module", "ids": [1], "z": X},
            INVALID,
            "input size does not match signature: 2!=4 len({ids,z}) != len({flags,halves,ids,text}). Sent extra: {z}. "
            "Missing but required: {flags,halves,text}.",
        ),
        (
            {"model": "default", "z": X},
            INVALID,
            "Signature input alias: x(feed name: x:0) not found in request and no default value provided. Inputs "
            "expected to be in the request {z}, or default input alias set: ",
        ),
        ({"model": "default", "x": np.int64([2])}, INVALID, "Expects arg[0] to be float but int64 is provided"),
        ({"model": "default", "x": np.float64([2])}, INVALID, "Expects arg[0] to be float but double is provided"),
        ({"model": "default", "x": [b"2"]}, INVALID, "Expects arg[0] to be float but string is provided"),
        ({"model": "default", "x": np.int32([2])}, INVALID, "Expects arg[0] to be float but int32 is provided"),
        (
            {"model": "echo", "signature": "string", "x": [True]},
            INVALID,
            "Expects arg[0] to be string but bool is provided",
        ),
        (
            {"model": "default", "x": X, "outputs": ["y", "w"]},
            INVALID,
            "output tensor alias not found in signature: w Outputs expected to be in the set {y}.",
        ),
        ({"model": "default", "x": X, "outputs": ["y", "y"]}, INVALID, "duplicate output tensor alias: y"),
    ],
)
def test_predict_refuses(client, request_of, code, text):
    assert refusal(client.predict, **request_of) == (code, text)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (X, "In[0] is not a matrix"),
        (np.ones((2, 4), np.float32), "Matrix size-incompatible: In[0]: [2,4]"),
    ],
)
def test_a_shape_that_an_operation_cannot_use_is_refused_in_its_words(client, x, text):
    code, details = refusal(client.predict, "exported", x=x)
    assert code == INVALID
    assert text in details


@pytest.mark.parametrize(
    ("request_of", "code", "text"),
    [
        ({"model": "x" * 100_000, "x": X}, NOT_FOUND, "Servable not found for request: Latest(xxx"),
        ({"model": "default", "signature": "é" * 5000, "x": X}, PRECONDITION, 'Serving signature key "ééé'),
        ({"model": "default", "y" * 50_000: X}, INVALID, "Signature input alias: x(feed name: x:0) not found"),
    ],
    ids=["model", "signature", "input"],
)
def test_errors_about_long_names_are_short(client, request_of, code, text):
    """gRPC's clients refuse more than 8 KiB."""
    found, details = refusal(client.predict, **request_of)
    assert (found, details[: len(text)]) == (code, text)
    assert len(details) < 1100


def test_what_the_model_refuses_is_the_requests_fault(client):
    code, text = refusal(client.predict, "default", signature="regress_x_to_y", inputs=[b"no example"])
    assert code == INVALID
    assert text.startswith("Could not parse example input, value: 'no example'")
    assert "Original stack trace" not in text
    code, text = refusal(client.regress, "default", {"y": 1.0}, signature="regress_x_to_y")
    assert code == INVALID
    assert "Feature: x (data type: float) is required but could not be found." in text


def test_a_request_without_a_model_spec_is_refused(client):
    for call, request in (
        (client.prediction.Predict, predict_pb2.PredictRequest()),
        (client.prediction.Classify, classification_pb2.ClassificationRequest()),
        (client.prediction.Regress, regression_pb2.RegressionRequest()),
        (client.prediction.GetModelMetadata, get_model_metadata_pb2.GetModelMetadataRequest()),
        (client.model.GetModelStatus, get_model_status_pb2.GetModelStatusRequest()),
    ):
        assert refusal(call, request, CALL_S) == (INVALID, "Missing ModelSpec")


@pytest.mark.parametrize(
    ("spec", "code", "text"),
    [
        ({"model": "nobody"}, NOT_FOUND, "Could not find any versions of model nobody"),
        ({"model": "default", "version": 9}, NOT_FOUND, "Could not find version 9 of model default"),
        ({"model": ""}, NOT_FOUND, "Could not find any versions of model "),
    ],
)
def test_status_refuses(client, spec, code, text):
    assert refusal(client.status, **spec) == (code, text)


@pytest.mark.parametrize(
    ("model", "fields", "code", "text"),
    [
        ("nobody", ["signature_def"], NOT_FOUND, "Servable not found for request: Latest(nobody)"),
        ("nobody", [], INVALID, "GetModelMetadataRequest must specify at least one metadata_field"),
        ("default", ["signature_def", "weights"], INVALID, "Metadata field weights is not supported"),
    ],
)
def test_metadata_refuses(client, model, fields, code, text):
    assert refusal(client.metadata, model, *fields) == (code, text)


@pytest.mark.parametrize(
    ("signature", "code", "text"),
    [
        ("s", INVALID, "No signature was found with the name: s"),
        ("flat", INVALID, "Expected Tensor shape: [batch_size num_classes] but got [1]"),
        ("long", INVALID, "Expected scores output batch size of 1. Got: 2"),
        ("doubles", INVALID, "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE"),
        ("numbers", INVALID, "Expected classes Tensor of DT_STRING. Got: DT_INT32"),
        ("uneven", INVALID, "Tensors class and score should match in dim_size(1). Got 2 vs. 1"),
        ("three", INVALID, "Expected one or two output Tensors, found 3"),
        ("two_inputs", INVALID, "Expected one input Tensor."),
        ("no_inputs", INVALID, "No classification inputs found in SignatureDef: "),
        ("unnamed", INVALID, 'Expected classification signature outputs to contain at least one of "classes" or "scor'),
    ],
)
def test_classify_refuses(client, signature, code, text):
    found, details = refusal(client.classify, "judge", {"x": 1.0}, signature=signature)
    assert (found, details[: len(text)]) == (code, text)


@pytest.mark.parametrize(
    ("signature", "text"),
    [
        ("s", "No signature was found with the name: s"),
        ("wide", "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]"),
        ("long_regress", "Input batch size did not match output batch size: 1 vs. 2"),
        ("double_regress", "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE"),
        ("serving_default", "Expected one output Tensor."),
        ("unnamed_regress", "No regression outputs found in SignatureDef: "),
    ],
)
def test_regress_refuses(client, signature, text):
    code, details = refusal(client.regress, "judge", {"x": 1.0}, signature=signature)
    assert (code, details[: len(text)]) == (INVALID, text)


def test_an_input_without_examples_is_refused(client):
    assert refusal(client.classify, "default", signature="classify_x_to_y") == (INVALID, "Input is empty.")
    assert refusal(client.regress, "default", signature="regress_x_to_y") == (INVALID, "Input is empty.")


def test_a_sparse_or_ragged_input_is_refused(client):
    text = "A signature's inputs must be plain tensors. Received: '{}', which is sparse or ragged. "
    for signature in ("sparse", "ragged"):
        code, details = refusal(client.predict, "refused", signature=signature, x=X)
        assert (code, details[: len(text.format("x"))]) == (INVALID, text.format("x"))
    code, details = refusal(client.classify, "refused", {"x": 1.0}, signature="sparse_inputs")
    assert (code, details[: len(text.format("inputs"))]) == (INVALID, text.format("inputs"))


def test_examples_for_an_input_of_another_type_are_refused(client):
    code, details = refusal(client.regress, "default", {"x2": 2.0}, signature="regress_x2_to_y3")
    assert (code, details) == (INVALID, "Expects arg[0] to be float but string is provided")


@pytest.mark.parametrize(
    ("tasks", "code", "text"),
    [
        ([], INVALID, "ModelSpec has no name specified."),
        ([("nobody", "s", CLASSIFY), ("", "s", CLASSIFY)], NOT_FOUND, "Servable not found for request: Latest(nobody)"),
        (
            [("judge", "regress", REGRESS), ("", "regress", REGRESS)],
            INVALID,
            "Found ModelSpec with an empty model name.",
        ),
        (
            [("judge", "regress", REGRESS), ("default", "regress_x_to_y", REGRESS)],
            INVALID,
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            [("judge", "regress", REGRESS), ("judge", "regress", REGRESS)],
            INVALID,
            "Duplicate evaluation of signature: regress",
        ),
        ([("judge", "s", REGRESS)], INVALID, "Requested signature not found in model graph: s"),
        (
            [("judge", "regress", "tensorflow/serving/predict")],
            grpc.StatusCode.UNIMPLEMENTED,
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        ([("judge", "regress", REGRESS), ("judge", "three", CLASSIFY)], INVALID, "Expected one or two output Tensors"),
    ],
)
def test_multi_inference_refuses(client, tasks, code, text):
    found, details = refusal(client.multi_infer, *tasks)
    assert (found, details[: len(text)]) == (code, text)


def test_a_deadline_ends_a_call_and_its_run_and_not_the_server(client):
    assert refusal(client.predict, "block", timeout_s=0.3, x=X)[0] == grpc.StatusCode.DEADLINE_EXCEEDED

    def is_served() -> bool:
        # What was given up is at its end, and may still take what releases the next one.
        client.predict("block", signature="release", x=X)
        with suppress(grpc.RpcError):
            return list(client.predict("block", timeout_s=2, x=X).outputs["y"].float_val) == [2.0]
        return False

    wait_until(is_served)


# Tensors, however they are written.

by_type = pytest.mark.parametrize(
    ("dtype", "field"), [(tf.as_dtype(name), field) for name, field in models.FIELDS.items()], ids=list(models.FIELDS)
)


def make_proto(dtype: tf.DType, shape: Sequence[int], **fields: Any) -> Any:
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum, **fields)
    for size in shape:
        proto.tensor_shape.dim.add().size = size
    return proto


def raw(dtype: tf.DType, field: str, values: Sequence[Any]) -> list[Any]:
    """Write values as a field of a `TensorProto` holds them."""
    if dtype == tf.string:
        return [str(value).encode() for value in values]
    array = np.array(values).astype(dtype.as_numpy_dtype)
    if field == "half_val":
        return array.view(np.uint16).tolist()
    if dtype.is_complex:
        return array.view(dtype.real_dtype.as_numpy_dtype).tolist()
    return array.tolist()


@by_type
@pytest.mark.parametrize(
    ("shape", "sent", "expected"),
    [
        ([2, 3], [0, 1, 1, 0, 1, 0], [0, 1, 1, 0, 1, 0]),
        ([], [1], [1]),
        ([0], [], []),
        ([2, 0, 3], [], []),
        ([4], [0, 1], [0, 1, 1, 1]),  # the last value is repeated
        ([2], [1, 0, 1], [1, 0]),  # of more values than there is room for, the first ones count
        ([], [1, 0, 1], [1]),
    ],
)
def test_typed_values_come_back_as_typed_values(client, dtype, field, shape, sent, expected):
    found = client.echo(dtype, make_proto(dtype, shape, **{field: raw(dtype, field, sent)}))
    assert (list(getattr(found, field)), found.tensor_content) == (raw(dtype, field, expected), b"")
    assert [dim.size for dim in found.tensor_shape.dim] == shape


@by_type
def test_bytes_are_tensors_too(client, dtype, field):
    values = [0, 1, 1]
    if dtype == tf.string:
        content, expected = b"\x01\x00\x06" + b"0" + b"tulips", [b"0", b"", b"tulips"]  # the lengths, then the texts
    else:
        array = np.array(values).astype(dtype.as_numpy_dtype)
        content, expected = array.tobytes(), raw(dtype, field, values)
    found = client.echo(dtype, make_proto(dtype, [3], tensor_content=content))
    assert list(getattr(found, field)) == expected


@pytest.mark.parametrize(
    ("dtype", "shape", "field", "values"),
    [
        (tf.float32, [], "float_val", [0.0]),
        (tf.string, [2], "string_val", [b"", b""]),
        (tf.bool, [0], "bool_val", []),
    ],
)
def test_without_values_a_tensor_holds_zeros(client, dtype, shape, field, values):
    assert list(getattr(client.echo(dtype, make_proto(dtype, shape)), field)) == values


def test_a_single_string_may_be_written_as_bytes(client):
    found = client.echo(tf.string, make_proto(tf.string, [], tensor_content=b"\x02a\x00"))
    assert list(found.string_val) == [b"a\x00"]


def test_strings_are_bytes(client):
    sent = [b"", b"\xff\xd8\xff\x00\x00", "grüße".encode(), b"x" * 1_000_000]
    found = client.echo(tf.string, make_proto(tf.string, [4], string_val=sent))
    assert list(found.string_val) == sent
    assert list(client.echo(tf.string, make_proto(tf.string, [], string_val=[b"a\x00"])).string_val) == [b"a\x00"]


def test_floats_keep_their_bits(client):
    values = np.float32([np.nan, np.inf, -np.inf, -0.0, 0.1, np.finfo(np.float32).tiny / 2])
    found = client.echo(tf.float32, tf.make_tensor_proto(values))
    np.testing.assert_array_equal(np.float32(found.float_val).view(np.uint32), values.view(np.uint32))


@pytest.mark.parametrize(
    ("signature", "proto"),
    [
        ("float32", make_proto(tf.float32, [-1], float_val=[1.0])),
        ("float32", make_proto(tf.float32, [2, -3], float_val=[1.0])),
        ("float32", make_proto(tf.float32, [3], tensor_content=b"\0" * 11)),
        ("float32", make_proto(tf.float32, [2], tensor_content=b"\0" * 12)),
        ("float32", make_proto(tf.float32, [1], tensor_content=b"\0" * 3)),
        ("float32", make_proto(tf.float32, [1] * 300, float_val=[1.0])),
        ("string", make_proto(tf.string, [1] * 70, string_val=[b"a"])),
        ("string", make_proto(tf.string, [2], tensor_content=b"\x05\x05abc")),
        ("string", make_proto(tf.string, [0, 1 << 62])),
        ("uint8", make_proto(tf.uint8, [1], int_val=[256])),
        ("int8", make_proto(tf.int8, [1], int_val=[-129])),
        ("float32", text_format.Parse("dtype: DT_FLOAT tensor_shape { unknown_rank: true }", tensor_pb2.TensorProto())),
        ("float32", text_format.Parse("dtype: DT_INVALID float_val: 1", tensor_pb2.TensorProto())),
        ("float32", text_format.Parse("float_val: 1", tensor_pb2.TensorProto())),
        ("float32", text_format.Parse("dtype: DT_RESOURCE", tensor_pb2.TensorProto())),
        ("float32", text_format.Parse("dtype: DT_VARIANT", tensor_pb2.TensorProto())),
        ("float32", make_proto(tf.resource, [1])),
        ("float32", make_proto(tf.variant, [1])),
        ("float32", text_format.Parse("dtype: 999", tensor_pb2.TensorProto())),
    ],
    ids=lambda value: re.sub(r"\s+", " ", str(value))[:60],
)
def test_malformed_tensors_are_refused(client, signature, proto):
    code, text = refusal(client.predict, "echo", signature=signature, x=proto)
    assert code == INVALID
    assert re.match("tensor parsing error: x|Expects arg", text)
    assert len(text) < 1100


@linux
@pytest.mark.parametrize("dtype", [tf.float32, tf.string, tf.bool])
@pytest.mark.parametrize("shape", [[1 << 40], [1 << 20, 1 << 20], [1 << 62, 4], [100_000, 100_000]])
def test_a_huge_shape_with_one_value_takes_no_memory(client, server, dtype, shape):
    field = models.FIELDS[dtype.name]
    before = server.memory_bytes("VmHWM")
    proto = make_proto(dtype, shape, **{field: raw(dtype, field, [1])})
    code, text = refusal(client.predict, "echo", signature=dtype.name, x=proto)
    assert code == INVALID
    assert text.startswith("tensor parsing error: x: a tensor may take 67108864 bytes. Received: ")
    assert server.memory_bytes("VmHWM") - before < 50_000_000


def test_a_string_that_stands_for_gigabytes_is_refused(client):
    proto = make_proto(tf.string, [10_000], string_val=[b"x" * 800_000])  # one value stands for all that follow it
    code, text = refusal(client.predict, "echo", signature="string", x=proto)
    assert (code, "its last value repeated included" in text) == (INVALID, True)


def test_a_message_that_is_too_large_is_refused(client):
    code, text = refusal(client.predict, "echo", signature="string", x=[b"x" * ((1 << 26) + 1)])
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in text


# Configuration over gRPC.


def config_of(models: Mapping[str, tuple[Path, str]]) -> Any:
    written = "".join(
        f'config {{ name: "{name}" base_path: "{base}" model_platform: "tensorflow" {more} }}'
        for name, (base, more) in models.items()
    )
    return text_format.Parse(f"model_config_list {{ {written} }}", model_server_config_pb2.ModelServerConfig())


def test_reload_adds_and_removes_models(other, models_dir):
    two, three = (models_dir / "half_plus_two", ""), (models_dir / "half_plus_three", "")
    response = other.reload(config_of({"default": two, "added": three}))
    assert (response.status.error_code, response.status.error_message) == (0, "")
    assert other.half_plus("added") == (4.0, 123)
    other.reload(config_of({"default": two}))
    assert refusal(other.half_plus, "added") == (NOT_FOUND, "Servable not found for request: Latest(added)")
    assert other.half_plus("default") == (3.0, 123)


def test_labels_may_name_only_what_is_available(other, models_dir):
    def labelled(**labels: int) -> Any:
        text = " ".join(f'version_labels {{ key: "{key}" value: {value} }}' for key, value in labels.items())
        return config_of({"labelled": (models_dir / "two_versions", f"model_version_policy {{ all {{}} }} {text}")})

    other.reload(labelled())
    other.reload(labelled(stable=1))
    assert other.half_plus("labelled", label="stable") == (3.0, 1)
    text = "Request to assign label to version 3 of model labelled, which is not currently available for inference"
    for bad in (labelled(stable=3), labelled(stable=2, canary=3)):
        assert refusal(other.reload, bad) == (PRECONDITION, text)
        assert other.half_plus("labelled", label="stable") == (3.0, 1)
        assert refusal(other.half_plus, "labelled", label="canary")[0] == INVALID
    other.reload(labelled(stable=2))
    assert other.half_plus("labelled", label="stable") == (4.0, 2)
    other.reload(labelled())
    assert refusal(other.half_plus, "labelled", label="stable")[1] == "Unrecognized servable version label: stable"


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (
            "custom_model_config {}",
            INVALID,
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
            "supported",
        ),
        ("", INVALID, "ServerModelConfig type not supported by HandleReloadConfigRequest."),
        (
            'model_config_list { config { name: "m" base_path: "/m" model_platform: "tensorflow" } '
            'config { name: "m" base_path: "/m" model_platform: "tensorflow" } }',
            INVALID,
            "Illegal to list model m multiple times in config list",
        ),
    ],
)
def test_a_bad_configuration_changes_nothing(other, models_dir, text, code, message):
    other.reload(config_of({"default": (models_dir / "half_plus_two", "")}))
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    found, details = refusal(other.reload, config)
    assert (found, details[: len(message)]) == (code, message)
    assert other.half_plus("default") == (3.0, 123)


def test_a_model_that_is_not_there_is_reported_and_the_others_are_served(other, models_dir, tmp_path):
    two = (models_dir / "half_plus_two", "")
    code, text = refusal(other.reload, config_of({"default": two, "gone": (tmp_path / "gone", "")}))
    assert code == grpc.StatusCode.UNKNOWN
    assert text.startswith("1 model(s) did not become available: {")
    assert "gone" in text
    assert other.half_plus("default") == (3.0, 123)
    other.reload(config_of({"default": two}))


# What is off by default, and on where a flag says so.


def test_health(client, other):
    for each in (client, other):
        stub = health_pb2_grpc.HealthStub(each.channel)
        for name in ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"):
            response = stub.Check(health_pb2.HealthCheckRequest(service=name), CALL_S)
            assert response.status == health_pb2.HealthCheckResponse.SERVING
        for name in ("default", "tensorflow.serving.SessionService"):
            assert refusal(stub.Check, health_pb2.HealthCheckRequest(service=name), CALL_S)[0] == NOT_FOUND


def test_reflection_is_off_by_default(client, other):
    request = [reflection_pb2.ServerReflectionRequest(list_services="")]

    def list_services(each: Client) -> list[str]:
        stub = reflection_pb2_grpc.ServerReflectionStub(each.channel)
        (response,) = stub.ServerReflectionInfo(iter(request), timeout=CALL_S)
        return [service.name for service in response.list_services_response.service]

    assert refusal(list_services, client)[0] == grpc.StatusCode.UNIMPLEMENTED
    assert set(list_services(other)) >= {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
    }


def test_tensors_are_returned_as_bytes_where_a_flag_says_so(other, models_dir):
    other.reload(config_of({"echo": (models_dir / "echo", "")}))
    found = other.echo(tf.float32, make_proto(tf.float32, [2], float_val=[1.0, 2.0]))
    assert (found.tensor_content, list(found.float_val)) == (np.float32([1, 2]).tobytes(), [])
    found = other.echo(tf.float16, tf.make_tensor_proto(np.float16([1, 2])))
    assert (found.tensor_content, list(found.half_val)) == (np.float16([1, 2]).tobytes(), [])
    # tf.make_ndarray cannot read strings written as bytes.
    assert list(other.echo(tf.string, tf.make_tensor_proto([b"a"])).string_val) == [b"a"]


def test_the_method_of_a_signature_counts_where_a_flag_says_so(other, models_dir):
    other.reload(config_of({"judge": (models_dir / "judge", "")}))
    text = f"Expected classification signature method_name to be {CLASSIFY}. Was: tensorflow/serving/predict"
    assert refusal(other.classify, "judge", {"x": 1.0}, signature="native_classify") == (INVALID, text)
    text = f"Expected regression signature method_name to be {REGRESS}. Was: {CLASSIFY}"
    assert refusal(other.regress, "judge", {"x": 1.0}, signature="classes") == (INVALID, text)
    assert refusal(other.multi_infer, ("judge", "native_regress", REGRESS))[0] == INVALID
    code, text = refusal(other.predict, "judge", signature="no_method", x=[b"a"])
    assert code == grpc.StatusCode.INTERNAL
    assert text.startswith("Expected prediction signature method_name to be one of {tensorflow/serving/predict, ")
