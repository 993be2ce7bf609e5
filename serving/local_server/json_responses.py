"""The JSON of TensorFlow Serving's REST responses: https://www.tensorflow.org/tfx/serving/api_rest."""

import base64
import codecs
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import orjson

from serving.local_server.errors import invalid_argument
from serving.local_server.json_tensors import printable
from serving.local_server.servable import Array

# orjson keeps other threads waiting while it writes: these take it a few milliseconds.
_MAX_VALUES_AT_ONCE = 100_000
# Of strings, in threes, which base64 writes without padding.
_MAX_BYTES_AT_ONCE = 3 << 18
# Whole numbers that a float32 holds only every second, fourth … of, up to where Python and orjson write exponents.
_FIRST_SPARSE, _FIRST_SCIENTIFIC = 2**24, 1e16


def write_predictions(outputs: Mapping[str, Array], *, rows: bool) -> bytes:
    """Write the outputs of a predict request, in the form that it came in; a single output is written bare.

    Floats have the fewest digits that tell them from others of their type, whole ones below 1e16 all of theirs.

    Raises:
        StatusError: a type has no JSON, or, in rows, the outputs are not of one number of rows.
    """
    # Bytes are joined rather than added up: of megabytes, that lets other threads run.
    if not rows:
        columns = [_write(name, array) for name, array in outputs.items()]
        if len(columns) > 1:
            columns = [_join(b"{", map(_member, outputs, columns), b"}")]
        return _join(b'{"outputs":', columns, b"}")
    batch_size: int | None = None
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        if batch_size not in (None, len(array)):
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {batch_size}"
            )
        batch_size = len(array)
    if len(outputs) == 1:
        return _join(b'{"predictions":', [_write(*next(iter(outputs.items())))], b"}")
    members = [[_member(name, row) for row in _rows(name, array)] for name, array in outputs.items()]
    return _join(b'{"predictions":[', (_join(b"{", row, b"}") for row in zip(*members, strict=True)), b"]}")


def write_classifications(result: Any) -> bytes:
    """Write a `ClassificationResult`: for each example its `[label, score]` pairs."""
    numbers = np.array([c.score for found in result.classifications for c in found.classes], np.float32)
    scores = iter(_write("scores", numbers)[1:-1].split(b","))
    lists = (
        _join(b"[", (_join(b"[", (orjson.dumps(c.label), next(scores)), b"]") for c in found.classes), b"]")
        for found in result.classifications
    )
    return _join(b'{"results":[', lists, b"]}")


def write_regressions(result: Any) -> bytes:
    """Write a `RegressionResult`: a number for each example."""
    values = np.array([found.value for found in result.regressions], np.float32)
    return _join(b'{"results":', [_write("values", values)], b"}")


def write_error(message: str) -> bytes:
    return orjson.dumps({"error": printable(message)})


def _join(opening: bytes, parts: Iterable[bytes], closing: bytes) -> bytes:
    """Return parts with commas in between, in brackets."""
    pieces = [piece for part in parts for piece in (b",", part)] or [b""]
    pieces[0] = opening
    pieces.append(closing)
    return b"".join(pieces)


def _member(name: str, value: bytes) -> bytes:
    return b":".join((orjson.dumps(name), value))


def _write(name: str, array: Array) -> bytes:
    """Write an output as lists; strings of an output named `*_bytes` are written as base64."""
    if array.ndim == 0:
        return b"".join(_write_content(name, array.reshape(1)))
    return b"".join((b"[", *_write_content(name, array), b"]"))


