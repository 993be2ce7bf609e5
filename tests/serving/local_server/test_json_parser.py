"""What RapidJSON, as TensorFlow Serving calls it, takes and refuses; beside it what orjson and Python's json do."""

import json
import math
import time
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import input_pb2

from serving.local_server import json_requests, json_responses
from serving.local_server.errors import StatusError
from serving.local_server.json_parser import parse
from tests.serving.local_server.test_json import infos, read, refusal


def fill(text: bytes) -> Any:
    proto = input_pb2.Input()
    json_requests.fill_examples(parse(text), proto)
    return proto.example_list.examples[0].features.feature


def test_every_spelling_of_what_is_no_number_is_taken() -> None:
    found = read('{"instances": [NaN, -NaN, Inf, -Inf, Infinity, -Infinity, 1]}', x="float32")["x"]
    np.testing.assert_array_equal(found, [np.nan, np.nan, np.inf, -np.inf, np.inf, -np.inf, 1])
    assert read('{"inputs": ["Inf", "-NaN", "\\\\\\"Inf"], "Inf": Inf}', x="string")["x"].tolist() == [
        b"Inf",
        b"-NaN",
        b'\\"Inf',
    ]


@pytest.mark.parametrize(
    "text", ["nan", "inf", "+Inf", "+1", "-nan", "NAN", "Infinit", "InfinityX", "--1", ".5", "TRUE"]
)
def test_no_other_spelling_is_taken(text: str) -> None:
    assert refusal(f'{{"inputs": [{text}]}}', x="float32").startswith("JSON Parse error: ")


@pytest.mark.parametrize("tail", [b"", b" \t\r\n", b"\0", b" \0 x", b"\0\xff{"])
def test_a_document_ends_at_a_zero_byte(tail: bytes) -> None:
    assert parse(b'{"a": 1}' + tail) == {"a": 1}
    assert refusal(b'{"a": 1} x' + tail) == (
        "JSON Parse error: The document root must not be followed by other values. at offset: 9"
    )


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_strings_go_to_the_model_byte_for_byte(bom: bytes) -> None:
    values = [b"\xff\xfe", b"\xed\xa0\x80", "grüße\U0001f337".encode(), b"\x7f\x80"]
    text = b'{"inputs": ["' + b'", "'.join(values) + b'", "\\u00fc\\ud83c\\udf37\\\\ud800"]}'
    assert read(bom + text, x="string")["x"].tolist() == [*values, "ü\U0001f337\\ud800".encode()]
    assert fill(b'{"examples": [{"x": ["\xff", "\xc3\xbc"]}]}')["x"].bytes_list.value == [b"\xff", b"\xc3\xbc"]
    # Names are text in protobuf.
    assert json_requests.read_signature_name(parse(b'{"signature_name": "a\xff"}')) == "a\ufffd"
    assert fill(b'{"examples": [{"x\xff": 1}]}')["x\ufffd"].int64_list.value == [1]
    assert json.loads(json_responses.write_error(refusal(b'{"inputs": "\xff"}', x="int32")))["error"].startswith(
        'JSON Value: "\ufffd" Type: String'
    )


def test_of_a_key_that_is_there_twice_the_first_counts() -> None:
    text = (
        '{"inputs": {"x": 1, "y": ["a:b", "c"], "\\u0078": 2}, "signature_name": "a", "inputs": 3, "signature_name": 4}'
    )
    document = parse(text.encode())
    assert json_requests.read_signature_name(document) == "a"
    found, _ = json_requests.read_inputs(document, infos(x="int32", y="string"))
    assert found["x"] == 1
    assert read('{"instances": [{"x": [1]}, {"x": [2], "x": [3]}]}', x="int32")["x"].tolist() == [[1], [2]]
    # The features of an example are overwritten.
    assert fill(b'{"examples": [{"x": 1, "x": 2.5}]}')["x"].float_list.value == [2.5]
    assert "not formatted correctly for base64" in refusal('{"inputs": {"x": {"b64": "", "b64": ""}}}', x="string")


def test_whole_numbers_beyond_64_bits_are_decimals() -> None:
    for text in ("18446744073709551616", "-9223372036854775809", "1" * 30):
        for more in ("", ", NaN"):  # orjson, and Python's parser
            assert read(f'{{"inputs": [{text}{more}]}}', x="float64")["x"][0] == float(text)
        assert fill(f'{{"examples": [{{"x": {text}}}]}}'.encode())["x"].float_list.value == [np.float32(text)]
    assert read('{"inputs": [18446744073709551615]}', x="uint64")["x"] == 2**64 - 1
    assert (
        refusal('{"inputs": [NaN, 1e400]}', x="float64") == "JSON Parse error: Number too big to be stored in double."
    )


@pytest.mark.parametrize("value", [16777217, 1700000001, 3.5e38, -1e300, 0.1, 2**62 + 1, 2**64 - 1])
def test_a_number_becomes_the_nearest_float(value: float) -> None:
    with np.errstate(over="ignore"):
        expected = np.float32(value)
    assert read(f'{{"instances": [{value}]}}', x="float32")["x"] == expected
    if isinstance(value, float):
        assert fill(f'{{"examples": [{{"x": {value}}}]}}'.encode())["x"].float_list.value == [expected]


def test_long_examples_are_read_in_parts() -> None:
    numbers, texts = list(range(25_000)), ["a"] * 15_000
    features = fill(json.dumps({"examples": [{"n": numbers, "t": texts, "f": [0.5] * 10_000, "none": []}]}).encode())
    assert features["n"].int64_list.value == numbers
    assert len(features["t"].bytes_list.value) == 15_000
    assert len(features["f"].float_list.value) == 10_000
    assert features["none"].WhichOneof("kind") is None


FLOATS = st.floats(width=32) | st.integers(-(2**40), 2**40).map(lambda n: float(np.float32(n)))


@settings(max_examples=200, deadline=None)
@given(values=st.lists(FLOATS, min_size=1, max_size=5))
def test_a_float32_is_written_so_that_it_reads_back_and_whole_ones_in_full(values: list[float]) -> None:
    text = json_responses.write_predictions({"y": np.array(values, np.float32)}, rows=True)
    for number, value in zip(json.loads(text)["predictions"], values, strict=True):
        assert np.float32(number) == np.float32(value) or math.isnan(value)
        if value.is_integer() and abs(value) < 1e16:
            assert number == value


def test_large_outputs_are_written_as_small_ones_are() -> None:
    values = np.random.default_rng(1).normal(size=(2, 70, 1000, 2)).astype(np.float32)
    values[0, 3, 500] = np.nan, 2**32
    for array in (values, values[:1], values.transpose(3, 0, 1, 2), values.reshape(-1)):
        text = json_responses.write_predictions({"y": array}, rows=True)
        np.testing.assert_array_equal(np.array(json.loads(text)["predictions"], np.float32), array)
        assert b"NaN,4294967296.0" in text or array.shape[0] == 2
    text = json_responses.write_predictions({"y": np.full(150_000, b"a", object)}, rows=False)
    assert json.loads(text) == {"outputs": ["a"] * 150_000}


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": Inf, "b": "' + b'\\"' * 500_000,
        b'{"instances": [' + b",".join([b"[" * 900 + b"{}" + b"]" * 900] * 5000) + b"]}",
    ],
    ids=["a string without an end", "deep lists"],
)
def test_what_is_made_to_be_slow_is_not(body: bytes) -> None:
    """It would take an hour, and minutes."""
    start_s = time.perf_counter()
    with suppress(StatusError):
        parse(body)
    assert time.perf_counter() - start_s < 30
