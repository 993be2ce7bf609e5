"""JSON of TensorFlow Serving's REST API: requests to arrays and examples, answers to JSON.

The rules and error texts are those of json_tensor.cc: https://www.tensorflow.org/tfx/serving/api_rest describes them.
A row request (`instances`) names the inputs of each example, a column request (`inputs`) gives whole tensors.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import tensorflow as tf

from serving.local_server.errors import Code, StatusError, invalid_argument
from serving.local_server.servable import Array
from serving.local_server.tensors import runtime_name, show_shape

# numpy's own limit, and more than any model's.
_MAX_RANK = 64
_MAX_SHOWN_CHARS = 100
_MAX_SEARCHED_CHARS = 100_000
_TYPE_NAMES = {type(None): "Null", dict: "Object", list: "Array", str: "String"}
_TOO_BIG = "JSON Parse error: Number too big to be stored in double."
# An escape that stands for half of a character beyond U+FFFF, and makes no text without the other half.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# What RapidJSON says where Python's parser says the key.
_PARSE_ERRORS = {
    "Expecting value": "Invalid value.",
    "Extra data": "The document root must not be followed by other values.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Expecting ',' delimiter": "Missing a comma or } after an object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Illegal trailing comma before end of array": "Invalid value.",
    "Unterminated string": "Missing a closing quotation mark in string.",
    "Invalid control character": "Invalid encoding in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
}
_IN_ARRAY = "Missing a comma or ] after an array element."


def parse(body: bytes) -> dict[str, Any]:
    """Parse a request; NaN and Infinity are taken, as TensorFlow Serving does.

    Raises:
        StatusError: it is not JSON, or not an object.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        document = json.loads(body.decode("utf-8-sig"), parse_float=_read_float)
    except json.JSONDecodeError as exc:
        reason = next((ours for theirs, ours in _PARSE_ERRORS.items() if exc.msg.startswith(theirs)), exc.msg)
        # In a long text not even the reason is worth seconds of searching.
        if exc.msg.startswith("Expecting ','") and exc.pos < _MAX_SEARCHED_CHARS and _ends_in_array(exc.doc[: exc.pos]):
            reason = _IN_ARRAY
        raise invalid_argument(f"JSON Parse error: {reason} at offset: {exc.pos}") from exc
    except UnicodeDecodeError as exc:
        raise invalid_argument(f"JSON Parse error: Invalid encoding in string. at offset: {exc.start}") from exc
    except RecursionError as exc:
        raise invalid_argument("JSON Parse error: The document is nested too deeply.") from exc
    except ValueError as exc:  # a whole number of thousands of digits
        raise invalid_argument(_TOO_BIG) from exc
    if _SURROGATE.search(body):
        _check_text(document)
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {_show(document)} Is not object")
    return document


def _ends_in_array(text: str) -> bool:
    """Tell whether the innermost bracket that a part of a document leaves open is an array's."""
    opened: list[str] = []
    for bracket in re.findall(r"[\[\]{}]", re.sub(r'"(?:[^"\\]|\\.)*"', "", text)):
        if bracket in "[{":
            opened.append(bracket)
        else:
            opened.pop()
    return opened[-1:] == ["["]


def _read_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise invalid_argument(_TOO_BIG)
    return value


def _check_text(document: Any) -> None:
    try:
        _dump(document)
    except (UnicodeEncodeError, RecursionError) as exc:
        raise invalid_argument("JSON Parse error: The surrogate pair in string is invalid.") from exc


