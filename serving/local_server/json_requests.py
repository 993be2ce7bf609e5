"""The JSON of TensorFlow Serving's REST requests, read into arrays and examples.

The rules and error texts are those of json_tensor.cc: https://www.tensorflow.org/tfx/serving/api_rest describes them.
A row request (`instances`) names the inputs of each example, a column request (`inputs`) gives the tensors as they are.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from serving.local_server.errors import Code, StatusError, TooManyStringsError, check_num_strings, invalid_argument
from serving.local_server.json_parser import parse as parse
from serving.local_server.json_tensors import (
    Members,
    decode_base64,
    encode,
    is_base64,
    kind_of,
    printable,
    show,
    to_array,
)
from serving.local_server.servable import Array, show_shape

Example = tuple[str, dict[str, tuple[str, list[Any]]]]
"""A part of a request's examples: of which one, and the kind and values of each feature; see `read_examples`."""

CONTEXT, NEXT, SAME = "context", "next", "same"
_MAX_VALUES_AT_ONCE = 10_000


def read_signature_name(document: Mapping[str, Any]) -> str:
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {show(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return printable(name)


def read_inputs(document: Mapping[str, Any], infos: Mapping[str, Any]) -> tuple[dict[str, Array], bool]:
    """Read the tensors of a predict request.

    Args:
        document: the request.
        infos: `TensorInfo` of each input of the signature, or anything with its `dtype`.

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
                    f"Failed to process element: {i} key: {printable(name)} of 'instances' list. Error: "
                    f"INVALID_ARGUMENT: JSON object: does not have named input: {printable(name)}"
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
    except TooManyStringsError:
        raise  # no one of them is wrong
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
    add_examples(read_examples(document), proto)


def read_examples(document: Mapping[str, Any]) -> Iterator[Example]:
    """Read the examples of a classify or regress request.

    Yields:
        A target and features: of the context, if there is one, then of each next example. Long ones come in parts,
        and more features, or more values of them, of the same target follow.
    """
    if "context" in document:
        yield from _read_example(CONTEXT, document["context"])
    examples = document.get("examples")
    if "examples" not in document:
        raise invalid_argument(
            f"JSON Value: {show(document)} When method is classify, key 'examples' is expected and was not found"
        )
    if not isinstance(examples, list):
        raise invalid_argument(f"JSON Value: {show(document)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid_argument(f"JSON Value: {show(document)} 'examples' value is an empty array")
    check_num_strings(len(examples))
    for example in examples:
        yield from _read_example(NEXT, example)


def _read_example(target: str, value: Any) -> Iterator[Example]:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {kind_of(value)}")
    features: dict[str, tuple[str, list[Any]]] = {}
    num_values = 0
    for name, content in (value.last if isinstance(value, Members) else value).items():
        name = printable(name)
        kind, values = _read_feature(name, content if isinstance(content, list) else [content])
        for start in range(0, max(1, len(values)), _MAX_VALUES_AT_ONCE):
            features[name] = kind, values[start : start + _MAX_VALUES_AT_ONCE]
            num_values += len(values)
            if num_values >= _MAX_VALUES_AT_ONCE:
                yield target, features
                target, features, num_values = SAME, {}, 0
    if features or target is not SAME:
        yield target, features


def _read_feature(name: str, values: list[Any]) -> tuple[str, list[Any]]:
    """Read a feature's values, of one kind: whole numbers and booleans, decimals, or strings."""
    if set(map(type, values)) == {float}:
        return "float_list", values
    found = ""
    converted = []
    for value in values:
        kind, each = _to_feature_value(name, value)
        if found not in ("", kind):
            raise invalid_argument(
                f"Unexpected element type in feature: {name} expecting type: {found.removesuffix('_list')}"
            )
        found = kind
        converted.append(each)
    return found, converted


def _to_feature_value(name: str, value: Any) -> tuple[str, Any]:
    if isinstance(value, int):
        if value >= 2**63:
            raise invalid_argument(f"Feature: {name} has uint64 element. Only int64 is supported.")
        return "int64_list", int(value)
    if isinstance(value, float):
        return "float_list", value
    if isinstance(value, str):
        return "bytes_list", encode(value)
    if is_base64(value):
        return "bytes_list", decode_base64(value["b64"])
    raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {kind_of(value)}")


def add_examples(examples: Iterable[Example], proto: Any) -> None:
    """Add what `read_examples` yields to an `Input`."""
    listed = proto.example_list
    for target, features in examples:
        if target == CONTEXT:
            listed = proto.example_list_with_context
            example = listed.context
            example.SetInParent()
        elif target == NEXT:
            example = listed.examples.add()
        for name, (kind, values) in features.items():
            feature = example.features.feature[name]
            if kind:
                getattr(feature, kind).value.extend(values)
