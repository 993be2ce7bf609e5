"""Batches, order, and a bad image among good ones, whatever the transport."""

import dataclasses
import gc
import io
import json
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client import classifier_client
from client.classifier_client import (
    Answer,
    AnswerError,
    ClassifierError,
    Client,
    ImageError,
    Prediction,
    UnavailableError,
)

CLASS_NAMES = ("red", "green", "blue")


class ColourTransport:
    """Predicts how red, green and blue an image is, and remembers how many images came at a time."""

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []
        self.is_closed = False

    def image_size_px(self) -> int:
        return 8

    def predict(self, images: Sequence[Image.Image]) -> list[Answer]:
        self.batch_sizes.append(len(images))
        assert all(image.size == (8, 8) and image.mode == "RGB" for image in images)
        means = [np.asarray(image).mean(axis=(0, 1)) / 255 for image in images]
        return [Answer(CLASS_NAMES, mean.tolist(), "7", 1.5) for mean in means]

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def transport() -> ColourTransport:
    return ColourTransport()


def colour(name: str) -> Image.Image:
    return Image.new("RGB", (5, 4), name)


def labels(results: Any) -> list[str]:
    return [result.label if isinstance(result, Prediction) else "error" for result in results]


def test_prediction_has_all_classes_the_most_probable_first(transport: ColourTransport) -> None:
    [prediction] = Client(transport).classify(Image.new("RGB", (5, 4), (51, 255, 102)))
    assert prediction == Prediction("image 1", "green", 1.0, {"green": 1.0, "blue": 0.4, "red": 0.2}, "7", 1.5)
    assert list(prediction.probabilities) == ["green", "blue", "red"]
    assert set(dataclasses.asdict(prediction)) == {
        "image", "label", "probability", "probabilities", "model_version", "latency_ms",
        "p_value", "is_known", "prediction_set",
    }  # fmt: skip


def test_images_of_all_forms_may_be_mixed_and_keep_their_order(transport: ColourTransport, tmp_path: Path) -> None:
    path = tmp_path / "blue.png"
    colour("blue").save(path)
    array = np.asarray(colour("red"))
    images = [path, str(path), array, path.read_bytes(), io.BytesIO(path.read_bytes()), colour("lime")]
    assert labels(Client(transport).classify(images)) == ["blue", "blue", "red", "blue", "blue", "green"]
    assert labels(Client(transport).classify(np.stack([array, array]))) == ["red", "red"]


def test_images_go_in_batches(transport: ColourTransport) -> None:
    images = [colour(name) for name in ("red", "lime", "blue") * 7]
    assert labels(Client(transport).classify(images)) == ["red", "green", "blue"] * 7
    assert transport.batch_sizes == [8, 8, 5]
    assert labels(Client(transport, batch_size=1).classify(images[:2])) == ["red", "green"]
    assert transport.batch_sizes[3:] == [1, 1]


def test_no_more_is_read_than_is_needed(transport: ColourTransport) -> None:
    num_read = 0

    def images() -> Any:
        nonlocal num_read
        while True:
            num_read += 1
            yield colour("red")

    results = Client(transport, batch_size=3).classify(images())
    assert num_read == 0
    assert labels([next(results) for _ in range(4)]) == ["red"] * 4
    assert num_read == 6


def test_bad_image_is_an_error_at_its_position_and_the_others_are_classified(transport: ColourTransport) -> None:
    images = [colour("red"), b"no image", "missing.jpg", colour("blue"), b""]
    results = list(Client(transport, batch_size=2).classify(images))
    assert labels(results) == ["red", "error", "error", "blue", "error"]
    errors = [result for result in results if isinstance(result, ImageError)]
    assert [error.image for error in errors] == ["image 2", "missing.jpg", "image 5"]
    assert [error.code for error in errors] == ["not_an_image", "unreadable", "empty"]
    assert str(errors[1]) == "missing.jpg: cannot be read (No such file or directory); check the path"
    # A batch of bad images alone is not sent.
    assert transport.batch_sizes == [1, 1]


