"""TensorFlow Serving's `PredictionLog` of a predict request, and its tensors as arrays, without TensorFlow.

The messages have the field numbers of prediction_log.proto, logging.proto and logging_config.proto, and names of their
own: so they are the same on disk, and do not collide with TensorFlow's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray

from client.classifier_client.transports import prediction_pb2

_PACKAGE = "serving.capture"
_CLIENT = prediction_pb2.DESCRIPTOR.package
# Name and number of each field, and its type.
_MESSAGES = {
    "SamplingConfig": {"sampling_rate": (1, "double")},
    "LogMetadata": {
        "model_spec": (1, f".{_CLIENT}.ModelSpec"),
        "sampling_config": (2, f".{_PACKAGE}.SamplingConfig"),
        "timestamp_secs": (4, "int64"),
    },
    "PredictLog": {
        "request": (1, f".{_CLIENT}.PredictRequest"),
        "response": (2, f".{_CLIENT}.PredictResponse"),
    },
    "PredictionLog": {
        "log_metadata": (1, f".{_PACKAGE}.LogMetadata"),
        "predict_log": (6, f".{_PACKAGE}.PredictLog"),
    },
}


def _build() -> Any:
    field = descriptor_pb2.FieldDescriptorProto
    types = {"double": field.TYPE_DOUBLE, "int64": field.TYPE_INT64}
    file = descriptor_pb2.FileDescriptorProto(
        name="serving/shared/capture/prediction_log.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[prediction_pb2.DESCRIPTOR.name],
    )
    for name, fields in _MESSAGES.items():
        built = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            added = built.field.add(name=field_name, number=number, label=field.LABEL_OPTIONAL)
            if kind in types:
                added.type = types[kind]
            else:
                added.type, added.type_name = field.TYPE_MESSAGE, kind
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.PredictionLog"))


PredictionLog: Any = _build()

# The dtype of each kind of number, and the typed field that may hold it.
_NUMBERS = {
    prediction_pb2.DT_FLOAT: (np.float32, "float_val"),
    prediction_pb2.DT_BOOL: (np.bool_, "bool_val"),
    prediction_pb2.DT_UINT8: (np.uint8, ""),
}


def read_numbers(tensor: Any) -> NDArray[Any]:
    """Return the numbers of a tensor: `float32`, `bool` or `uint8`.

    Raises:
        ValueError: it is of another type, or its values do not fit its shape.
    """
    if tensor.dtype not in _NUMBERS:
        raise ValueError(f"a tensor of type {tensor.dtype} has no numbers that are read here")
    dtype, field = _NUMBERS[tensor.dtype]
    if tensor.tensor_content:
        values = np.frombuffer(tensor.tensor_content, np.dtype(dtype).newbyteorder("<"))
    else:
        values = np.array(getattr(tensor, field) if field else [], dtype)
    return values.reshape(_shape(tensor))


def read_strings(tensor: Any) -> NDArray[np.object_]:
    """Return the strings of a tensor, an array of `bytes`.

    Raises:
        ValueError: they do not fit its shape.
    """
    values = np.empty(len(tensor.string_val), object)
    values[:] = list(tensor.string_val)
    return values.reshape(_shape(tensor))


def fill(tensors: Any, values: Mapping[str, Sequence[Any]], *, shape: Sequence[int]) -> None:
    """Add tensors of `float`, `bool`, `str` or `bytes`, each of one shape, by name."""
    for name, row in values.items():
        tensor = tensors[name]
        tensor.tensor_shape.dim.extend(prediction_pb2.TensorShape.Dim(size=size) for size in shape)
        if isinstance(row[0], (str, bytes)):
            tensor.dtype = prediction_pb2.DT_STRING
            tensor.string_val.extend(value.encode() if isinstance(value, str) else value for value in row)
        elif isinstance(row[0], bool):
            tensor.dtype = prediction_pb2.DT_BOOL
            tensor.bool_val.extend(row)
        else:
            tensor.dtype = prediction_pb2.DT_FLOAT
            tensor.float_val.extend(row)


def _shape(tensor: Any) -> list[int]:
    return [dim.size for dim in tensor.tensor_shape.dim]
