"""The rules of TensorFlow Serving's json_tensor.cc; the examples of its json_tensor_test.cc are among those here."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from serving.local_server import json_format
from serving.local_server.errors import Code, StatusError
from serving.local_server.servable import Array

NUMBERS = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


def infos(**dtypes: str) -> dict[str, Any]:
    return {
        name: meta_graph_pb2.TensorInfo(name=f"{name}:0", dtype=tf.dtypes.as_dtype(dtype).as_datatype_enum)
        for name, dtype in dtypes.items()
    }


def read(text: str | bytes, **dtypes: str) -> dict[str, Array]:
    """Read the text of a request for inputs of these types."""
    body = text.encode() if isinstance(text, str) else text
    return json_format.read_inputs(json_format.parse(body), infos(**dtypes))[0]


def refusal(text: str | bytes, **dtypes: str) -> str:
    with pytest.raises(StatusError) as caught:
        read(text, **dtypes)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.message


def write(*, rows: bool = True, **outputs: Any) -> Any:
    arrays = {name: np.asarray(output) for name, output in outputs.items()}
    return json.loads(json_format.write_predictions(arrays, rows=rows))


# Requests.


@pytest.mark.parametrize(
    ("text", "dtypes", "expected"),
    [
        ('{"instances": [1, 2.5]}', {"x": "float32"}, {"x": [1, 2.5]}),
        ('{"instances": [[[1, 2]], [[3, 4]]]}', {"x": "int32"}, {"x": [[[1, 2]], [[3, 4]]]}),
        ('{"instances": [{"x": 1}, {"x": 2}]}', {"x": "int64"}, {"x": [1, 2]}),
        ('{"instances": [{"x": [1], "t": "a"}, {"t": "ü", "x": [2]}]}', {"x": "int64", "t": "string"}, None),
        ('{"instances": [true, false]}', {"x": "bool"}, {"x": [True, False]}),
        ('{"instances": [{"b64": "aGk="}, {"b64": ""}]}', {"x": "string"}, {"x": [b"hi", b""]}),
        ('{"instances": [{"x": {"b64": "aGk="}}]}', {"x": "string"}, {"x": [b"hi"]}),
        ('{"instances": [[{"b64": "aGk"}, "b"]]}', {"x": "string"}, {"x": [[b"hi", b"b"]]}),
        ('{"instances": [[], []]}', {"x": "float32"}, {"x": [[], []]}),
        ('{"inputs": 5}', {"x": "float32"}, {"x": 5}),
        ('{"inputs": []}', {"x": "float32"}, {"x": []}),
        ('{"inputs": [[1, 2], [3, 4]]}', {"x": "uint8"}, {"x": [[1, 2], [3, 4]]}),
        ('{"inputs": {"x": [1]}}', {"x": "uint8"}, {"x": [1]}),
        ('{"inputs": {"x": [1], "y": [[2]], "more": 0}}', {"x": "uint8", "y": "int8"}, {"x": [1], "y": [[2]]}),
        ('{"inputs": {"b64": "aGk="}}', {"x": "string"}, {"x": b"hi"}),
        ('\ufeff{"inputs": "with a mark of the byte order"}', {"x": "string"}, {"x": b"with a mark of the byte order"}),
        ('{"inputs": ["\\ud83d\\ude00", "\\u0000"]}', {"x": "string"}, {"x": ["😀".encode(), b"\0"]}),
        ('{"inputs": [NaN, Infinity, -Infinity, -0.0]}', {"x": "float32"}, {"x": [np.nan, np.inf, -np.inf, -0.0]}),
    ],
)
def test_a_request_in_rows_or_columns_is_read(text: str, dtypes: dict[str, str], expected: Any) -> None:
    found = read(text, **dtypes)
    assert list(found) == list(dtypes)
    for name, array in found.items():
        assert tf.dtypes.as_dtype(array.dtype) == tf.dtypes.as_dtype(dtypes[name])
    if expected is None:
        expected = {"x": [[1], [2]], "t": [b"a", "ü".encode()]}
    for name, values in expected.items():
        if dtypes[name] == "string":
            assert found[name].tolist() == values
        else:
            np.testing.assert_array_equal(found[name], values)


ROW = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: {}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"instances": [[1, 2], [3]]}', ROW.format(1, "Expecting tensor size: 2 but got: 1")),
        ('{"instances": [[1, 2], [[3, 4]]]}', ROW.format(1, "Expecting shape [2] but got: [1,2]")),
        ('{"instances": [[1], 2]}', ROW.format(1, "Expecting shape [1] but got: []")),
        (
            '{"instances": [[1], ["a"]]}',
            ROW.format(1, 'JSON Value: "a" Type: String is not of expected type: float'),
        ),
        (
            '{"instances": [1, 2, null]}',
            ROW.format(2, "JSON Value: null Type: Null is not of expected type: float"),
        ),
        (
            '{"instances": [[[1, 2], [3]]]}',
            ROW.format(0, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ),
        (
            '{"instances": [{"x": 1}, {"x": "b"}]}',
            "Failed to process element: 1 key: x of 'instances' list. Error: INVALID_ARGUMENT: "
            'JSON Value: "b" Type: String is not of expected type: float',
        ),
        (
            '{"instances": [{"x": [1]}, {"x": [1, 2]}]}',
            "Failed to process element: 1 key: x of 'instances' list. Error: INVALID_ARGUMENT: "
            "Expecting tensor size: 1 but got: 2",
        ),
        (
            '{"instances": [{"z": 1}]}',
            "Failed to process element: 0 key: z of 'instances' list. Error: INVALID_ARGUMENT: "
            "JSON object: does not have named input: z",
        ),
        ('{"instances": [{"x": 1}, 2]}', "Expecting object but got list at item 1 of input list"),
        ('{"instances": [1, {"x": 2}]}', "Expecting value/list but got object at item 1 of input list"),
    ],
)
def test_the_element_that_is_wrong_is_named(text: str, message: str) -> None:
    assert refusal(text, x="float32") == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "Is not object"),
        ("null", "Is not object"),
        ("{}", "Missing 'inputs' or 'instances' key"),
        ('{"instances": [1], "inputs": [1]}', "Not formatted correctly expecting only one of 'inputs' or 'instances'"),
        ('{"instances": 1}', "Excepting 'instances' to be an list/array"),
        ('{"instances": {"x": 1}}', "Excepting 'instances' to be an list/array"),
        ('{"instances": []}', "No values in 'instances' array"),
        ('{"inputs": [[1, 2], [3]]}', "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ('{"inputs": [[1], 2]}', "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ('{"inputs": [1, [2]]}', "Encountered list at unexpected level: 1 expected < 1"),
        ('{"inputs": {"y": 1}}', "Missing named input: x in 'inputs' object."),
        ('{"inputs": {"x": {"y": 1}}}', "Type: Object is not of expected type: float"),
        ('{"inputs": {"b64": "aGk="}}', "Type: Object is not of expected type: float"),
    ],
)
def test_a_request_of_the_wrong_form_is_refused(text: str, message: str) -> None:
    assert message in refusal(text, x="float32")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"instances": [1]}', "instances is a plain list, but expecting list of objects"),
        ('{"inputs": [1]}', "inputs is a plain value/list, but expecting an object"),
        ('{"instances": [{"x": 1}]}', "keys must be equal to: x,y"),
        ('{"inputs": {"x": 1}}', "Missing named input: y in 'inputs' object."),
    ],
)
def test_several_inputs_are_all_named(text: str, message: str) -> None:
    assert message in refusal(text, x="float32", y="float32")


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        ("true", "float32", "JSON Value: true Type: True is not of expected type: float"),
        ("false", "int32", "JSON Value: false Type: False is not of expected type: int32"),
        ("1", "bool", "JSON Value: 1 Type: Number is not of expected type: bool"),
        ("1", "string", "JSON Value: 1 Type: Number is not of expected type: string"),
        ('"1"', "int64", 'JSON Value: "1" Type: String is not of expected type: int64'),
        ("1.5", "int32", "JSON Value: 1.5 Type: Number is not of expected type: int32"),
        ("1.0", "uint8", "JSON Value: 1.0 Type: Number is not of expected type: uint8"),
        ("NaN", "int32", "JSON Value: NaN Type: Number is not of expected type: int32"),
        ("null", "string", "JSON Value: null Type: Null is not of expected type: string"),
        ("{}", "float64", "JSON Value: {} Type: Object is not of expected type: double"),
        ("16777216", "float32", "Cannot convert JSON value: 16777216 to float without loss of precision."),
        ("-16777217", "float32", "Cannot convert JSON value: -16777217 to float without loss of precision."),
        ("9007199254740992", "float64", "Cannot convert JSON value: 9007199254740992 to double without loss"),
        ("1e39", "float32", "to float without loss of precision."),
        ("-3.5e38", "float32", "to float without loss of precision."),
        ('{"b64": "%"}', "string", "Unable to base64 decode"),
        ('{"b64": "aGk=aGk="}', "string", "Unable to base64 decode"),
        ('{"b64": 5}', "string", "not formatted correctly for base64 data"),
        ('{"b64": "aGk=", "x": 1}', "string", "not formatted correctly for base64 data"),
    ],
)
def test_a_value_that_the_type_cannot_hold_is_refused(value: str, dtype: str, message: str) -> None:
    assert message in refusal(f'{{"inputs": [{value}]}}', x=dtype)


@pytest.mark.parametrize("dtype", [name for name in NUMBERS if "int" in name])
def test_whole_numbers_are_taken_to_the_limits_of_their_type(dtype: str) -> None:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    assert read(f'{{"inputs": [{low}, {high}]}}', x=dtype)["x"].tolist() == [low, high]
    for beyond in (low - 1, high + 1, 10**400, -(10**400)):
        assert f"is not of expected type: {dtype}" in refusal(f'{{"inputs": [0, {beyond}]}}', x=dtype)


def test_decimals_are_taken_to_the_limits_of_their_type() -> None:
    values = read('{"inputs": [16777215, -16777215, 3.4028234e38, 1e-50, 0.1]}', x="float32")["x"]
    np.testing.assert_array_equal(values, np.array([16777215, -16777215, 3.4028234e38, 0, 0.1], np.float32))
    # Beyond 64 bits a whole number is a decimal, as RapidJSON has it.
    assert read('{"inputs": 100000000000000000000000}', x="float64")["x"] == 1e23


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" * 5000, "0.1e99999"])
def test_a_number_that_no_double_holds_is_refused(number: str) -> None:
    assert refusal(f'{{"inputs": [{number}]}}', x="float64")


def test_a_type_that_json_has_no_form_for_is_refused() -> None:
    with pytest.raises(StatusError, match=r"(?s)Conversion of JSON Value: .* to type: complex64") as caught:
        read('{"inputs": [1]}', x="complex64")
    assert caught.value.code is Code.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The document is empty"),
        (b" ", "JSON Parse error: "),
        (b"{", "JSON Parse error: "),
        (b'{"inputs": [1,]}', "JSON Parse error: Invalid value. at offset: "),
        (b'{"inputs" 1}', "Missing a colon after a name of object member. at offset: 10"),
        (b'{"inputs": [1]} x', "The document root must not be followed by other values. at offset: 16"),
        (b"{'inputs': 1}", "Missing a name for object member. at offset: 1"),
        (b'{"inputs": "\xff"}', "Invalid encoding in string"),
        (b'{"inputs": "\\ud800"}', "The surrogate pair in string is invalid."),
        (b'{"\\udc00": 1}', "The surrogate pair in string is invalid."),
        (b'{"inputs": "\\ud800\\u0041"}', "The surrogate pair in string is invalid."),
        (b'{"inputs": "\xed\xa0\x80"}', "Invalid encoding in string"),
        ('{"inputs": 1}'.encode("utf-16"), "Invalid encoding in string"),
    ],
)
def test_what_is_not_json_is_refused(body: bytes, message: str) -> None:
    assert message in refusal(body, x="string")


@pytest.mark.parametrize("form", ["instances", "inputs"])
@pytest.mark.parametrize("depth", [63, 64, 65, 100, 10_000, 1_000_000])
@pytest.mark.parametrize("closed", [True, False])
def test_deep_lists_are_refused_quickly(form: str, depth: int, closed: bool) -> None:
    start = time.perf_counter()
    text = f'{{"{form}": {"[" * depth}1{"]" * depth if closed else ""}}}'
    if closed and depth < 65:
        assert read(text, x="float32")["x"].ndim == depth
    else:
        assert len(refusal(text, x="float32")) < 500
    assert time.perf_counter() - start < 5


def test_errors_show_the_beginning_of_long_values() -> None:
    for text in (f'"{"a" * 10**6}"', f"[{'1,' * 10**6}1]", f'{{"a": [{"[]," * 10**5}[]]}}'):
        start = time.perf_counter()
        assert len(refusal(f'{{"inputs": [{text}, 1]}}', x="bool")) < 500
        assert len(refusal(f'{{"instances": {text}, "inputs": 1}}', x="bool")) < 500
        assert time.perf_counter() - start < 5


@pytest.mark.parametrize("document", [{}, {"signature_name": "s"}, {"signature_name": ""}])
def test_a_signature_may_be_named(document: dict[str, str]) -> None:
    assert json_format.read_signature_name(document) == document.get("signature_name", "")
    with pytest.raises(StatusError, match="'signature_name' key must be a string value"):
        json_format.read_signature_name({"signature_name": 5})


# Answers.


@pytest.mark.parametrize(
    ("outputs", "rows", "columns"),
    [
        ({"y": [1.5, 2]}, {"predictions": [1.5, 2.0]}, {"outputs": [1.5, 2.0]}),
        ({"y": [[1], [2]]}, {"predictions": [[1], [2]]}, {"outputs": [[1], [2]]}),
        (
            {"y": [1, 2], "z": [[True], [False]]},
            {"predictions": [{"y": 1, "z": [True]}, {"y": 2, "z": [False]}]},
            {"outputs": {"y": [1, 2], "z": [[True], [False]]}},
        ),
        ({"t": np.array([b"a\xff", "ü"], object)}, {"predictions": ["a\ufffd", "ü"]}, {"outputs": ["a\ufffd", "ü"]}),
        (
            {"t_bytes": np.array([[b"\xff"]], object)},
            {"predictions": [[{"b64": "/w=="}]]},
            {"outputs": [[{"b64": "/w=="}]]},
        ),
        ({"y_bytes": [1]}, {"predictions": [1]}, {"outputs": [1]}),
        ({"y": np.zeros((2, 0))}, {"predictions": [[], []]}, {"outputs": [[], []]}),
    ],
)
def test_an_answer_has_the_form_of_its_request(outputs: dict[str, Any], rows: Any, columns: Any) -> None:
    assert write(**outputs) == rows
    assert write(rows=False, **outputs) == columns


def test_a_float_is_written_with_the_fewest_digits_that_tell_it_from_others() -> None:
    values = np.array([0.1, 1 / 3, 16777215, 1e-20, 5e-45], np.float32)
    text = json_format.write_predictions({"y": values}, rows=True).decode()
    assert text == '{"predictions": [0.1, 0.33333334, 16777215.0, 1e-20, 6e-45]}'
    assert json_format.write_predictions({"y": np.array([0.1, 1 / 3])}, rows=True).endswith(
        b"[0.1, 0.3333333333333333]}"
    )
    assert write(y=np.array([0.1], np.float16)) == {"predictions": [pytest.approx(0.1, abs=1e-4)]}


def test_numbers_that_json_does_not_have_are_written_as_tensorflow_serving_writes_them() -> None:
    text = json_format.write_predictions({"y": np.array([np.nan, np.inf, -np.inf], np.float32)}, rows=True)
    assert text == b'{"predictions": [NaN, Infinity, -Infinity]}'


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"y": np.array(1.0)}, "Tensor name: y has no shape information"),
        ({"y": np.zeros(2), "z": np.zeros(3)}, "Tensor name: z has inconsistent batch size: 3 expecting: 2"),
        ({"y": np.zeros(2, np.complex64)}, "Failed to write JSON value for tensor type: complex64"),
    ],
)
def test_an_answer_that_has_no_rows_is_refused(outputs: dict[str, Array], message: str) -> None:
    with pytest.raises(StatusError, match=message):
        json_format.write_predictions(outputs, rows=True)


def test_a_scalar_answers_in_columns() -> None:
    assert write(rows=False, y=np.float32(0.1)) == {"outputs": 0.1}
    assert write(rows=False, t=np.array(b"a", object)) == {"outputs": "a"}


def arrays(dtype: str) -> st.SearchStrategy[Array]:
    elements = {"allow_nan": True, "allow_subnormal": True} if "float" in dtype else {}
    return npst.arrays(
        dtype,
        # Behind an axis without elements, JSON has no place for the sizes of others.
        npst.array_shapes(max_dims=4, max_side=4) | npst.array_shapes(max_dims=3, max_side=4).map(lambda s: (*s, 0)),
        elements=npst.from_dtype(np.dtype(dtype), **elements),
    )


@pytest.mark.parametrize("dtype", [*NUMBERS, "bool"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_is_answered_can_be_asked(dtype: str, data: st.DataObject) -> None:
    """An answer, sent back as a request, is the same array, to the bit but for the sign of NaN."""
    array = data.draw(arrays(dtype))
    rows = json_format.write_predictions({"x": array}, rows=True).replace(b"predictions", b"instances", 1)
    columns = json_format.write_predictions({"x": array}, rows=False).replace(b"outputs", b"inputs", 1)
    for body in (rows, columns):
        [found] = read(body, x=dtype).values()
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
        if "float" in dtype:
            np.testing.assert_array_equal(np.signbit(found), np.signbit(array) & ~np.isnan(array))


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.binary(max_size=20), min_size=1), text=st.lists(st.text(), min_size=1))
def test_bytes_and_text_survive(values: list[bytes], text: list[str]) -> None:
    body = json_format.write_predictions({"x_bytes": np.array(values, object)}, rows=True)
    assert read(body.replace(b"predictions", b"instances", 1), x="string")["x"].tolist() == values
    encoded = [each.encode() for each in text]
    body = json_format.write_predictions({"x": np.array(encoded, object)}, rows=True)
    assert read(body.replace(b"predictions", b"instances", 1), x="string")["x"].tolist() == encoded


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.fixed_dictionaries({"b64": st.text(max_size=5) | st.none()}),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "y", "b64", ""]), inner),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(
    document=st.fixed_dictionaries({}, optional={"instances": JSON, "inputs": JSON, "examples": JSON, "context": JSON}),
    dtypes=st.lists(st.sampled_from([*NUMBERS, "bool", "string", "complex64"]), min_size=1, max_size=2),
)
def test_whatever_is_sent_is_read_or_refused(document: Mapping[str, Any], dtypes: list[str]) -> None:
    parsed = json_format.parse(json.dumps(document).encode())
    expected = infos(**dict(zip("xy", dtypes, strict=False)))
    error = ""
    try:
        found, rows = json_format.read_inputs(parsed, expected)
    except StatusError as exc:
        error = exc.message
    assert error or (found.keys() == expected.keys() and rows == ("instances" in document))
    assert json.loads(json_format.write_error(error)) == {"error": error}
    with suppress(StatusError):
        json_format.fill_examples(parsed, input_pb2.Input())


REQUEST = b'{"signature_name": "s", "instances": [{"x": [1.5e3, -2], "y": {"b64": "aGk="}, "\\u00e9": null}]}'


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_broken_text_is_refused_as_such(data: st.DataObject) -> None:
    body = bytearray(REQUEST)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    error = ""
    try:
        document = json_format.parse(bytes(body))
        json_format.read_signature_name(document)
        json_format.read_inputs(document, infos(x="float32", y="string"))
    except StatusError as exc:
        error = exc.message
    assert json.loads(json_format.write_error(error)) == {"error": error}
    assert len(error) < 1000


# Classify and regress.


def fill(text: str) -> Any:
    proto = input_pb2.Input()
    json_format.fill_examples(json_format.parse(text.encode()), proto)
    return proto


def test_examples_are_filled() -> None:
    proto = fill(
        '{"context": {"c": "all"}, "examples": [{"i": 1, "b": [true, false], "f": [1.5, NaN], "s": "a", '
        '"y": [{"b64": "/w=="}], "none": []}, {}]}'
    )
    context = proto.example_list_with_context.context.features.feature
    assert context["c"].bytes_list.value == [b"all"]
    first, second = proto.example_list_with_context.examples
    features = first.features.feature
    assert features["i"].int64_list.value == [1]
    assert features["b"].int64_list.value == [1, 0]
    assert features["f"].float_list.value[0] == 1.5
    assert features["y"].bytes_list.value == [b"\xff"]
    assert features["none"].WhichOneof("kind") is None
    assert not second.features.feature
    assert len(fill('{"examples": [{"i": 1}]}').example_list.examples) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "When method is classify, key 'examples' is expected and was not found"),
        ('{"examples": 5}', "Expecting 'examples' value to be an list/array"),
        ('{"examples": []}', "'examples' value is an empty array"),
        ('{"examples": [5]}', "Example must be JSON object but got JSON Number"),
        ('{"examples": [{}], "context": "a"}', "Example must be JSON object but got JSON String"),
        ('{"examples": [{"a": [1, 1.5]}]}', "Unexpected element type in feature: a expecting type: int64"),
        ('{"examples": [{"a": ["b", 1]}]}', "Unexpected element type in feature: a expecting type: bytes"),
        ('{"examples": [{"a": null}]}', "Feature: a has element with unexpected JSON type: Null"),
        ('{"examples": [{"a": [[1]]}]}', "Feature: a has element with unexpected JSON type: Array"),
        ('{"examples": [{"a": {"b": 1}}]}', "Feature: a has element with unexpected JSON type: Object"),
        ('{"examples": [{"a": 9223372036854775808}]}', "Feature: a has uint64 element. Only int64 is supported."),
        ('{"examples": [{"a": 1e39}]}', "to float without loss of precision."),
    ],
)
def test_examples_that_are_wrong_are_refused(text: str, message: str) -> None:
    with pytest.raises(StatusError) as caught:
        fill(text)
    assert message in caught.value.message
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_results_are_written() -> None:
    classified = classification_pb2.ClassificationResult()
    classes = classified.classifications.add().classes
    classes.add(label="ü", score=0.1)
    classes.add(label="", score=1)
    classified.classifications.add()
    assert json.loads(json_format.write_classifications(classified)) == {"results": [[["ü", 0.1], ["", 1.0]], []]}
    regressed = regression_pb2.RegressionResult()
    regressed.regressions.add(value=0.1)
    assert json_format.write_regressions(regressed) == b'{"results": [0.1]}'
