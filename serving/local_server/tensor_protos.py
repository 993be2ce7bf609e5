"""Tensors between protobuf and numpy, within bounds, and checked against a model's signature."""

import asyncio
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from serving.local_server.errors import check_num_strings, invalid_argument
from serving.local_server.servable import Array

# Where a TensorProto keeps the values of a type, and how they are written there (tensor.proto).
_FIELDS: dict[int, tuple[str, Any]] = {
    tf.float32.as_datatype_enum: ("float_val", None),
    tf.float64.as_datatype_enum: ("double_val", None),
    tf.int32.as_datatype_enum: ("int_val", None),
    tf.int16.as_datatype_enum: ("int_val", None),
    tf.int8.as_datatype_enum: ("int_val", None),
    tf.uint8.as_datatype_enum: ("int_val", None),
    tf.uint16.as_datatype_enum: ("int_val", None),
    tf.int64.as_datatype_enum: ("int64_val", None),
    tf.uint32.as_datatype_enum: ("uint32_val", None),
    tf.uint64.as_datatype_enum: ("uint64_val", None),
    tf.bool.as_datatype_enum: ("bool_val", None),
    tf.float16.as_datatype_enum: ("half_val", np.uint16),
    tf.bfloat16.as_datatype_enum: ("half_val", np.uint16),
    tf.complex64.as_datatype_enum: ("scomplex_val", np.float32),
    tf.complex128.as_datatype_enum: ("dcomplex_val", np.float64),
}
# More take a millisecond, and megabytes at once many.
_MANY_VALUES, _MANY_AT_ONCE = 2000, 1 << 22
# In typed fields: numpy and protobuf let no other thread run while they walk through them.
_MAX_VALUES_AT_ONCE = 50_000
# What TensorFlow's runtime, and so its errors, call types that have another name in Python.
_RUNTIME_NAMES = {"float16": "half", "float32": "float", "float64": "double"}


async def read(proto: Any, alias: str, max_bytes: int) -> Array:
    """Do what `to_array` does, in a thread where the event loop should not wait for it."""
    size = math.prod(dim.size for dim in proto.tensor_shape.dim)
    if len(_typed_values(proto)) > _MANY_VALUES or size > _MANY_AT_ONCE:
        return await asyncio.to_thread(to_array, proto, alias, max_bytes)
    return to_array(proto, alias, max_bytes)


async def write(array: Array, proto: Any, *, as_content: bool = False) -> None:
    """Do what `to_proto` does, in a thread where the event loop should not wait for it."""
    if array.size > (_MANY_AT_ONCE if as_content else _MANY_VALUES):
        await asyncio.to_thread(to_proto, array, proto, as_content=as_content)
    else:
        to_proto(array, proto, as_content=as_content)


def to_array(proto: Any, alias: str, max_bytes: int) -> Array:
    """Turn a `TensorProto` into an array; strings become `object` arrays of `bytes`.

    Raises:
        StatusError: the tensor is malformed, or larger than `max_bytes` once its repeated last value is written out.
    """
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise invalid_argument(f"tensor parsing error: {alias}: its shape must be known. Received: {shape}")
    try:
        dtype = tf.dtypes.as_dtype(proto.dtype)
        num_bytes = int(np.prod(shape, dtype=object)) * max(dtype.size or 8, 1)
        if num_bytes > max_bytes:
            raise invalid_argument(
                f"tensor parsing error: {alias}: a tensor may take {max_bytes} bytes. Received: {dtype.name} {shape}, "
                f"{num_bytes} bytes. Send less at once."
            )
        if dtype == tf.string:
            check_num_strings(max(len(proto.string_val), int(np.prod(shape, dtype=object))))
            _check_repeated(proto, shape, alias, max_bytes)
        if _is_unusual(proto, dtype, shape):
            array = _parse(proto, dtype)
        elif len(_typed_values(proto)) > _MAX_VALUES_AT_ONCE and dtype != tf.string and not proto.tensor_content:
            array = _read_typed(proto, dtype, int(np.prod(shape, dtype=object)))
        else:
            array = tf.make_ndarray(proto)
    except (TypeError, ValueError, LookupError, OverflowError, tf.errors.InvalidArgumentError) as exc:
        raise invalid_argument(f"tensor parsing error: {alias}: {str(exc)[:200]}") from exc
    return array.reshape(shape)


