"""Clients written for TensorFlow Serving, over REST: the requests of its own tests, every form of JSON, every refusal.

The models are those of `models.py`; `half_plus_two` is TensorFlow Serving's own.
"""

import json
import math
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serving.local_server.conftest import CALL_S, Server, wait_until, write_config

FLOAT = "is not of expected type: float"


def element(position: Any, reason: str) -> str:
    return f"Failed to process element: {position} of 'instances' list. Error: INVALID_ARGUMENT: {reason}"


def echo(server: Server, dtype: str, form: str, value: Any) -> tuple[int, Any]:
    return server.predict("echo", **{"signature_name": dtype, form: value})


# The requests of TensorFlow Serving's own tests: tensorflow_model_server_test.py and http_rest_api_handler_test.cc.


@pytest.mark.parametrize(
    ("method", "body", "expected"),
    [
        ("predict", {"instances": [2.0, 3.0, 4.0]}, {"predictions": [3.0, 3.5, 4.0]}),
        ("predict", {"inputs": [2.0, 3.0, 4.0]}, {"outputs": [3.0, 3.5, 4.0]}),
        ("predict", {"instances": [[1.0, 2.0], [3.0, 4.0]]}, {"predictions": [[2.5, 3.0], [3.5, 4.0]]}),
        ("predict", {"signature_name": "serving_default", "instances": [3.0]}, {"predictions": [3.5]}),
        ("predict", {"signature_name": "", "inputs": {"x": [3.0]}}, {"outputs": [3.5]}),
        ("predict", {"instances": [{"x": 2.0}, {"x": 3}]}, {"predictions": [3.0, 3.5]}),
        ("classify", {"signature_name": "classify_x_to_y", "examples": [{"x": 2.0}]}, {"results": [[["", 3.0]]]}),
        ("regress", {"signature_name": "regress_x_to_y", "examples": [{"x": 80.0}]}, {"results": [42.0]}),
        ("regress", {"signature_name": "regress_x_to_y2", "examples": [{"x": [2.0]}, {"x": 4.0}]}, {"results": [4, 5]}),
    ],
)
def test_a_request_and_its_response(server, method, body, expected):
    for model in ("default", "default/versions/123"):
        assert server.post(f"/v1/models/{model}:{method}", body) == (200, expected)


