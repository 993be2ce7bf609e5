"""Grad-CAM finds what speaks for a class, and the report gets pictures of right and of wrong answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from components import explainer
from components.explainer import ExplainerOptions
from components.storage.files import read_json
from components.training.networks import build_classifier, build_extractor, build_head

Explain = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def explain(tmp_path: Path, examples_dir: Path, training_dir: Path, evaluation_dir: Path) -> Explain:
    def explain(evaluation: Path = evaluation_dir, **options: Any) -> list[dict[str, Any]]:
        explainer.explain(
            examples_dir=examples_dir,
            training_dir=training_dir,
            evaluation_dir=evaluation,
            out_dir=tmp_path,
            options=ExplainerOptions(**options),
        )
        return read_json(tmp_path / "explanations.json")

    return explain


def test_answers_are_explained_with_a_picture_each(explain: Explain, tmp_path: Path, evaluation_dir: Path) -> None:
    predictions = [json.loads(line) for line in (evaluation_dir / "predictions.jsonl").read_text().splitlines()]
    found = explain(num_examples=2)
    num_right = sum(p["predicted"] == p["label"] for p in predictions)
    assert len(found) == min(2, num_right) + min(2, len(predictions) - num_right)
    for answer in found:
        prediction = predictions[answer["position"]]
        assert answer["filename"] == prediction["filename"]
        assert answer["probability"] == max(prediction["probabilities"])
        with Image.open(tmp_path / answer["picture"]) as picture:
            assert picture.size == (64, 32)


def test_nothing_asked_nothing_explained(explain: Explain, tmp_path: Path) -> None:
    assert explain(num_examples=0) == []
    assert [path.name for path in tmp_path.iterdir()] == ["explanations.json"]


def test_right_answers_are_of_every_class_before_a_second_of_one() -> None:
    def predict(label: int, predicted: int, probability: float) -> dict[str, Any]:
        row = [round((1 - probability) / 2, 3)] * 3
        row[predicted] = probability
        return {
            "filename": f"{label}{predicted}{probability}",
            "label": label,
            "predicted": predicted,
            "probabilities": row,
        }

    predictions = [
        predict(0, 0, 0.9),
        predict(0, 0, 0.8),
        predict(1, 1, 0.6),
        predict(1, 2, 0.5),
        predict(2, 0, 0.7),
    ]
    chosen = explainer._choose(predictions, 2)
    assert [answer["filename"] for answer in chosen] == ["000.9", "110.6", "200.7", "120.5"]
    assert [answer["position"] for answer in chosen] == [0, 2, 4, 3]


@pytest.fixture(scope="module")
def red_or_blue() -> keras.Model:
    """A classifier whose features are how red and how blue an image is: each speaks for a class of its own."""
    extractor = build_extractor("small_cnn", image_size_px=32)
    for number, layer in enumerate(extractor.get_layer("small_cnn").layers):
        kernel = np.zeros(layer.kernel.shape, np.float32)
        # Colours come as -1 to 1; the layers after the first pass both values on.
        for channel, colour in enumerate((0, 2) if number == 0 else (0, 1)):
            kernel[1, 1, colour, channel] = 1
        layer.set_weights([kernel, np.zeros(kernel.shape[-1], np.float32)])
    num_features = extractor.output_shape[-1]
    head = build_head(num_features=num_features, num_classes=2, hidden_units=(), dropout=0.0, seed=0)
    weights = np.zeros((num_features, 2), np.float32)
    weights[0] = [1, -1]
    weights[1] = [-1, 1]
    head.get_layer("probabilities").set_weights([weights, np.zeros(2, np.float32)])
    return build_classifier(extractor, head)


def test_evidence_lies_where_the_class_is(red_or_blue: keras.Model) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, :16, 0] = 255  # red on the left
    image[:, 16:, 2] = 255  # blue on the right
    for_red, for_blue = explainer.grad_cam(red_or_blue, np.stack([image, image]), [0, 1])
    assert for_red.shape == (2, 2)
    np.testing.assert_array_equal(for_red, [[1, 0], [1, 0]])
    np.testing.assert_array_equal(for_blue, [[0, 1], [0, 1]])


def test_no_evidence_is_no_light(red_or_blue: keras.Model) -> None:
    black = np.zeros((1, 32, 32, 3), np.uint8)
    (evidence,) = explainer.grad_cam(red_or_blue, black, [0])
    np.testing.assert_array_equal(evidence, np.zeros((2, 2)))
    picture = np.asarray(explainer.draw(black[0], evidence))
    np.testing.assert_array_equal(picture, np.zeros((32, 64, 3)))


def test_picture_shows_the_photo_and_its_evidence_beside_it() -> None:
    image = np.full((32, 32, 3), 128, np.uint8)
    picture = np.asarray(explainer.draw(image, np.array([[1, 0], [0, 0]], np.float32))).astype(int)
    np.testing.assert_array_equal(picture[:, :32], image)
    # Yellow at the top left, grey at the bottom right.
    assert picture[2, 34, 0] > picture[2, 34, 2] + 50
    np.testing.assert_allclose(picture[30, 62], 128, atol=2)  # bicubic, then rounded


@pytest.mark.parametrize("value", [-1, 51])
def test_options_out_of_range_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match=f"num_examples must be 0 to 50. Received: {value}"):
        ExplainerOptions(num_examples=value)