def read_signature_name(document: Mapping[str, Any]) -> str:
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {_show(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def read_inputs(document: Mapping[str, Any], infos: Mapping[str, Any]) -> tuple[dict[str, Array], bool]:
    """Read the tensors of a predict request.

    Args:
        document: the request.
        infos: `TensorInfo` of each input of the signature.

    Returns:
        The arrays by alias, and whether the request came in rows.
    """
    if "instances" in document and "inputs" in document:
        raise invalid_argument(
            f"JSON Value: {_show(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' keys "
            "to exist "
        )
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise invalid_argument(f"JSON Value: {_show(document)} Excepting 'instances' to be an list/array")
        if not instances:
            raise invalid_argument(f"JSON Value: {_show(document)} No values in 'instances' array")
        return _read_rows(instances, infos), True
    if "inputs" in document:
        return _read_columns(document["inputs"], infos), False
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def write_predictions(outputs: Mapping[str, Array], *, rows: bool) -> bytes:
    """Write the answer to a predict request, in the form that it came in; a single output is written bare."""
    if not rows:
        columns = {name: _to_json(name, array) for name, array in outputs.items()}
        return _dump({"outputs": columns if len(columns) > 1 else next(iter(columns.values()))})
    batch_size: int | None = None
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        if not len(array):
            raise invalid_argument(f"Tensor name: {name} has invalid batch size: 0")
        if batch_size not in (None, len(array)):
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {batch_size}"
            )
        batch_size = len(array)
    lists = {name: _to_json(name, array) for name, array in outputs.items()}
    if len(lists) == 1:
        return _dump({"predictions": next(iter(lists.values()))})
    return _dump({"predictions": [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]})


def fill_examples(document: Mapping[str, Any], proto: Any) -> None:
    """Fill the `Input` of a classify or regress request with the `tf.Example`s of its JSON."""
    target = proto.example_list
    if "context" in document:
        target = proto.example_list_with_context
        _fill_example(document["context"], target.context)
    examples = document.get("examples")
    if "examples" not in document:
        raise invalid_argument(
            f"JSON Value: {_show(document)} When method is classify, key 'examples' is expected and was not found"
        )
    if not isinstance(examples, list):
        raise invalid_argument(f"JSON Value: {_show(document)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid_argument(f"JSON Value: {_show(document)} 'examples' value is an empty array")
    for example in examples:
        _fill_example(example, target.examples.add())


def write_classifications(result: Any) -> bytes:
    """Write a `ClassificationResult`: for each example its `[label, score]` pairs."""
    return _dump(
        {"results": [[[c.label, _shortest(c.score)] for c in found.classes] for found in result.classifications]}
    )


def write_regressions(result: Any) -> bytes:
    """Write a `RegressionResult`: a number for each example."""
    return _dump({"results": [_shortest(found.value) for found in result.regressions]})


def write_error(message: str) -> bytes:
    return _dump({"error": message})


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _show(value: Any) -> str:
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


def _read_rows(instances: list[Any], infos: Mapping[str, Any]) -> dict[str, Array]:
    named = isinstance(instances[0], dict) and not _is_base64(instances[0])
    if not isinstance(instances[0], dict) and len(infos) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    if not named:
        (name, info), *_ = infos.items()
        for i, element in enumerate(instances):
            if isinstance(element, dict) and not _is_base64(element):
                raise invalid_argument(f"Expecting value/list but got object at item {i} of input list")
        return {name: _stack_rows(instances, info.dtype, lambda i: f"Failed to process element: {i}")}
    for i, element in enumerate(instances):
        if not isinstance(element, dict) or _is_base64(element):
            raise invalid_argument(f"Expecting object but got list at item {i} of input list")
        for name in element:
            if name not in infos:
                raise invalid_argument(
                    f"Failed to process element: {i} key: {name} of 'instances' list. Error: INVALID_ARGUMENT: "
                    f"JSON object: does not have named input: {name}"
                )
        if element.keys() != infos.keys():
            raise invalid_argument(
                f"Failed to process element: {i} of 'instances' list. JSON object: {_show(element)} keys must be "
                f"equal to: {','.join(sorted(infos))}"
            )
    return {
        name: _stack_rows(
            [element[name] for element in instances],
            info.dtype,
            lambda i, name=name: f"Failed to process element: {i} key: {name}",  # type: ignore[misc]
        )
        for name, info in infos.items()
    }


def _stack_rows(rows: list[Any], dtype: int, where: Any) -> Array:
    """Read all rows as one tensor; when that fails, one by one, to name the one that is wrong."""
    try:
        return _to_array(rows, dtype)
    except StatusError:
        arrays: list[Array] = []
        for i, row in enumerate(rows):
            try:
                array = _to_array(row, dtype)
            except StatusError as exc:
                code, message = exc.code, f"{where(i)} of 'instances' list. Error: {exc}"
            else:
                arrays.append(array)
                if array.shape == arrays[0].shape:
                    continue
                if array.size != arrays[0].size:
                    reason = f"Expecting tensor size: {arrays[0].size} but got: {array.size}"
                else:
                    reason = f"Expecting shape {show_shape(arrays[0])} but got: {show_shape(array)}"
                code, message = (
                    Code.INVALID_ARGUMENT,
                    f"{where(i)} of 'instances' list. Error: INVALID_ARGUMENT: {reason}",
                )
            raise StatusError(code, message) from None
        raise


def _read_columns(value: Any, infos: Mapping[str, Any]) -> dict[str, Array]:
    if not isinstance(value, dict) or _is_base64(value):
        if len(infos) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        (name, info), *_ = infos.items()
        return {name: _to_array(value, info.dtype)}
    for name in infos:
        if name not in value:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
    return {name: _to_array(value[name], info.dtype) for name, info in infos.items()}


def _to_array(value: Any, dtype: int) -> Array:
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
                f"JSON Value: {_show(element)} found at incorrect level: {depth + 1} in the JSON DOM. "
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
            Code.UNIMPLEMENTED, f"Conversion of JSON Value: {_show(list(values))} to type: {runtime_name(dtype)}"
        )
    if not kinds <= allowed:
        raise _type_error(next(value for value in values if type(value) not in allowed), dtype)
    if dtype.is_integer:
        low, high = dtype.min, dtype.max
        if values and (min(values) < low or max(values) > high):
            raise _type_error(next(value for value in values if not low <= value <= high), dtype)
    elif dtype.is_floating:
        _check_lossless(values, kinds, dtype)
    return np.array(values, dtype=dtype.as_numpy_dtype)


def _check_lossless(values: Sequence[Any], kinds: set[type], dtype: tf.DType) -> None:
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
            f"Cannot convert JSON value: {_show(value)} to {runtime_name(dtype)} without loss of precision."
        )