def test_status(server):
    status = {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in ("default", "default/versions/123", "default/labels/any"):
        assert server.get(f"/v1/models/{path}") == (200, {"model_version_status": [status]})


def describe(name: str, dtype: str, *sizes: int) -> dict[str, Any]:
    shape = {"dim": [{"size": str(size), "name": ""} for size in sizes], "unknown_rank": not sizes}
    return {"name": name, "dtype": dtype, "tensor_shape": shape}


def test_metadata_is_what_tensorflow_serving_writes(server):
    """Its half_plus_two_model_metadata.json, with the field that signatures have since got, `defaults`."""
    x, y, y2 = (describe(f"{name}:0", "DT_FLOAT", -1, 1) for name in ("x", "y", "y2"))
    examples = describe("tf_example:0", "DT_STRING")
    signatures = {
        "serving_default": ("predict", {"x": x}, {"y": y}),
        "classify_x_to_y": ("classify", {"inputs": examples}, {"scores": y}),
        "regress_x_to_y": ("regress", {"inputs": examples}, {"outputs": y}),
        "regress_x_to_y2": ("regress", {"inputs": examples}, {"outputs": y2}),
        "regress_x2_to_y3": (
            "regress",
            {"inputs": describe("x2:0", "DT_FLOAT", -1, 1)},
            {"outputs": describe("y3:0", "DT_FLOAT", -1, 1)},
        ),
    }
    expected = {
        name: {"inputs": inputs, "outputs": outputs, "method_name": f"tensorflow/serving/{method}", "defaults": {}}
        for name, (method, inputs, outputs) in signatures.items()
    }
    for model in ("default", "default/versions/123"):
        assert server.get(f"/v1/models/{model}/metadata") == (
            200,
            {
                "model_spec": {"name": "default", "signature_name": "", "version": "123"},
                "metadata": {"signature_def": {"signature_def": expected}},
            },
        )


def test_metadata_of_a_tensorflow_2_model_names_its_init_operation(server):
    found = server.get("/v1/models/module/metadata")[1]["metadata"]["signature_def"]["signature_def"]
    assert set(found) == {"serving_default", "scalar", "__saved_model_init_op"}
    assert found["__saved_model_init_op"]["outputs"]["__saved_model_init_op"] == describe("NoOp", "DT_INVALID")


@pytest.mark.parametrize(
    ("model", "prediction", "version"),
    [
        ("two_versions", 4.0, "2"),
        ("two_versions/versions/1", 3.0, "1"),
        ("two_versions/versions/002", 4.0, "2"),
        ("two_versions/labels/stable", 3.0, "1"),
        ("two_versions/labels/c%61nary", 4.0, "2"),
    ],
)
def test_a_path_names_a_version_by_number_or_label(server, model, prediction, version):
    path = f"/v1/models/{model}"
    assert server.post(f"{path}:predict", {"instances": [2.0]}) == (200, {"predictions": [prediction]})
    assert server.get(f"{path}/metadata")[1]["model_spec"]["version"] == version
    versions = [each["version"] for each in server.get(path)[1]["model_version_status"]]
    # As in TensorFlow Serving, a label does not narrow what is asked.
    assert versions == ([version] if "/versions/" in model else ["2", "1"])


def test_names_may_be_percent_encoded_and_paths_in_capitals(server):
    assert server.predict("grüße & mehr", instances=[2.0]) == (200, {"predictions": [3.0]})
    assert server.post("/v1/models/d%65fault:predict", {"instances": [2.0]}) == (200, {"predictions": [3.0]})
    assert server.post("/V1/Models/default/VERSIONS/123:predict", {"instances": [2.0]})[0] == 200
    assert server.get("/v1/models/Default")[0] == 404


# Forms of JSON: json_tensor_test.cc.


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("bool", [True, False]),
        ("int8", [-128, 127]),
        ("int16", [-32768, 32767]),
        ("int32", [-(2**31), 2**31 - 1]),
        ("int64", [-(2**63), 2**63 - 1, 0]),
        ("uint8", [0, 255]),
        ("uint16", [0, 65535]),
        ("uint32", [0, 2**32 - 1]),
        ("uint64", [0, 2**64 - 1]),
        ("float16", [0.5, -2.0]),
        ("bfloat16", [0.5, -2.0]),
        ("float32", [0.1, -3e-05, 123456.79, 9e06, 1e-45, 1e38, 16777215.0, -16777215.0]),
        ("float64", [0.1, 1e300, 5e-324, 1 / 3]),
        ("string", ["", "grüße", 'a "quoted" line\n', "\U0001f337", "\x00"]),
    ],
)
def test_values_come_back_as_they_were(server, dtype, values):
    assert echo(server, dtype, "instances", values) == (200, {"predictions": values})
    nested = [[values, values]]
    assert echo(server, dtype, "instances", nested) == (200, {"predictions": nested})
    assert echo(server, dtype, "inputs", {"x": nested}) == (200, {"outputs": nested})
    assert echo(server, dtype, "inputs", values[0]) == (200, {"outputs": values[0]})
    assert echo(server, dtype, "inputs", []) == (200, {"outputs": []})
    assert echo(server, dtype, "instances", [[], []]) == (200, {"predictions": [[], []]})


def test_numbers_are_written_with_the_digits_that_matter(server):
    response = server.request(
        "POST", "/v1/models/echo:predict", '{"signature_name": "float32", "inputs": [0.1, 2, 16777215, 1e10, -0.0]}'
    )
    assert response.text.replace(" ", "").strip() == '{"outputs":[0.1,2.0,16777215.0,10000000000.0,-0.0]}'
    # Beyond 64 bits a whole number is a decimal, as RapidJSON has it.
    assert echo(server, "float64", "inputs", 10**23) == (200, {"outputs": 1e23})
    assert echo(server, "float32", "inputs", [1e-50, 3.4028234e38]) == (200, {"outputs": [0.0, 3.4028235e38]})


@pytest.mark.parametrize(
    ("dtype", "value", "nearest"),
    [
        ("float32", 16777217, "16777216.0"),
        ("float32", 1700000001, "1700000000.0"),
        ("float32", 134217744, "134217744.0"),
        ("float32", -(2**32), "-4294967296.0"),
        ("float32", 2**64 - 1, "1.8446744e+19"),
        ("float32", -3.5e38, "-Infinity"),
        ("float64", 2**53 + 1, "9007199254740992.0"),
        ("float64", 10**30, "1e+30"),
        ("float16", 7e4, "Infinity"),
        ("float16", 65503, "65504.0"),
        ("bfloat16", 257, "256.0"),
    ],
)
def test_a_number_becomes_the_nearest_one_of_its_type(server, dtype, value, nearest):
    response = server.request(
        "POST", "/v1/models/echo:predict", {"signature_name": dtype, "inputs": [value, 0.5, value]}
    )
    assert response.text == f'{{"outputs":[{nearest},0.5,{nearest}]}}'


