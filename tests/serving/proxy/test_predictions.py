"""What is read of requests and responses, whatever they look like; what is not a classifier's is nothing."""

import base64
import gzip
import hashlib
import json
import math
from typing import Any

import pytest

from serving.proxy.predictions import Prediction, digest_all, estimate_drop, read_rest_photos, read_rest_predictions

JPEG, PNG = b"\xff\xd8one", b"\x89PNGtwo"
ROWS = [{"classes": ["a", "b"], "probabilities": [0.8, 0.2], "is_known": True}]
COLUMNS = {"classes": [["a", "b"]], "probabilities": [[0.8, 0.2]], "is_known": [True]}


def b64(image: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(image).decode()}


def digests(*images: bytes) -> list[str]:
    return [hashlib.sha256(image).hexdigest() for image in images]


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [b64(JPEG), b64(PNG)]},
        {"instances": [{"image_bytes": b64(JPEG)}, {"image_bytes": b64(PNG)}]},
        {"inputs": [b64(JPEG), b64(PNG)]},
        {"inputs": {"image_bytes": [b64(JPEG), b64(PNG)]}},
        {"signature_name": "serving_default", "inputs": {"image_bytes": [b64(JPEG), b64(PNG)]}},
    ],
)
def test_photos_are_known_by_the_sha256_of_their_files(body: Any) -> None:
    assert read_rest_photos(json.dumps(body).encode()) == digests(JPEG, PNG)


def test_photos_of_a_compressed_request_are_the_same_ones() -> None:
    body = gzip.compress(json.dumps({"instances": [b64(JPEG)]}).encode())
    assert read_rest_photos(body, "gzip") == digests(JPEG)
    for broken in (body[:-9], body[:9], b"none", gzip.compress(b" " * (1 << 27))):
        assert read_rest_photos(broken, "gzip") == []


def test_pixels_are_known_by_their_numbers() -> None:
    one, two = (read_rest_photos(json.dumps({"instances": [[[[value] * 3]]]}).encode()) for value in (1, 2))
    assert len(one) == len(two) == 1
    assert one != two


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"{}", b'{"instances"', b"[" * 100_000])
def test_request_that_is_none_has_no_photos(body: bytes) -> None:
    assert read_rest_photos(body) == []


def test_base64_that_is_none_is_a_photo_that_the_server_refuses() -> None:
    assert len(read_rest_photos(b'{"instances": [{"b64": "%"}, {"b64": 7}]}')) == 2


@pytest.mark.parametrize("document", [{"predictions": ROWS}, {"outputs": COLUMNS}])
def test_responses_in_rows_and_in_columns_say_the_same(document: Any) -> None:
    [found] = read_rest_predictions(json.dumps(document).encode())
    assert (found.label, dict(found.probabilities), found.is_known) == ("a", {"a": 0.8, "b": 0.2}, True)


@pytest.mark.parametrize(
    "document",
    [
        None, [], {}, {"predictions": []}, {"predictions": [0.1]}, {"outputs": 3}, {"error": "none"},
        {"outputs": {"classes": [["a"]], "probabilities": [[0.1, 0.9]]}},
        {"predictions": [{**ROWS[0], "probabilities": [math.nan, math.nan]}]},
        {"outputs": {"classes": [[]], "probabilities": [[]]}},
        {"outputs": {"classes": [["a"]], "probabilities": [["much"]]}},
    ],
)  # fmt: skip
def test_response_that_is_not_of_a_classifier_has_no_predictions(document: Any) -> None:
    assert read_rest_predictions(json.dumps(document).encode()) == []


def test_photos_of_a_request_go_together() -> None:
    assert digest_all(["one"]) == "one"
    assert digest_all(["one", "two"]) not in ("one", "two", digest_all(["two", "one"]))


def test_estimated_drop_has_the_other_sign_where_the_models_change_places() -> None:
    stable, canary = Prediction({"a": 0.9, "b": 0.1}), Prediction({"a": 0.4, "b": 0.6})
    assert estimate_drop(stable, canary) == pytest.approx(-estimate_drop(canary, stable)) == pytest.approx(0.3)
    assert estimate_drop(stable, stable) == 0