def _write_content(name: str, array: Array) -> Iterator[bytes]:
    """Write what stands between the brackets of a list, in pieces that others need not wait for."""
    size = count_values(array)
    if size <= _MAX_VALUES_AT_ONCE:
        yield _write_part(name, array)[1:-1]
    elif len(array) > 1:
        step = max(1, min(len(array) // 2, _MAX_VALUES_AT_ONCE * len(array) // size))
        for start in range(0, len(array), step):
            if start:
                yield b","
            yield from _write_content(name, array[start : start + step])
    elif array.ndim > 1:
        yield b"["
        yield from _write_content(name, array[0])
        yield b"]"
    else:
        yield from _write_long(name, array[0])


def count_values(array: Array) -> int:
    """Return the number of values; a long string counts as many."""
    if array.size > _MAX_VALUES_AT_ONCE or not _is_text(array):
        return array.size
    return max(array.size, sum(map(len, array.ravel().tolist())) * _MAX_VALUES_AT_ONCE // _MAX_BYTES_AT_ONCE)


def _write_long(name: str, value: bytes | str) -> Iterator[bytes]:
    data = value if isinstance(value, bytes) else value.encode()
    parts = [data[start : start + _MAX_BYTES_AT_ONCE] for start in range(0, len(data), _MAX_BYTES_AT_ONCE)]
    if name.endswith("_bytes"):
        yield b'{"b64":"'
        yield from map(base64.b64encode, parts)
        yield b'"}'
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    yield b'"'
    for part in parts:
        yield orjson.dumps(decoder.decode(part))[1:-1]
    yield orjson.dumps(decoder.decode(b"", final=True))[1:-1]
    yield b'"'


def _rows(name: str, array: Array) -> list[bytes]:
    """Write each row of an output."""
    if _is_text(array) and count_values(array) <= _MAX_VALUES_AT_ONCE:
        return [orjson.dumps(row) for row in _to_texts(name, array)]
    if _is_text(array):
        return [_write(name, array[i, ...]) for i in range(len(array))]
    if array.size == 0:
        return [_write(name, row) for row in array]
    # Between rows, and nowhere else, all lists but the outermost end and begin.
    opening, closing = b"[" * (array.ndim - 1), b"]" * (array.ndim - 1)
    text = _write(name, array)[array.ndim : -array.ndim]
    return [_join(opening, [row], closing) for row in text.split(closing + b"," + opening)]


def _write_part(name: str, array: Array) -> bytes:
    if _is_text(array):
        return orjson.dumps(_to_texts(name, array))
    if array.dtype.kind == "c":
        raise invalid_argument(f"Failed to write JSON value for tensor type: {array.dtype}")
    if array.dtype.kind not in "biu" and array.dtype != np.float64:
        # numpy does not know bfloat16, and TensorFlow Serving writes no other floats than these two.
        array = array.astype(np.float32, copy=False)
    array = np.ascontiguousarray(array)
    text = orjson.dumps(_exact(array), option=orjson.OPT_SERIALIZE_NUMPY)
    is_finite = np.isfinite(array)
    if is_finite.all():
        return text
    # JSON has no other numbers, and orjson writes null for each.
    unusual = array[~is_finite]
    names = np.where(np.isnan(unusual), b"NaN", np.where(unusual > 0, b"Infinity", b"-Infinity"))
    return b"".join(chain.from_iterable(zip_longest(text.split(b"null"), names.tolist(), fillvalue=b"")))


def _is_text(array: Array) -> bool:
    return array.dtype == object or array.dtype.kind in "SU"


def _to_texts(name: str, array: Array) -> Any:
    write = _write_base64 if name.endswith("_bytes") else _write_text
    texts = np.empty(array.size, dtype=object)
    texts[:] = [write(value) for value in array.ravel()]
    return texts.reshape(array.shape).tolist()


def _write_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _write_base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _exact(array: Array) -> Array:
    """Return an array whose shortest digits are the ones to write.

    The shortest digits of a float32 are 4294967300.0 for 2^32. As doubles, such whole numbers have all of theirs, and
    the others are those whose digits are the same.
    """
    if array.dtype != np.float32:
        return array
    size = np.abs(array)
    is_sparse = (size >= _FIRST_SPARSE) & (size < _FIRST_SCIENTIFIC)
    if not is_sparse.any():
        return array
    with np.errstate(invalid="ignore"):
        written = orjson.loads(orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY))
        doubles = np.array(written, dtype=np.float64)  # where it reads null, NaN
    return np.where(is_sparse, array.astype(np.float64), doubles)