def test_numbers_that_are_none_pass_in_and_out(server):
    for dtype in ("float32", "float64"):
        body = f'{{"signature_name": "{dtype}", "instances": [NaN, Infinity, -Infinity, 1.0]}}'
        response = server.request("POST", "/v1/models/echo:predict", body)
        assert response.status_code == 200
        assert "NaN,Infinity,-Infinity,1.0" in response.text
    status, response = server.post(
        "/v1/models/judge:regress", {"signature_name": "regress", "examples": [{"x": math.inf}, {"x": math.nan}]}
    )
    assert (status, response["results"][0], math.isnan(response["results"][1])) == (200, math.inf, True)


def test_bytes_are_base64(server):
    jpeg = {"b64": "/9j/AA=="}
    assert echo(server, "bytes", "instances", [jpeg, {"b64": ""}]) == (200, {"predictions": [jpeg, {"b64": ""}]})
    assert echo(server, "bytes", "inputs", jpeg) == (200, {"outputs": jpeg})
    assert echo(server, "bytes", "instances", [{"image_bytes": [jpeg]}]) == (200, {"predictions": [[jpeg]]})
    assert echo(server, "string", "instances", [{"b64": "aGVsbG8="}, "world"]) == (
        200,
        {"predictions": ["hello", "world"]},
    )
    assert echo(server, "string", "instances", [[{"b64": "aGVsbG8"}], [{"b64": "d29y\nbGQ="}]]) == (
        200,
        {"predictions": [["hello"], ["world"]]},
    )
    status, response = echo(server, "string", "instances", [jpeg])
    assert (status, "�" in response["predictions"][0]) == (200, True)


def test_several_inputs_and_outputs_are_named(server):
    rows = [
        {"ids": 1, "text": "a", "flags": True, "halves": [1, 2]},
        {"ids": 2, "text": {"b64": "Yg=="}, "flags": False, "halves": [0.5, 0.25]},
    ]
    first = {"next": 2, "shout": "A", "shout_bytes": {"b64": "QQ=="}, "not": False, "sum": 3.0, "line": 0}
    second = {"next": 3, "shout": "B", "shout_bytes": {"b64": "Qg=="}, "not": True, "sum": 0.75, "line": 1}
    assert server.predict("module", instances=rows) == (200, {"predictions": [first, second]})
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    expected = {name: [first[name], second[name]] for name in first}
    assert server.predict("module", inputs=columns | {"unknown": 1}) == (200, {"outputs": expected})
    assert server.predict("module", signature_name="scalar", inputs=1.5) == (
        200,
        {"outputs": {"double": 3.0, "name": "1.500000"}},
    )


def test_large_requests(server):
    values = np.random.default_rng(1).normal(size=(300, 100)).astype(np.float32).tolist()
    status, response = echo(server, "float32", "instances", values)
    assert status == 200
    np.testing.assert_array_equal(np.float32(response["predictions"]), np.float32(values))


def test_examples(server):
    examples = [
        {"x": 1.5, "n": 3, "query": "tulip"},
        {"x": [2.0], "n": True, "query": {"b64": "cm9zZQ=="}},
        {"x": [], "unknown": ["a", "b"]},
    ]
    assert server.post("/v1/models/judge:classify", {"examples": examples}) == (
        200,
        {
            "results": [
                [["tulip", 1.5], ["TULIP", 3.0]],
                [["rose", 2.0], ["ROSE", 1.0]],
                [["none", -1.0], ["NONE", -1.0]],
            ]
        },
    )
    context = {"query": "daisy", "n": 4}
    assert server.post("/v1/models/judge:classify", {"context": context, "examples": [{"x": 0.1}, {"n": 5}]}) == (
        200,
        {"results": [[["daisy", 0.1], ["DAISY", 4.0]], [["daisy", -1.0], ["DAISY", 5.0]]]},
    )
    body = {"signature_name": "native_regress", "examples": examples}
    assert server.post("/v1/models/judge:regress", body) == (200, {"results": [1.5, 2.0, -1.0]})


