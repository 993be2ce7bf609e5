"""The rules of TensorFlow Serving's json_tensor.cc; the examples of its json_tensor_test.cc are among those here."""

import base64
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

from serving.local_server import json_requests, json_responses
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
    return json_requests.read_inputs(json_requests.parse(body), infos(**dtypes))[0]


def refusal(text: str | bytes, **dtypes: str) -> str:
    with pytest.raises(StatusError) as caught:
        read(text, **dtypes)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.message


def write(*, rows: bool = True, **outputs: Any) -> Any:
    arrays = {name: np.asarray(output) for name, output in outputs.items()}
    return json.loads(json_responses.write_predictions(arrays, rows=rows))


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


@pytest.mark.parametrize("depth", [100, 100_000])
def test_deep_objects_are_refused(depth: int) -> None:
    text = '{"instances": [' + '{"a": ' * depth + "1" + "}" * depth + "]}"
    assert len(refusal(text, x="float32")) < 500


def test_errors_show_the_beginning_of_long_values() -> None:
    for text in (f'"{"a" * 10**6}"', f"[{'1,' * 10**6}1]", f'{{"a": [{"[]," * 10**5}[]]}}'):
        start = time.perf_counter()
        assert len(refusal(f'{{"inputs": [{text}, 1]}}', x="bool")) < 500
        assert len(refusal(f'{{"instances": {text}, "inputs": 1}}', x="bool")) < 500
        assert time.perf_counter() - start < 5


# Responses.


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
        ({"y": np.zeros((0, 2))}, {"predictions": []}, {"outputs": []}),
        ({"y": np.zeros((0, 2)), "t": np.zeros(0, object)}, {"predictions": []}, {"outputs": {"y": [], "t": []}}),
        (
            {"y": [[[1], [2]], [[3], [4]]], "z": np.zeros((2, 0, 3))},
            {"predictions": [{"y": [[1], [2]], "z": []}, {"y": [[3], [4]], "z": []}]},
            {"outputs": {"y": [[[1], [2]], [[3], [4]]], "z": [[], []]}},
        ),
    ],
)
def test_a_response_has_the_form_of_its_request(outputs: dict[str, Any], rows: Any, columns: Any) -> None:
    assert write(**outputs) == rows
    assert write(rows=False, **outputs) == columns


def test_a_float_is_written_with_the_fewest_digits_that_tell_it_from_others() -> None:
    values = np.array([0.1, 1 / 3, 16777215, 1e-20, 5e-45], np.float32)
    text = json_responses.write_predictions({"y": values}, rows=True).decode()
    assert text == '{"predictions":[0.1,0.33333334,16777215.0,1e-20,6e-45]}'
    assert json_responses.write_predictions({"y": np.array([0.1, 1 / 3])}, rows=True).endswith(
        b"[0.1,0.3333333333333333]}"
    )
    assert write(y=np.array([0.1], np.float16)) == {"predictions": [pytest.approx(0.1, abs=1e-4)]}


def test_numbers_that_json_does_not_have_are_written_as_tensorflow_serving_writes_them() -> None:
    text = json_responses.write_predictions({"y": np.array([np.nan, np.inf, -np.inf], np.float32)}, rows=True)
    assert text == b'{"predictions":[NaN,Infinity,-Infinity]}'


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"y": np.array(1.0)}, "Tensor name: y has no shape information"),
        ({"y": np.zeros(2), "z": np.zeros(3)}, "Tensor name: z has inconsistent batch size: 3 expecting: 2"),
        ({"y": np.zeros(2, np.complex64)}, "Failed to write JSON value for tensor type: complex64"),
    ],
)
def test_outputs_without_rows_are_refused(outputs: dict[str, Array], message: str) -> None:
    with pytest.raises(StatusError, match=message):
        json_responses.write_predictions(outputs, rows=True)


def test_a_scalar_is_written_as_a_column() -> None:
    assert write(rows=False, y=np.float32(0.1)) == {"outputs": 0.1}
    assert write(rows=False, t=np.array(b"a", object)) == {"outputs": "a"}


def arrays(dtype: str) -> st.SearchStrategy[Array]:
    elements = {"allow_nan": True, "allow_subnormal": True} if "float" in dtype else {}
    return npst.arrays(
        dtype,
        # Behind an axis without elements, JSON cannot hold the sizes of others.
        npst.array_shapes(max_dims=4, max_side=4) | npst.array_shapes(max_dims=3, max_side=4).map(lambda s: (*s, 0)),
        elements=npst.from_dtype(np.dtype(dtype), **elements),
    )


