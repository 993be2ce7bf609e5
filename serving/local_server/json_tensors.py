"""JSON values to tensors, by the rules and with the error texts of TensorFlow Serving's json_tensor.cc.

Nothing of TensorFlow is imported: the process that reads large bodies starts in a moment.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from itertools import chain
from typing import Any

import ml_dtypes
import numpy as np

from serving.local_server.errors import Code, StatusError, check_num_strings, invalid_argument
from serving.local_server.servable import Array

# numpy's own limit, and more than any model's.
MAX_RANK = 64
_MAX_SHOWN_CHARS = 256
_KINDS = {type(None): "Null", dict: "Object", list: "Array", str: "String"}
_STRING, _BOOL = 7, 10
# The numbers of types.proto, with the runtime's names.
_TYPES: dict[int, tuple[str, Any]] = {
    1: ("float", np.float32),
    2: ("double", np.float64),
    3: ("int32", np.int32),
    4: ("uint8", np.uint8),
    5: ("int16", np.int16),
    6: ("int8", np.int8),
    _STRING: ("string", np.object_),
    9: ("int64", np.int64),
    _BOOL: ("bool", np.bool_),
    14: ("bfloat16", ml_dtypes.bfloat16),
    17: ("uint16", np.uint16),
    19: ("half", np.float16),
    22: ("uint32", np.uint32),
    23: ("uint64", np.uint64),
}
_OTHER_NAMES = {
    8: "complex64", 11: "qint8", 12: "quint8", 13: "qint32", 15: "qint16", 16: "quint16", 18: "complex128",
    20: "resource", 21: "variant",
}  # fmt: skip


class Members(dict[str, Any]):
    """An object that has a key twice: the first of each counts, but for the features of a `tf.Example` the last."""

    def __init__(self, first: dict[str, Any], last: dict[str, Any]) -> None:
        super().__init__(first)
        self.last = last


def to_array(value: Any, dtype: int) -> Array:
    """Turn a value, or lists of equal length, nested to any depth, into an array.

    Args:
        value: of a parsed document.
        dtype: the number of the type in types.proto. Decimals are rounded to the nearest one of the type.

    Raises:
        StatusError: a value is of another type or beyond it, or the lists make no array.
    """
    shape: list[int] = []
    level = [value]
    while level and isinstance(level[0], list):
        if len(shape) == MAX_RANK:
            raise invalid_argument(f"Encountered list at unexpected level: {len(shape)} expected < {MAX_RANK}")
        size = len(level[0])
        # Sets are made in a tenth of the time that a loop takes, which is left for what is wrong.
        if set(map(type, level)) != {list} or set(map(len, level)) != {size}:
            _refuse_ragged(level, size, len(shape))
        shape.append(size)
        level = list(chain.from_iterable(level))
    kinds = set(map(type, level))
    if list in kinds:
        raise invalid_argument(f"Encountered list at unexpected level: {len(shape)} expected < {len(shape)}")
    return _convert(level, kinds, dtype).reshape(shape)


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


def _convert(values: list[Any], kinds: set[type], number: int) -> Array:
    if number not in _TYPES:
        name = _OTHER_NAMES.get(number, f"type {number}")
        raise StatusError(Code.UNIMPLEMENTED, f"Conversion of JSON Value: {show(values)} to type: {name}")
    name, dtype = _TYPES[number]
    if number == _STRING:
        check_num_strings(len(values))
        return np.array([_to_bytes(value) for value in values], dtype=object)
    allowed: set[type] = {bool} if number == _BOOL else {int}
    is_integer = np.issubdtype(dtype, np.integer)
    if number != _BOOL and not is_integer:
        allowed.add(float)
    if not kinds <= allowed:
        raise _type_error(next(value for value in values if type(value) not in allowed), name)
    try:
        with np.errstate(over="ignore"):  # what is beyond the type's largest number is infinite
            if dtype == ml_dtypes.bfloat16:  # which takes no whole number beyond 63 bits
                return np.array(values, dtype=np.float64).astype(dtype)
            return np.array(values, dtype=dtype)
    except OverflowError:
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        raise _type_error(next(value for value in values if not low <= value <= high), name) from None


def _type_error(value: Any, name: str) -> StatusError:
    return invalid_argument(f"JSON Value: {show(value)} Type: {kind_of(value)} is not of expected type: {name}")


def kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return str(value)
    return "Object" if isinstance(value, Members) else _KINDS.get(type(value), "Number")


def is_base64(value: Any) -> bool:
    return type(value) is dict and value.keys() == {"b64"} and isinstance(value["b64"], str)


def encode(text: str) -> bytes:
    """Return the bytes of a string as they were sent, UTF-8 or not."""
    return text.encode("utf-8", "surrogateescape")


def printable(text: str) -> str:
    """Return a string with a mark in place of bytes that are no UTF-8."""
    return text if text.isascii() else encode(text).decode("utf-8", "replace")


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return encode(value)
    if not isinstance(value, dict):
        raise _type_error(value, "string")
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


def show(value: Any) -> str:
    """Show a JSON value in an error, shortened: it may be megabytes, or nested beyond what can be written."""
    try:
        text = json.dumps(value, ensure_ascii=False) if not isinstance(value, dict | list) else _show_outline(value)
    except RecursionError:
        text = "..."
    return printable(text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + "...")


def _show_outline(value: Any) -> str:
    """Write the beginning of a list or object, without walking through all of it."""
    encoder = json.JSONEncoder(indent=4, ensure_ascii=False)
    text = ""
    for chunk in encoder.iterencode(value):
        text += chunk[: _MAX_SHOWN_CHARS + 1]
        if len(text) > _MAX_SHOWN_CHARS:
            break
    return text