def test_bodies_may_come_in_pieces_and_of_any_type(server):
    url = f"{server.url}/v1/models/default:predict"
    for options in (
        {"data": iter([b'{"inst', b'ances": [2.0]}'])},
        {"json": {"instances": [2.0]}},
        {"data": b'{"instances": [2.0]}', "headers": {"Content-Type": "text/plain", "Expect": "100-continue"}},
        {"data": b'\xef\xbb\xbf{"instances": [2.0]}'},
    ):
        assert server.session.post(url, timeout=CALL_S, **options).json() == {"predictions": [3.0]}


# Refused requests, in the order of the checks.


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("", "The document is empty"),
        (" ", "The document is empty. at offset: 1"),
        ('{"a": 1.}', "Miss fraction part in number. at offset: 8"),
        ('{"a": [1e+]}', "Miss exponent in number. at offset: 10"),
        ("instances = [1, 2]", "Invalid value. at offset: 0"),
        ('{"instances": [1, 2', "Missing a comma or ] after an array element. at offset: 19"),
        ('{"instances": [1.0,]}', "Invalid value. at offset: 19"),
        ('{"instances": [1.0] "x"}', "Missing a comma or } after an object member. at offset: 20"),
        ('{"a]": {"b": 1 2}}', "Missing a comma or } after an object member. at offset: 15"),
        ('{"a": 1,}', "Missing a name for object member. at offset: 8"),
        ("{", "Missing a name for object member. at offset: 1"),
        ("{a: 1}", "Missing a name for object member. at offset: 1"),
        ("{'a': 1}", "Missing a name for object member. at offset: 1"),
        ('{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        ('{"instances"', "Missing a colon after a name of object member. at offset: 12"),
        ('{"instances": [1.0]} x', "The document root must not be followed by other values. at offset: 21"),
        ('{"a": "x', "Missing a closing quotation mark in string. at offset: 6"),
        ('{"a": "\\q"}', "Invalid escape character in string. at offset: 7"),
        ('{"a": "\\ud8zz"}', "Incorrect hex digit after \\u escape in string. at offset: 8"),
        (b'{"a": "\n"}', "Invalid encoding in string. at offset: 7"),
        (b'{"a\xff": \xff}', "Invalid value. at offset: 7"),
        ('{"ü": +1}', "Invalid value. at offset: 7"),
        ('{"a": [nan]}', "Invalid value. at offset: 7"),
        ('{"a": [Inf, -NaN, x]}', "Invalid value. at offset: 18"),
        ('{"a": 1}'.encode("utf-16"), "Invalid value. at offset: 0"),
        (b'{"a": "x\0y"}', "Missing a closing quotation mark in string. at offset: 6"),
        ('{"instances": ["\\ud800"]}', "The surrogate pair in string is invalid."),
        ('{"instances": ["\\ud800\\u0041"]}', "The surrogate pair in string is invalid."),
        ('{"signature_name": "\\udc00"}', "The surrogate pair in string is invalid."),
        ('{"instances": [{"\\ud800": 1}]}', "The surrogate pair in string is invalid."),
        ('{"instances": [1e400]}', "Number too big to be stored in double."),
        ('{"instances": [-1e+999]}', "Number too big to be stored in double."),
        ('{"instances": [0.1e99999]}', "Number too big to be stored in double."),
        ('{"instances": [' + "1" * 5000 + "]}", "Number too big to be stored in double."),
        ("[" * 100_000, "The document is nested too deeply."),
        ('{"a":' * 100_000, "The document is nested too deeply."),
    ],
)
def test_what_is_no_json_is_refused_first_of_all(server, body, error):
    for path in ("default:predict", "nobody:predict", "default:classify"):
        assert server.post(f"/v1/models/{path}", body) == (400, {"error": f"JSON Parse error: {error}"})


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("nobody", 404, "Servable not found for request: Latest(nobody)"),
        ("nobody/versions/3", 404, "Servable not found for request: Specific(nobody, 3)"),
        ("default/versions/9", 404, "Servable not found for request: Specific(default, 9)"),
        ("default/labels/old", 400, "Unrecognized servable version label: old"),
        ("nobody/labels/stable", 400, "Unrecognized servable version label: stable"),
    ],
)
def test_an_unknown_model_is_refused_before_the_keys_are_looked_at(server, path, status, error):
    assert server.post(f"/v1/models/{path}:predict", {"neither": 1}) == (status, {"error": error})
    assert server.get(f"/v1/models/{path}/metadata") == (status, {"error": error})
    for method in ("classify", "regress"):
        assert server.post(f"/v1/models/{path}:{method}", {"examples": [{}]}) == (status, {"error": error})


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("nobody", "Could not find any versions of model nobody"),
        ("a%2Fb%20c", "Could not find any versions of model a/b c"),
        ("default/versions/9", "Could not find version 9 of model default"),
        ("x" * 50_000, f"Could not find any versions of model {'x' * 963}…"),
    ],
)
def test_status_of_what_is_not_there(server, path, error):
    assert server.get(f"/v1/models/{path}") == (404, {"error": error})


