"""Explain predictions: Grad-CAM images of right and of wrong ones.

Reads the test examples, the trained classifier and the evaluator's predictions. Writes `explanations.json` and a JPEG
for each prediction: the photo as the model sees it, and beside it the regions that speak for the predicted class. It
exists because a model may be right for a wrong reason, such as a meadow behind every daisy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.artifacts.evaluation import Prediction, read_predictions
from components.artifacts.examples import read_encoded_at
from components.artifacts.explanations import Explanation, write_explanations
from components.artifacts.summary import Summary
from components.artifacts.training import read_classifier
from components.options import check_range
from components.reporting.grad_cam import draw, grad_cam


@dataclass(frozen=True)
class ExplainerOptions:
    """What is explained.

    Attributes:
        num_examples: right predictions, and as many wrong ones: the most confident of each, and of the right ones one
            of every class before a second.
    """

    num_examples: int = 6

    def __post_init__(self) -> None:
        check_range(self, 0, 50, "num_examples")


def explain(
    *, examples_dir: Path, training_dir: Path, evaluation_dir: Path, out_dir: Path, options: ExplainerOptions
) -> Summary:
    """Draw the most confident right and wrong predictions."""
    chosen = _choose(read_predictions(evaluation_dir), options.num_examples)
    if chosen:
        classifier = read_classifier(training_dir)
        images = _read_images(examples_dir, [each["position"] for each in chosen], classifier.input_shape[1])
        evidence = grad_cam(classifier, images, [each["predicted"] for each in chosen])
        for each, image, regions in zip(chosen, images, evidence, strict=True):
            draw(image, regions).save(out_dir / each["image"], quality=85)
    write_explanations(out_dir, chosen)
    num_right = sum(each["predicted"] == each["label"] for each in chosen)
    return {"num_right": num_right, "num_wrong": len(chosen) - num_right}


def _choose(predictions: Sequence[Prediction], num_examples: int) -> list[Explanation]:
    """Return the predictions to explain, right ones first."""
    positions = sorted(range(len(predictions)), key=lambda p: -_confidence(predictions[p]))
    right = [p for p in positions if predictions[p]["predicted"] == predictions[p]["label"]]
    wrong = [p for p in positions if predictions[p]["predicted"] != predictions[p]["label"]]
    # The first of each class, then the second of each: sorting is stable.
    turns: dict[int, int] = {}
    seen: dict[int, int] = {}
    for position in right:
        label = predictions[position]["label"]
        turns[position] = seen[label] = seen.get(label, -1) + 1
    right.sort(key=turns.__getitem__)
    return [
        {
            "filename": predictions[position]["filename"],
            "label": predictions[position]["label"],
            "predicted": predictions[position]["predicted"],
            "probability": _confidence(predictions[position]),
            "position": position,
            "image": f"{number:02d}.jpg",
        }
        for number, position in enumerate([*right[:num_examples], *wrong[:num_examples]])
    ]


def _confidence(prediction: Prediction) -> float:
    return prediction["probabilities"][prediction["predicted"]]


def _read_images(examples_dir: Path, positions: Sequence[int], size_px: int) -> NDArray[np.uint8]:
    """Read the test images at some positions: `uint8 [N, size, size, 3]`."""
    import tensorflow as tf

    from export import preprocessing

    photos = read_encoded_at(examples_dir, "test", set(positions))
    return np.stack([preprocessing.load(tf.constant(photos[position][1]), size_px).numpy() for position in positions])