def test_error_does_not_keep_the_image_in_memory(transport: ColourTransport) -> None:
    class Encoded(io.BytesIO):
        pass

    encoded = Encoded(b"no image")
    watch = weakref.ref(encoded)
    [error] = Client(transport).classify(encoded)
    assert isinstance(error, ImageError)
    del encoded
    gc.collect()
    assert watch() is None


def test_no_images_give_no_results(transport: ColourTransport) -> None:
    assert list(Client(transport).classify([])) == []
    assert transport.batch_sizes == []


def test_client_closes_its_transport(transport: ColourTransport) -> None:
    with Client(transport):
        assert not transport.is_closed
    assert transport.is_closed


def test_batch_size_is_at_least_one(transport: ColourTransport) -> None:
    with pytest.raises(ValueError, match=r"batch_size must be at least 1\. Received: 0"):
        Client(transport, batch_size=0)


@pytest.mark.parametrize(
    ("class_names", "probabilities", "message"),
    [
        (["a", "b"], [0.5], r"Received: 1 probabilities for \['a', 'b'\]"),
        (["a", "a"], [0.5, 0.5], r"Received: 2 probabilities for \['a', 'a'\]"),
        ([], [], "Received: 0 probabilities"),
        (["a", "b"], [0.5, float("nan")], r"A probability must be a number of 0 to 1\. Received: \[0\.5, nan\]"),
    ],
)
def test_invalid_output_is_an_error(
    transport: ColourTransport,
    monkeypatch: pytest.MonkeyPatch,
    class_names: list[str],
    probabilities: list[float],
    message: str,
) -> None:
    monkeypatch.setattr(transport, "predict", lambda _: [Answer(class_names, probabilities, "7", 1.0)])
    with pytest.raises(AnswerError, match=message):
        list(Client(transport).classify(colour("red")))


@pytest.mark.parametrize(
    "limits",
    [(0.5, True, None), (None, None, [True, False]), (0.5, None, [True, False]), (1.5, True, [True, False]),
     (0.5, True, [True]), (0.5, True, [False, True])],
)  # fmt: skip
def test_invalid_limits_are_an_error(
    transport: ColourTransport, monkeypatch: pytest.MonkeyPatch, limits: tuple[Any, ...]
) -> None:
    monkeypatch.setattr(transport, "predict", lambda _: [Answer(["a", "b"], [0.75, 0.25], "7", 1.0, *limits)])
    with pytest.raises(AnswerError, match="a set of its classes that holds the most probable one"):
        list(Client(transport).classify(colour("red")))


def test_prediction_set_has_the_most_probable_label_first(
    transport: ColourTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Answer(
        ["a", "b", "c"], np.array([0.25, 0.05, 0.7]), "7", 1.0, np.float32(0.5), np.True_, [True, False, True]
    )
    monkeypatch.setattr(transport, "predict", lambda _: [answer])
    [prediction] = Client(transport).classify(colour("red"))
    assert isinstance(prediction, Prediction)
    assert prediction.prediction_set == ("c", "a")
    assert json.dumps(dataclasses.asdict(prediction)), "Python's own types"


def test_every_error_is_a_classifier_error() -> None:
    errors = [getattr(classifier_client, name) for name in classifier_client.__all__ if name.endswith("Error")]
    assert UnavailableError in errors
    assert all(issubclass(error, ClassifierError) for error in errors)


def test_closed_client_is_an_error_of_ours_and_closes_again(transport: ColourTransport) -> None:
    client = Client(transport)
    results = client.classify([colour("red")] * 20)
    next(results)
    for _ in range(2):
        client.close()
    for unfinished in (results, client.classify(colour("red"))):
        with pytest.raises(
            ValueError, match=r"A Client must be open to classify\. This one is closed\. Make a new one"
        ):
            list(unfinished)