PRETTY = '{{\n    "{}": {}\n}}'


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("3", "JSON Value: 3 Is not object"),
        ("null", "JSON Value: null Is not object"),
        ('["a"]', 'JSON Value: [\n    "a"\n] Is not object'),
        (
            '{"signature_name": 100}',
            f"JSON Value: {PRETTY.format('signature_name', 100)} not formatted correctly. 'signature_name' key must be "
            "a string value.",
        ),
        ('{"signature_name": "s"}', 'Serving signature name: "s" not found in signature def'),
        ("{}", "Missing 'inputs' or 'instances' key"),
        ('{"examples": [1.0]}', "Missing 'inputs' or 'instances' key"),
        (
            '{"instances": 1, "inputs": 2}',
            'JSON Value: {\n    "instances": 1,\n    "inputs": 2\n} Not formatted correctly expecting only one of '
            "'inputs' or 'instances' keys to exist ",
        ),
        (
            '{"instances": {"x": 1}}',
            'JSON Value: {\n    "instances": {\n        "x": 1\n    }\n} Excepting \'instances\' to be an list/array',
        ),
        (
            '{"instances": 1}',
            f"JSON Value: {PRETTY.format('instances', 1)} Excepting 'instances' to be an list/array",
        ),
        ('{"instances": []}', f"JSON Value: {PRETTY.format('instances', '[]')} No values in 'instances' array"),
        # Rows.
        ('{"instances": ["x"]}', element(0, f'JSON Value: "x" Type: String {FLOAT}')),
        ('{"instances": [1, true]}', element(1, f"JSON Value: true Type: True {FLOAT}")),
        ('{"instances": [1, 2, null]}', element(2, f"JSON Value: null Type: Null {FLOAT}")),
        (
            '{"instances": [{"b64": "AA=="}]}',
            element(0, f"JSON Value: {PRETTY.format('b64', json.dumps('AA=='))} Type: Object {FLOAT}"),
        ),
        ('{"instances": [[1], ["a"]]}', element(1, f'JSON Value: "a" Type: String {FLOAT}')),
        ('{"instances": [[1, 2], [3]]}', element(1, "Expecting tensor size: 2 but got: 1")),
        ('{"instances": [[1, 2], [[3, 4]]]}', element(1, "Expecting shape [2] but got: [1,2]")),
        ('{"instances": [1, [2]]}', element(1, "Expecting shape [] but got: [1]")),
        ('{"instances": [[1], 2]}', element(1, "Expecting shape [1] but got: []")),
        (
            '{"instances": [[[1], [2, 3]]]}',
            element(0, "Encountered list at unexpected size: 2 at level: 1 expected size: 1"),
        ),
        ('{"instances": [{"x": 1}, 2]}', "Expecting object but got list at item 1 of input list"),
        ('{"instances": [1, {"x": 2}]}', "Expecting value/list but got object at item 1 of input list"),
        ('{"instances": [{"x": 1}, {"x": "a"}]}', element("1 key: x", f'JSON Value: "a" Type: String {FLOAT}')),
        ('{"instances": [{"x": [1]}, {"x": [1, 2]}]}', element("1 key: x", "Expecting tensor size: 1 but got: 2")),
        ('{"instances": [{"z": 1}]}', element("0 key: z", "JSON object: does not have named input: z")),
        ('{"instances": [{"x": 1, "z": 2}]}', element("0 key: z", "JSON object: does not have named input: z")),
        (
            '{"instances": [{}]}',
            "Failed to process element: 0 of 'instances' list. JSON object: {} keys must be equal to: x",
        ),
        # Columns.
        ('{"inputs": {"z": [1]}}', "Missing named input: x in 'inputs' object."),
        ('{"inputs": "a"}', f'JSON Value: "a" Type: String {FLOAT}'),
        ('{"inputs": {"x": {"y": 1}}}', f"JSON Value: {PRETTY.format('y', 1)} Type: Object {FLOAT}"),
        ('{"inputs": {"b64": "aGk="}}', f"JSON Value: {PRETTY.format('b64', json.dumps('aGk='))} Type: Object {FLOAT}"),
        ('{"inputs": [[1], [2, 3]]}', "Encountered list at unexpected size: 2 at level: 1 expected size: 1"),
        ('{"inputs": [1, [2]]}', "Encountered list at unexpected level: 1 expected < 1"),
        ('{"inputs": [[1], 2]}', "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        (
            '{"inputs": ' + "[" * 100 + "1" + "]" * 100 + "}",
            "Encountered list at unexpected level: 64 expected < 64",
        ),
    ],
)
def test_predict_refuses(server, body, error):
    assert server.post("/v1/models/default:predict", body) == (400, {"error": error})


