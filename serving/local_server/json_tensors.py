"""JSON values to tensors and back, by the rules and with the error texts of TensorFlow Serving's json_tensor.cc."""

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import tensorflow as tf

from serving.local_server.errors import Code, StatusError, invalid_argument
from serving.local_server.servable import Array
from serving.local_server.tensor_protos import runtime_name

# numpy's own limit, and more than any model's.
_MAX_RANK = 64
_MAX_SHOWN_CHARS = 100
_TYPE_NAMES = {type(None): "Null", dict: "Object", list: "Array", str: "String"}


def to_array(value: Any, dtype: int) -> Array:
    """Turn a value, or lists of equal length, nested to any depth, into an array."""
    shape: list[int] = []
    level = [value]
    while level and isinstance(level[0], list):
        if len(shape) == _MAX_RANK:
            raise invalid_argument(f"Encountered list at unexpected level: {len(shape)} expected < {_MAX_RANK}")
        size = len(level[0])
        # Sets are made in a tenth of the time that a loop takes, which is left for what is wrong.
        if set(map(type, level)) != {list} or set(map(len, level)) != {size}:
            _refuse_ragged(level, size, len(shape))
        shape.append(size)
        level = list(chain.from_iterable(level))
    if list in set(map(type, level)):
        raise invalid_argument(f"Encountered list at unexpected level: {len(shape)} expected < {len(shape)}")
    return _convert(level, tf.dtypes.as_dtype(dtype)).reshape(shape)


def _refuse_ragged(level: Sequence[Any], size: int, depth: int) -> None:
    for element in level:
        if not isinstance(element, list):
            raise invalid_argument(
                f"JSON Value: {show(element)} found at incorrect level: {depth + 1} in the JSON DOM. "
                f"Expected at level: {_depth(level[0]) + depth}"
            )
        if len(element) != size:
            raise invalid_argument(
                f"Encountered list at unexpected size: {len(element)} at level: {depth} expected size: {size}"
            )


def _depth(value: Any) -> int:
    depth = 0
    while isinstance(value, list):
        depth += 1
        value = value[0] if value else None
    return depth


def _convert(values: Sequence[Any], dtype: tf.DType) -> Array:
    kinds = set(map(type, values))
    if dtype == tf.string:
        return np.array([_to_bytes(value) for value in values] or [], dtype=object)
    if dtype == tf.bool:
        allowed: set[type] = {bool}
    elif dtype.is_integer:
        allowed = {int}
    elif dtype.is_floating:
        allowed = {int, float}
    else:
        raise StatusError(
            Code.UNIMPLEMENTED, f"Conversion of JSON Value: {show(list(values))} to type: {runtime_name(dtype)}"
        )
    if not kinds <= allowed:
        raise _type_error(next(value for value in values if type(value) not in allowed), dtype)
    if dtype.is_integer:
        low, high = dtype.min, dtype.max
        if values and (min(values) < low or max(values) > high):
            raise _type_error(next(value for value in values if not low <= value <= high), dtype)
    elif dtype.is_floating:
        check_lossless(values, kinds, dtype)
    return np.array(values, dtype=dtype.as_numpy_dtype)


def check_lossless(values: Sequence[Any], kinds: set[type], dtype: tf.DType) -> None:
    """Refuse numbers that the type cannot hold: whole ones beyond its digits, others beyond its range."""
    most = 2 ** (np.finfo(dtype.as_numpy_dtype).nmant + 1) - 1 if dtype != tf.bfloat16 else 2**8 - 1
    if not values or -most <= min(values) <= max(values) <= most:  # which no comparison with NaN makes true
        return
    largest = float(dtype.max)
    lossy: Iterable[Any] = ()
    if int in kinds:
        # Whole numbers that no 64 bits hold are read as decimals.
        lossy = (v for v in values if type(v) is int and abs(v) > (most if -(2**63) <= v < 2**64 else largest))
    if float in kinds:
        lossy = chain(lossy, (v for v in values if type(v) is float and largest < abs(v) < float("inf")))
    for value in lossy:
        raise invalid_argument(
            f"Cannot convert JSON value: {show(value)} to {runtime_name(dtype)} without loss of precision."
        )


def _type_error(value: Any, dtype: tf.DType) -> StatusError:
    return invalid_argument(
        f"JSON Value: {show(value)} Type: {kind_of(value)} is not of expected type: {runtime_name(dtype)}"
    )


def kind_of(value: Any) -> str:
    return str(value) if isinstance(value, bool) else _TYPE_NAMES.get(type(value), "Number")


def is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if not isinstance(value, dict):
        raise _type_error(value, tf.string)
    if not is_base64(value):
        raise invalid_argument(f"JSON Value: {show(value)} not formatted correctly for base64 data")
    return decode_base64(value["b64"])


def decode_base64(text: str) -> bytes:
    try:
        # Line breaks and missing padding are taken, as absl::Base64Unescape does.
        packed = "".join(text.split())
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise invalid_argument("Unable to base64 decode") from exc


def to_json(name: str, array: Array) -> Any:
    """Turn an output into lists; strings of an output named `*_bytes` are written as base64."""
    if array.dtype == object or array.dtype.kind in "SU":
        write = _write_base64 if name.endswith("_bytes") else _write_text
        flat = np.empty(array.size, dtype=object)
        flat[:] = [write(value) for value in array.ravel()]
        return flat.reshape(array.shape).tolist()
    if array.dtype.kind in "biu":
        return array.tolist()
    if array.dtype == np.float64:
        return array.tolist()
    if array.dtype.kind == "c":
        raise invalid_argument(f"Failed to write JSON value for tensor type: {array.dtype}")
    values = array.astype(np.float32)
    return np.array([shortest(value) for value in values.ravel()]).reshape(array.shape).tolist()


def shortest(value: Any) -> float:
    """Return the double that prints with the fewest digits that still are this float32."""
    return float(str(np.float32(value)))


def _write_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _write_base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def show(value: Any) -> str:
    """Show a JSON value in an error, shortened: it may be megabytes, or nested beyond what can be written."""
    try:
        text = json.dumps(value) if not isinstance(value, dict | list) else _show_outline(value)
    except RecursionError:
        text = "..."
    return text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + "..."


def _show_outline(value: Any) -> str:
    """Write the beginning of a list or object, without walking through all of it."""
    encoder = json.JSONEncoder(indent=4)
    text = ""
    for chunk in encoder.iterencode(value):
        text += chunk[: _MAX_SHOWN_CHARS + 1]
        if len(text) > _MAX_SHOWN_CHARS:
            break
    return text
