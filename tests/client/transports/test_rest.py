"""REST: images are sent without loss, a prediction's version is true, and other servers are recognised."""

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.classifier_client import (
    AnswerError,
    Client,
    DeadlineError,
    ModelNotFoundError,
    RefusedError,
    RestTransport,
    UnavailableError,
    preprocessing,
)
from client.classifier_client.transports import rest
from components.data import drawn_flowers
from tests.client import fakes
from tests.client.fakes import SIZE_PX, FakeRest

PHOTO = Image.fromarray(drawn_flowers.draw("tulips", seed=1, size_px=64))
METADATA, PREDICT = "GET /v1/models/flowers/metadata", "POST /v1/models/flowers/versions/{}:predict"


def classify(server: FakeRest, images: Any = PHOTO) -> list[Any]:
    return fakes.classify(server.connect(), images, batch_size=1)


def test_image_is_sent_as_a_png_without_loss(fake_rest: FakeRest) -> None:
    classify(fake_rest)
    encoded = fake_rest.requests[0]["inputs"][0]["b64"]
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as sent:
        assert sent.format == "PNG"
        expected = preprocessing.load(PHOTO, name="photo", size_px=SIZE_PX)
        np.testing.assert_array_equal(np.asarray(sent), np.asarray(expected))


def test_request_names_the_version_that_was_found(fake_rest: FakeRest) -> None:
    fake_rest.version = 41
    [prediction] = classify(fake_rest)
    assert fake_rest.calls == [METADATA, PREDICT.format(41)]
    assert prediction.model_version == "41"


def test_client_finds_the_new_version_when_the_old_one_is_gone(fake_rest: FakeRest) -> None:
    with Client(fake_rest.connect(), batch_size=1) as client:
        results: Any = client.classify([PHOTO, PHOTO, PHOTO])
        versions = [next(results).model_version]
        fake_rest.version = 2
        versions += [result.model_version for result in results]
    assert versions == ["1", "2", "2"]
    assert fake_rest.calls == [
        METADATA, PREDICT.format(1), PREDICT.format(1), METADATA, PREDICT.format(2), PREDICT.format(2)
    ]  # fmt: skip


def test_newer_version_beside_an_older_one_is_found_after_a_while(
    fake_rest: FakeRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "_DESCRIPTION_AGE_S", 0)
    classify(fake_rest, [PHOTO, PHOTO])
    assert fake_rest.calls.count(METADATA) >= 2


def test_model_that_is_gone_is_an_error(fake_rest: FakeRest) -> None:
    fake_rest.script.extend(["ok", "NOT_FOUND", "NOT_FOUND"])
    with pytest.raises(ModelNotFoundError, match="serves no model 'flowers'"):
        classify(fake_rest)
    assert fake_rest.calls == [METADATA, PREDICT.format(1), METADATA]


def test_name_of_a_model_may_be_anything(fake_rest: FakeRest) -> None:
    fake_rest.script.append("NOT_FOUND")
    with pytest.raises(ModelNotFoundError), Client(RestTransport(fake_rest.target, "a/b:c ü")) as client:
        list(client.classify(PHOTO))
    assert fake_rest.calls == ["GET /v1/models/a%2Fb%3Ac%20%C3%BC/metadata"]


@pytest.mark.parametrize(
    ("status", "content", "error", "message"),
    [
        (200, b"<html>hello</html>", AnswerError, r"is not TensorFlow Serving \(HTTP status 200: <html>hello</html>\)"),
        (200, b"[]", AnswerError, "is not TensorFlow Serving"),
        (200, b"", AnswerError, "is not TensorFlow Serving"),
        (200, b"{}", AnswerError, "must take square RGB images"),
        (302, b"", AnswerError, r"is not TensorFlow Serving \(HTTP status 302"),
        (404, b"Not\nFound", AnswerError, r"is not TensorFlow Serving \(HTTP status 404: Not Found\)"),
        (401, b"<html>who are you?</html>", RefusedError, "Check the token"),
        (403, b"", RefusedError, "Check the token"),
        (429, b'{"error": "queue full"}', RefusedError, r"\(RESOURCE_EXHAUSTED: queue full\)"),
        (418, b'{"error": "short and stout"}', RefusedError, r"\(HTTP status 418: short and stout\)"),
        (504, b"upstream timed out", DeadlineError, "must answer within 5 s"),
    ],
)
def test_other_responses_are_told_apart(
    fake_rest: FakeRest, status: int, content: bytes, error: type[Exception], message: str
) -> None:
    fake_rest.raw = status, content
    with pytest.raises(error, match=message):
        classify(fake_rest)
    assert fake_rest.calls == [METADATA]


def test_503_of_a_proxy_is_tried_again_too(fake_rest: FakeRest, waits: list[float]) -> None:
    fake_rest.raw = 503, b"<html>no healthy upstream</html>"
    with pytest.raises(UnavailableError, match="no healthy upstream"):
        classify(fake_rest)
    assert len(waits) == 3


@pytest.mark.parametrize("document", [{}, {"outputs": [[0.5, 0.5]]}, {"outputs": {"probabilities": [[1.0]]}}])
def test_model_without_the_two_outputs_is_an_error(
    fake_rest: FakeRest, monkeypatch: pytest.MonkeyPatch, document: Any
) -> None:
    respond = fake_rest.respond
    monkeypatch.setattr(fake_rest, "respond", lambda m, p, b: respond(m, p, b) if m == "GET" else (200, document))
    with pytest.raises(AnswerError, match="it sends"):
        classify(fake_rest)