@pytest.mark.parametrize(
    ("value", "kind", "dtype"),
    [
        ("true", "True", "float"),
        ("false", "False", "int32"),
        ("1", "Number", "bool"),
        ("1", "Number", "string"),
        ('"1"', "String", "int64"),
        ("1.5", "Number", "int32"),
        ("1.0", "Number", "uint8"),
        ("NaN", "Number", "int32"),
        ("null", "Null", "string"),
        ("{}", "Object", "double"),
    ],
)
def test_a_value_of_another_type_is_refused(server, value, kind, dtype):
    signature = {"float": "float32", "double": "float64"}.get(dtype, dtype)
    body = f'{{"signature_name": "{signature}", "inputs": [{value}]}}'
    error = f"JSON Value: {value} Type: {kind} is not of expected type: {dtype}"
    assert server.post("/v1/models/echo:predict", body) == (400, {"error": error})


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_whole_numbers_beyond_their_type_are_refused(server, dtype):
    for value in (np.iinfo(dtype).min - 1, np.iinfo(dtype).max + 1, 10**30):
        # Beyond 64 bits it is a decimal.
        shown = value if -(2**63) <= value < 2**64 else float(value)
        error = f"JSON Value: {shown} Type: Number is not of expected type: {dtype}"
        assert echo(server, dtype, "inputs", [0, value]) == (400, {"error": error})


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"b64": "%"}, "Unable to base64 decode"),
        ({"b64": "aGk=aGk="}, "Unable to base64 decode"),
        ({"b64": 5}, f"JSON Value: {PRETTY.format('b64', 5)} not formatted correctly for base64 data"),
        (
            {"b64": "aGk=", "x": 1},
            'JSON Value: {\n    "b64": "aGk=",\n    "x": 1\n} not formatted correctly for base64 data',
        ),
    ],
)
def test_what_is_no_base64_is_refused(server, value, error):
    assert echo(server, "string", "inputs", [value]) == (400, {"error": error})


@pytest.mark.parametrize(
    ("model", "body", "status", "error"),
    [
        (
            "echo",
            {"signature_name": "complex64", "inputs": [1]},
            501,
            "Conversion of JSON Value: [\n    1\n] to ",
        ),
        (
            "echo",
            {"signature_name": "uneven", "instances": ["a"]},
            400,
            "Tensor name: z has inconsistent batch size: 3 expecting: 2",
        ),
        ("echo", {"instances": ["a"]}, 400, 'Serving signature name: "serving_default" not found in signature def'),
        ("exported", {"instances": [[1, 2]]}, 400, "Matrix size-incompatible: In[0]: [1,2], In[1]: [3,2]"),
        ("module", {"instances": [1]}, 400, "instances is a plain list, but expecting list of objects as multiple "),
        ("module", {"inputs": [1]}, 400, "inputs is a plain value/list, but expecting an object as multiple input "),
        ("module", {"inputs": {"ids": [1]}}, 400, "Missing named input: "),
        (
            "module",
            {"instances": [{"ids": 1}]},
            400,
            "Failed to process element: 0 of 'instances' list. JSON object: {\n    \"ids\": 1\n} keys must be equal to"
            ": flags,halves,ids,text",
        ),
        (
            "module",
            {"signature_name": "__saved_model_init_op", "instances": [1]},
            400,
            "Failed to get input map for signature: __saved_model_init_op",
        ),
        ("refused", {"signature_name": "ragged", "instances": [1]}, 400, "A signature's inputs must be plain tensors."),
        ("refused", {"signature_name": "incomplete", "instances": [1]}, 400, "You must feed a value for placeholder "),
        (
            "default",
            {"signature_name": "regress_x_to_y", "instances": [{"b64": "/w=="}]},
            400,
            "Could not parse example input, value: ",
        ),
    ],
)
def test_models_and_signatures_refuse(server, model, body, status, error):
    found, response = server.predict(model, **body)
    assert (found, response["error"][: len(error)]) == (status, error)


