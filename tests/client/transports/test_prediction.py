"""The client's own messages are TensorFlow Serving's on the wire. Both are loaded here, so they do not collide."""

from typing import Any

import pytest
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from client.classifier_client.transports import prediction_pb2


def test_request_is_read_by_tensorflow_serving_as_it_was_written() -> None:
    ours = prediction_pb2.PredictRequest(
        model_spec=prediction_pb2.ModelSpec(
            name="flowers", version=prediction_pb2.Version(value=3), signature_name="images"
        )
    )
    tensor = ours.inputs["images"]
    tensor.dtype = prediction_pb2.DT_UINT8
    for size in (1, 2, 2, 3):
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = bytes(range(12))
    theirs = predict_pb2.PredictRequest.FromString(ours.SerializeToString())
    assert (theirs.model_spec.name, theirs.model_spec.signature_name) == ("flowers", "images")
    assert theirs.model_spec.version.value == 3
    pixels = tf.make_ndarray(theirs.inputs["images"])
    assert pixels.dtype == "uint8"
    assert pixels.shape == (1, 2, 2, 3)
    assert pixels.ravel().tolist() == list(range(12))
    # Not a field is left over, in either direction.
    assert predict_pb2.PredictRequest.FromString(ours.SerializeToString(deterministic=True)) == theirs
    assert prediction_pb2.PredictRequest.FromString(theirs.SerializeToString()) == ours


def test_response_of_tensorflow_serving_is_read_as_it_was_written() -> None:
    theirs = predict_pb2.PredictResponse()
    theirs.model_spec.version.value = 1234567890123
    theirs.outputs["probabilities"].CopyFrom(tf.make_tensor_proto([[0.25, 0.75]]))
    theirs.outputs["probabilities"].tensor_content = b""
    theirs.outputs["probabilities"].float_val.extend([0.25, 0.75])
    theirs.outputs["classes"].CopyFrom(tf.make_tensor_proto([["daisy", "Röschen"]]))
    ours = prediction_pb2.PredictResponse.FromString(theirs.SerializeToString())
    assert ours.model_spec.version.value == 1234567890123
    assert list(ours.outputs["probabilities"].float_val) == [0.25, 0.75]
    assert [name.decode() for name in ours.outputs["classes"].string_val] == ["daisy", "Röschen"]
    assert ours.outputs["probabilities"].dtype == prediction_pb2.DT_FLOAT
    assert ours.outputs["classes"].dtype == prediction_pb2.DT_STRING


def test_metadata_of_tensorflow_serving_is_read_as_it_was_written() -> None:
    request = prediction_pb2.ModelMetadataRequest(
        model_spec=prediction_pb2.ModelSpec(name="flowers"), metadata_field=["signature_def"]
    )
    received = get_model_metadata_pb2.GetModelMetadataRequest.FromString(request.SerializeToString())
    assert (received.model_spec.name, list(received.metadata_field)) == ("flowers", ["signature_def"])

    signatures = get_model_metadata_pb2.SignatureDefMap()
    info = signatures.signature_def["images"].inputs["images"]
    info.name, info.dtype = "serving_default_images:0", tf.uint8.as_datatype_enum
    for size in (-1, 224, 224, 3):
        info.tensor_shape.dim.add(size=size)
    theirs = get_model_metadata_pb2.GetModelMetadataResponse()
    theirs.metadata["signature_def"].Pack(signatures)
    ours = prediction_pb2.ModelMetadataResponse.FromString(theirs.SerializeToString())
    assert ours.metadata["signature_def"].type_url.endswith("tensorflow.serving.SignatureDefMap")
    read = prediction_pb2.Signatures.FromString(ours.metadata["signature_def"].value)
    tensor = read.signature_def["images"].inputs["images"]
    assert [dim.size for dim in tensor.tensor_shape.dim] == [-1, 224, 224, 3]
    assert tensor.dtype == prediction_pb2.DT_UINT8


PAIRS = {
    "ModelSpec": "tensorflow_serving.apis.model_pb2.ModelSpec",
    "PredictRequest": "tensorflow_serving.apis.predict_pb2.PredictRequest",
    "PredictResponse": "tensorflow_serving.apis.predict_pb2.PredictResponse",
    "ModelMetadataRequest": "tensorflow_serving.apis.get_model_metadata_pb2.GetModelMetadataRequest",
    "ModelMetadataResponse": "tensorflow_serving.apis.get_model_metadata_pb2.GetModelMetadataResponse",
    "Signatures": "tensorflow_serving.apis.get_model_metadata_pb2.SignatureDefMap",
    "Signature": "tensorflow.core.protobuf.meta_graph_pb2.SignatureDef",
    "TensorInfo": "tensorflow.core.protobuf.meta_graph_pb2.TensorInfo",
    "Tensor": "tensorflow.core.framework.tensor_pb2.TensorProto",
    "TensorShape": "tensorflow.core.framework.tensor_shape_pb2.TensorShapeProto",
    "Version": "google.protobuf.wrappers_pb2.Int64Value",
}


@pytest.mark.parametrize("name", PAIRS)
def test_every_field_has_the_number_type_and_name_that_tensorflow_gives_it(name: str) -> None:
    from importlib import import_module

    module, _, official = PAIRS[name].rpartition(".")
    theirs: Any = getattr(import_module(module), official).DESCRIPTOR
    ours: Any = getattr(prediction_pb2, name).DESCRIPTOR
    for field in ours.fields:
        other = theirs.fields_by_number[field.number]
        assert (field.name, field.type, field.is_repeated, field.is_packed) == (
            other.name,
            other.type,
            other.is_repeated,
            other.is_packed,
        )
