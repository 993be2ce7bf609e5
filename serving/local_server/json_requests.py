"""The JSON of TensorFlow Serving's REST requests, read into arrays and examples.

The rules and error texts are those of json_tensor.cc: https://www.tensorflow.org/tfx/serving/api_rest describes them.
A row request (`instances`) names the inputs of each example, a column request (`inputs`) gives the tensors as they are.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from serving.local_server.errors import Code, StatusError, invalid_argument
from serving.local_server.json_tensors import check_lossless, decode_base64, is_base64, kind_of, show, to_array
from serving.local_server.servable import Array
from serving.local_server.tensor_protos import show_shape

_MAX_SEARCHED_CHARS = 100_000
_TOO_BIG = "JSON Parse error: Number too big to be stored in double."
# An escape that stands for half of a character beyond U+FFFF, and makes no text without the other half.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# RapidJSON's message for each of Python's.
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
        raise invalid_argument(f"JSON Value: {show(document)} Is not object")
    return document


def _ends_in_array(text: str) -> bool:
    """Return whether the innermost bracket that a part of a document leaves open is an array's."""
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
        json.dumps(document, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError) as exc:
        raise invalid_argument("JSON Parse error: The surrogate pair in string is invalid.") from exc


def read_signature_name(document: Mapping[str, Any]) -> str:
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {show(document)} not formatted correctly. 'signature_name' key must be a string value."
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
            f"JSON Value: {show(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' keys "
            "to exist "
        )
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise invalid_argument(f"JSON Value: {show(document)} Excepting 'instances' to be an list/array")
        if not instances:
            raise invalid_argument(f"JSON Value: {show(document)} No values in 'instances' array")
        return _read_rows(instances, infos), True
    if "inputs" in document:
        return _read_columns(document["inputs"], infos), False
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def _read_rows(instances: list[Any], infos: Mapping[str, Any]) -> dict[str, Array]:
    named = isinstance(instances[0], dict) and not is_base64(instances[0])
    if not isinstance(instances[0], dict) and len(infos) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    if not named:
        (name, info), *_ = infos.items()
        for i, element in enumerate(instances):
            if isinstance(element, dict) and not is_base64(element):
                raise invalid_argument(f"Expecting value/list but got object at item {i} of input list")
        return {name: _stack_rows(instances, info.dtype, lambda i: f"Failed to process element: {i}")}
    for i, element in enumerate(instances):
        if not isinstance(element, dict) or is_base64(element):
            raise invalid_argument(f"Expecting object but got list at item {i} of input list")
        for name in element:
            if name not in infos:
                raise invalid_argument(
                    f"Failed to process element: {i} key: {name} of 'instances' list. Error: INVALID_ARGUMENT: "
                    f"JSON object: does not have named input: {name}"
                )
        if element.keys() != infos.keys():
            raise invalid_argument(
                f"Failed to process element: {i} of 'instances' list. JSON object: {show(element)} keys must be "
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
        return to_array(rows, dtype)
    except StatusError:
        arrays: list[Array] = []
        for i, row in enumerate(rows):
            try:
                array = to_array(row, dtype)
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
    if not isinstance(value, dict) or is_base64(value):
        if len(infos) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        (name, info), *_ = infos.items()
        return {name: to_array(value, info.dtype)}
    for name in infos:
        if name not in value:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
    return {name: to_array(value[name], info.dtype) for name, info in infos.items()}


def fill_examples(document: Mapping[str, Any], proto: Any) -> None:
    """Fill the `Input` of a classify or regress request with the `tf.Example`s of its JSON."""
    target = proto.example_list
    if "context" in document:
        target = proto.example_list_with_context
        _fill_example(document["context"], target.context)
    examples = document.get("examples")
    if "examples" not in document:
        raise invalid_argument(
            f"JSON Value: {show(document)} When method is classify, key 'examples' is expected and was not found"
        )
    if not isinstance(examples, list):
        raise invalid_argument(f"JSON Value: {show(document)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid_argument(f"JSON Value: {show(document)} 'examples' value is an empty array")
    for example in examples:
        _fill_example(example, target.examples.add())


def _fill_example(value: Any, example: Any) -> None:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {kind_of(value)}")
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
        check_lossless([value], {type(value)}, tf.float32)
        return "float_list", value
    if isinstance(value, str):
        return "bytes_list", value.encode("utf-8", "surrogatepass")
    if is_base64(value):
        return "bytes_list", decode_base64(value["b64"])
    raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {kind_of(value)}")