EXAMPLES = "When method is classify, key 'examples' is expected and was not found"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, f"JSON Value: {{}} {EXAMPLES}"),
        ({"instances": 1}, f"JSON Value: {PRETTY.format('instances', 1)} {EXAMPLES}"),
        ({"examples": 3}, f"JSON Value: {PRETTY.format('examples', 3)} Expecting 'examples' value to be an list/array"),
        ({"examples": []}, f"JSON Value: {PRETTY.format('examples', '[]')} 'examples' value is an empty array"),
        ({"context": [1]}, "Example must be JSON object but got JSON Array"),
        ({"examples": [{}], "context": "a"}, "Example must be JSON object but got JSON String"),
        ({"examples": [3]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [{"x": None}]}, "Feature: x has element with unexpected JSON type: Null"),
        ({"examples": [{"x": [10, None]}]}, "Feature: x has element with unexpected JSON type: Null"),
        ({"examples": [{"x": [10, 10.0]}]}, "Unexpected element type in feature: x expecting type: int64"),
        ({"examples": [{"x": ["a", 1]}]}, "Unexpected element type in feature: x expecting type: bytes"),
        ({"examples": [{"x": {"test": 10}}]}, "Feature: x has element with unexpected JSON type: Object"),
        ({"examples": [{"x": [[10], 20]}]}, "Feature: x has element with unexpected JSON type: Array"),
        ({"examples": [{"x": 2**63}]}, "Feature: x has uint64 element. Only int64 is supported."),
        ({"examples": [{"x": 2**64 - 1}]}, "Feature: x has uint64 element. Only int64 is supported."),
        ({"signature_name": "s", "examples": [{}]}, "No signature was found with the name: s"),
    ],
)
@pytest.mark.parametrize("method", ["classify", "regress"])
def test_classify_and_regress_refuse(server, method, body, error):
    assert server.post(f"/v1/models/judge:{method}", body) == (400, {"error": error})


@pytest.mark.parametrize(
    "request_of",
    [
        "GET /v1/foo",
        "POST /v1/foo",
        "POST /v1/models",
        "GET /v1/models/",
        "GET /v1/models/default/",
        "GET /v1/models/debug/default",
        "GET /v1/models/default:predict",
        "PUT /v1/models/default:predict",
        "DELETE /v1/models/default",
        "PATCH /v1/models/default:predict",
        "POST /v1/models/default:predict?x=1",
        "POST /v1/models/:predict",
        "GET /v1/models//metadata",
        "POST /v1/models/default",
        "POST /v1/models/default/metadata",
        "POST /v1/models/default:explain",
        "POST /v1/models/default:PREDICT",
        "POST /v1/models/default/version/123:predict",
        "POST /v1/models/default/versions/one:predict",
        "POST /v1/models/default/versions/-1:predict",
        "POST /v1/models/default/versions/1/labels/stable:predict",
        "GET /v1/models/default/label/stable",
    ],
)
def test_a_wrong_method_or_path_is_malformed(server, request_of):
    response = server.request(*request_of.split(" "), body='{"instances": [1.0]}')
    assert (response.status_code, response.json()) == (400, {"error": f"Malformed request: {request_of}"})
    assert response.headers["Content-Type"] == "application/json"


def test_a_query_belongs_to_the_path(server):
    for path in ("default?x=1", "default?x=/y"):
        status, response = server.get(f"/v1/models/{path}")
        assert status in (400, 404)
        assert path in response["error"]


def test_a_malformed_request_is_counted_for_no_model(server):
    def count() -> float:
        line = r'^:tensorflow:serving:request_count{model_name="",status="INVALID_ARGUMENT"} (.*)$'
        found = re.search(line, metrics(server), re.MULTILINE)
        return float(found[1]) if found else 0.0

    before = count()
    assert server.get("/v1/foo")[0] == 400
    assert count() == before + 1