def _is_unusual(proto: Any, dtype: tf.DType, shape: Sequence[int]) -> bool:
    """Return whether the runtime reads a tensor that Python's `make_ndarray` does not."""
    if proto.tensor_content:
        return dtype == tf.string
    if dtype == tf.string and not proto.string_val:
        return True
    # Of more values than the shape holds, the first ones count.
    return len(_typed_values(proto)) > int(np.prod(shape, dtype=object)) * (2 if dtype.is_complex else 1)


def _typed_values(proto: Any) -> Any:
    field, _ = _FIELDS.get(proto.dtype, ("string_val", None))
    return getattr(proto, field)


def _read_typed(proto: Any, dtype: tf.DType, size: int) -> Array:
    """Do what `make_ndarray` does, part by part: others run in between."""
    values, view = _typed_values(proto), _FIELDS[proto.dtype][1]
    starts = range(0, len(values), _MAX_VALUES_AT_ONCE)
    parts = [np.array(values[i : i + _MAX_VALUES_AT_ONCE], view or dtype.as_numpy_dtype) for i in starts]
    array = np.concatenate(parts).view(dtype.as_numpy_dtype)
    return np.pad(array, (0, size - len(array)), "edge")


def _parse(proto: Any, dtype: tf.DType) -> Array:
    parsed = tf.io.parse_tensor(proto.SerializeToString(), dtype).numpy()
    return np.array(parsed, dtype=object if dtype == tf.string else None)


def _check_repeated(proto: Any, shape: Sequence[int], alias: str, max_bytes: int) -> None:
    """Refuse strings whose last one is to be repeated beyond `max_bytes`."""
    num_missing = int(np.prod(shape, dtype=object)) - len(proto.string_val)
    if proto.string_val and num_missing > 0 and num_missing * len(proto.string_val[-1]) > max_bytes:
        raise invalid_argument(
            f"tensor parsing error: {alias}: a tensor may take {max_bytes} bytes, its last value repeated included. "
            f"Received: {num_missing} times {len(proto.string_val[-1])} bytes. Send less at once."
        )


def to_proto(array: Array, proto: Any, *, as_content: bool = False) -> None:
    """Fill a `TensorProto`, by default in the typed fields (`float_val`, …), as TensorFlow Serving does."""
    dtype = tf.dtypes.as_dtype(array.dtype)
    proto.dtype = dtype.as_datatype_enum
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    if dtype == tf.string:
        proto.string_val.extend(v if isinstance(v, bytes) else str(v).encode() for v in array.ravel())
    elif as_content or dtype.as_datatype_enum not in _FIELDS:
        proto.tensor_content = array.tobytes()
    else:
        field, view = _FIELDS[dtype.as_datatype_enum]
        values = np.ascontiguousarray(array).ravel()
        values = values.view(view) if view else values
        for start in range(0, len(values), _MAX_VALUES_AT_ONCE):
            getattr(proto, field).extend(values[start : start + _MAX_VALUES_AT_ONCE].tolist())


def check_dtype(array: Array, expected: int, position: int) -> None:
    """Refuse an array of another type than the signature's, in the words of TensorFlow's session."""
    received = tf.dtypes.as_dtype(array.dtype)
    wanted = tf.dtypes.as_dtype(expected)
    if received != wanted:
        raise invalid_argument(
            f"Expects arg[{position}] to be {runtime_name(wanted)} but {runtime_name(received)} is provided"
        )


def check_shape(shape: Iterable[int], expected: tuple[int | None, ...] | None, alias: str) -> None:
    """Refuse a shape that the model rules out; `None` stands for any size, or any rank."""
    received = tuple(shape)
    if expected is None:
        return
    if len(received) != len(expected) or any(e is not None and r != e for r, e in zip(received, expected, strict=True)):
        wanted = ["?" if size is None else size for size in expected]
        raise invalid_argument(
            f"input '{alias}' must have the shape [{','.join(map(str, wanted))}]. "
            f"Received: [{','.join(map(str, received))}]"
        )


def runtime_name(dtype: tf.DType) -> str:
    """Name a type as TensorFlow's errors do, such as `float`."""
    return _RUNTIME_NAMES.get(dtype.name, dtype.name)


def enum_name(array: Array) -> str:
    """Name an array's type as protobuf does, such as `DT_FLOAT`."""
    return types_pb2.DataType.Name(tf.dtypes.as_dtype(array.dtype).as_datatype_enum)
