"""The report gets images that explain right and wrong predictions."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from components import explainer
from components.artifacts.evaluation import Prediction, read_predictions
from components.artifacts.explanations import read_explanations
from components.explainer import ExplainerOptions


def test_predictions_are_explained_with_an_image_each(artifact: Callable[[str], Path], evaluation_dir: Path) -> None:
    predictions, explanations = read_predictions(evaluation_dir), read_explanations(artifact("explainer"))
    num_right = sum(p["predicted"] == p["label"] for p in predictions)
    assert len(explanations) == min(6, num_right) + min(6, len(predictions) - num_right)
    for explanation in explanations:
        prediction = predictions[explanation["position"]]
        assert explanation["filename"] == prediction["filename"]
        assert explanation["probability"] == max(prediction["probabilities"])
        with Image.open(artifact("explainer") / explanation["image"]) as image:
            assert image.size == (64, 32)


def test_nothing_is_explained_where_nothing_is_wanted(inputs: Callable[[str], dict[str, Path]], tmp_path: Path) -> None:
    explainer.explain(**inputs("explainer"), out_dir=tmp_path, options=ExplainerOptions(num_examples=0))
    assert read_explanations(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["explanations.json"]


def test_right_predictions_are_of_every_class_before_a_second_of_one() -> None:
    def predict(label: int, predicted: int, probability: float) -> Prediction:
        row = [round((1 - probability) / 2, 3)] * 3
        row[predicted] = probability
        return {
            "filename": f"{label}{predicted}{probability}",
            "label": label,
            "predicted": predicted,
            "probabilities": row,
        }

    predictions = [predict(0, 0, 0.9), predict(0, 0, 0.8), predict(1, 1, 0.6), predict(1, 2, 0.5), predict(2, 0, 0.7)]
    chosen = explainer._choose(predictions, 2)
    assert [each["filename"] for each in chosen] == ["000.9", "110.6", "200.7", "120.5"]
    assert [each["position"] for each in chosen] == [0, 2, 4, 3]


@pytest.mark.parametrize("value", [-1, 51])
def test_options_out_of_range_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match=f"num_examples must be 0 to 50. Received: {value}"):
        ExplainerOptions(num_examples=value)