def test_a_path_without_a_model_or_with_too_large_a_version(server):
    assert server.get("/v1/models") == (400, {"error": "Missing model name in request."})
    for version in (str(2**63), str(2**64 - 1), "9" * 5000):
        status, response = server.get(f"/v1/models/default/versions/{version}")
        assert (status, response["error"][:66]) == (400, f"Failed to convert version: {version} to numeric."[:66])
        assert server.post(f"/v1/models/default/versions/{version}:predict", {}) == (status, response)


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/models/default", "/metrics", "//v1/models/default", "/healthz/"])
def test_other_paths_are_not_found(server, path):
    for method in ("GET", "POST"):
        # requests would make one slash of two.
        request = urllib.request.Request(server.url + path, method=method)
        with pytest.raises(urllib.error.HTTPError, match="404") as response:
            urllib.request.urlopen(request, timeout=CALL_S)
        response.value.close()


def test_health_does_not_depend_on_a_model(server):
    response = server.request("GET", "/healthz")
    assert (response.status_code, response.text) == (200, "ok\n")


# Metrics, and what flags switch on.


def metrics(server: Server) -> str:
    response = server.request("GET", "/monitoring/prometheus/metrics")
    assert (response.status_code, response.headers["Content-Type"].split(";")[0]) == (200, "text/plain")
    return response.text


def test_requests_are_counted_by_model_and_status(server):
    server.predict("half_plus_three", instances=[1.0])
    server.predict("half_plus_three", instances=["a"])
    page = metrics(server)
    for status in ("OK", "INVALID_ARGUMENT"):
        assert f'\n:tensorflow:serving:request_count{{model_name="half_plus_three",status="{status}"}} ' in page
    labels = 'API="predict",entrypoint="REST",model_name="half_plus_three"'
    assert f":tensorflow:serving:request_latency_count{{{labels}}} " in page


def test_names_that_are_not_served_make_no_metrics(server):
    for i in range(3):
        assert server.predict(f"nobody{i}", instances=[1.0])[0] == 404
    assert "nobody" not in metrics(server)


@pytest.fixture(scope="module")
def other(other_server: tuple[Server, Path], models_dir: Path) -> Iterator[Server]:
    """The server with the flags that are off by default, serving a model that blocks."""
    server, config = other_server
    write_config(config, {"default": models_dir / "half_plus_two", "block": models_dir / "block"})
    wait_until(lambda: server.get("/v1/models/block")[0] == 200 and server.get("/v1/models/default")[0] == 200)
    wait_until(lambda: server.get("/v1/models/block")[1]["model_version_status"][0]["state"] == "AVAILABLE")
    return server


def test_pages_of_other_sites_may_call_where_a_flag_says_so(server, other):
    origin = {"Origin": "https://example.org"}
    for method, path in (("OPTIONS", "default:predict"), ("GET", "default"), ("GET", "nobody"), ("POST", "default:x")):
        headers = other.request(method, f"/v1/models/{path}", headers=origin).headers
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert headers["Access-Control-Allow-Methods"] == "POST, GET"
        assert headers["Access-Control-Allow-Headers"] == "Content-Type"
    assert "Access-Control-Allow-Origin" not in server.request("GET", "/v1/models/default").headers


def test_options_ask_whether_a_page_may_call_and_so_name_it(server, other):
    for asked, may_call in ((server, False), (other, True)):
        for headers, status in (({"Origin": "http://example.org"}, 200), ({"Origin": "null"}, 400), ({}, 400)):
            response = asked.request("OPTIONS", "/v1/models/default:predict", headers=headers)
            assert (response.status_code, response.content) == (status, b"")
            assert ("Access-Control-Allow-Origin" in response.headers) == may_call


def test_a_request_that_takes_too_long_is_given_up(other):
    status, response = other.predict("block", instances=[1.0])
    assert (status, response) == (504, {"error": "Timed out waiting for notification"})

    def is_served() -> bool:
        # What was given up is at its end, and may still take what releases the next one.
        assert other.predict("block", signature_name="release", instances=[1.0])[0] == 200
        return other.predict("block", instances=[1.0]) == (200, {"predictions": [1.0]})

    wait_until(is_served)


def test_metrics_have_a_path_where_none_is_configured(other):
    assert "# TYPE" in metrics(other)


def test_a_number_of_many_zeros_is_a_version_like_any_other(server):
    assert server.get(f"/v1/models/default/versions/{'0' * 5000}123")[0] == 200
    assert server.get(f"/v1/models/default/versions/{'0' * 5000}")[0] == 404


def test_a_context_that_is_repeated_for_many_examples_is_bounded(server):
    body = {"signature_name": "regress", "context": {"query": "x" * 1_000_000}, "examples": [{}] * 100}
    status, response = server.post("/v1/models/judge:regress", body)
    assert (status, response["error"][:29]) == (400, "Examples may take 67108864 by")