def _type_error(value: Any, dtype: tf.DType) -> StatusError:
    return invalid_argument(
        f"JSON Value: {_show(value)} Type: {_kind(value)} is not of expected type: {runtime_name(dtype)}"
    )


def _kind(value: Any) -> str:
    return str(value) if isinstance(value, bool) else _TYPE_NAMES.get(type(value), "Number")


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if not isinstance(value, dict):
        raise _type_error(value, tf.string)
    if not _is_base64(value):
        raise invalid_argument(f"JSON Value: {_show(value)} not formatted correctly for base64 data")
    return _decode_base64(value["b64"])


def _decode_base64(text: str) -> bytes:
    try:
        # Line breaks and missing padding are taken, as absl::Base64Unescape does.
        packed = "".join(text.split())
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise invalid_argument("Unable to base64 decode") from exc


def _to_json(name: str, array: Array) -> Any:
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
    return np.array([_shortest(value) for value in values.ravel()]).reshape(array.shape).tolist()


def _shortest(value: Any) -> float:
    """Give the double that prints with the fewest digits which still are this float32."""
    return float(str(np.float32(value)))


def _write_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _write_base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _fill_example(value: Any, example: Any) -> None:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {_kind(value)}")
    for name, content in value.items():
        _fill_feature(name, content if isinstance(content, list) else [content], example.features.feature[name])


def _fill_feature(name: str, values: Sequence[Any], feature: Any) -> None:
    """Fill a feature with values of one kind: whole numbers and booleans, decimals, or strings."""
    for value in values:
        kind, converted = _to_feature_value(name, value)
        present = feature.WhichOneof("kind")
        if present not in (None, kind):
            raise invalid_argument(
                f"Unexpected element type in feature: {name} expecting type: {present.removesuffix('_list')}"
            )
        getattr(feature, kind).value.append(converted)


def _to_feature_value(name: str, value: Any) -> tuple[str, Any]:
    if isinstance(value, bool):
        return "int64_list", int(value)
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        if value >= 2**63:
            raise invalid_argument(f"Feature: {name} has uint64 element. Only int64 is supported.")
        return "int64_list", value
    if isinstance(value, int | float):
        _check_lossless([value], {type(value)}, tf.float32)
        return "float_list", value
    if isinstance(value, str):
        return "bytes_list", value.encode("utf-8", "surrogatepass")
    if _is_base64(value):
        return "bytes_list", _decode_base64(value["b64"])
    raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {_kind(value)}")
