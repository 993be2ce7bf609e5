"""How accurate a classifier becomes with more labels: `learning_curve.json`."""

from pathlib import Path
from typing import TypedDict

from components.storage.files import read_json, write_json

_FILE = "learning_curve.json"


class Point(TypedDict):
    """A share of the training labels, so many on average, and the accuracy of each subset on the validation photos."""

    share: float
    num_examples: int
    accuracies: list[float]


class Estimate(TypedDict):
    """A number that is expected, and the interval that has it with a probability of 95 %."""

    expected: float
    low: float
    high: float


class LearningCurve(TypedDict):
    """`learning_curve.json`.

    `next_gain` is by how much the accuracy would grow with twice the labels, as a share of the photos.
    """

    points: list[Point]
    num_validation: int
    next_gain: Estimate


def read_learning_curve(folder: Path) -> LearningCurve:
    """Read `learning_curve.json`."""
    return read_json(folder / _FILE)


def write_learning_curve(out_dir: Path, curve: LearningCurve) -> None:
    """Write `learning_curve.json`."""
    write_json(out_dir / _FILE, curve)