@pytest.mark.parametrize("dtype", [*NUMBERS, "bool"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_response_can_be_read_as_a_request(dtype: str, data: st.DataObject) -> None:
    """A response, sent back as a request, is the same array, to the bit but for the sign of NaN."""
    array = data.draw(arrays(dtype))
    rows = json_responses.write_predictions({"x": array}, rows=True).replace(b"predictions", b"instances", 1)
    columns = json_responses.write_predictions({"x": array}, rows=False).replace(b"outputs", b"inputs", 1)
    for body in (rows, columns):
        [found] = read(body, x=dtype).values()
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
        if "float" in dtype:
            np.testing.assert_array_equal(np.signbit(found), np.signbit(array) & ~np.isnan(array))


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.binary(max_size=20), min_size=1), text=st.lists(st.text(), min_size=1))
def test_bytes_and_text_survive(values: list[bytes], text: list[str]) -> None:
    body = json_responses.write_predictions({"x_bytes": np.array(values, object)}, rows=True)
    assert read(body.replace(b"predictions", b"instances", 1), x="string")["x"].tolist() == values
    encoded = [each.encode() for each in text]
    body = json_responses.write_predictions({"x": np.array(encoded, object)}, rows=True)
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
    parsed = json_requests.parse(json.dumps(document).encode())
    expected = infos(**dict(zip("xy", dtypes, strict=False)))
    error = ""
    try:
        found, rows = json_requests.read_inputs(parsed, expected)
    except StatusError as exc:
        error = exc.message
    assert error or (found.keys() == expected.keys() and rows == ("instances" in document))
    assert json.loads(json_responses.write_error(error)) == {"error": error}
    with suppress(StatusError):
        json_requests.fill_examples(parsed, input_pb2.Input())


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
        document = json_requests.parse(bytes(body))
        json_requests.read_signature_name(document)
        json_requests.read_inputs(document, infos(x="float32", y="string"))
    except StatusError as exc:
        error = exc.message
    assert json.loads(json_responses.write_error(error)) == {"error": error}
    assert len(error) < 1000


# Classify and regress.


def fill(text: str) -> Any:
    proto = input_pb2.Input()
    json_requests.fill_examples(json_requests.parse(text.encode()), proto)
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


def test_results_are_written() -> None:
    classified = classification_pb2.ClassificationResult()
    classes = classified.classifications.add().classes
    classes.add(label="ü", score=0.1)
    classes.add(label="", score=1)
    classified.classifications.add()
    assert json.loads(json_responses.write_classifications(classified)) == {"results": [[["ü", 0.1], ["", 1.0]], []]}
    regressed = regression_pb2.RegressionResult()
    regressed.regressions.add(value=0.1)
    assert json_responses.write_regressions(regressed) == b'{"results":[0.1]}'


def test_a_whole_number_beyond_63_bits_is_a_bfloat16_too() -> None:
    assert float(read('{"instances": [9223372036854775808]}', x="bfloat16")["x"][0]) == 2.0**63


@pytest.mark.parametrize("shape", [(), (1,), (7,), (1, 7), (7, 1), (2, 3, 2), (1, 1, 1)])
def test_long_strings_are_written_like_short_ones(shape: tuple[int, ...]) -> None:
    short = ["a\n", 'ö"', "", "€" * 9]
    for long in (b"\xe2\x82\xac" * 700_000, b"ab\xff" * 500_000, b"\xff" * (1 << 20), b"x" * 1_600_000 + b"\xc3"):
        values = [long, *([text.encode() for text in short] * 3)][: int(np.prod(shape))]
        array = np.empty(len(values), object)
        array[:] = values
        array = array.reshape(shape)
        count = len(array) if shape else 1
        texts = np.array([value.decode("utf-8", "replace") for value in values], object).reshape(shape).tolist()
        for name, expected in (("x", texts), ("x_bytes", packed(array))):
            assert json.loads(json_responses.write_predictions({name: array}, rows=False))["outputs"] == expected
            if not shape:
                continue
            outputs = {name: array, "y": np.zeros(count, np.int32)}
            for i, row in enumerate(json.loads(json_responses.write_predictions(outputs, rows=True))["predictions"]):
                assert row == {name: expected[i], "y": 0}


def packed(array: Array) -> Any:
    if array.ndim == 0:
        return {"b64": base64.b64encode(array.item()).decode()}
    return [packed(array[i, ...]) for i in range(len(array))]
