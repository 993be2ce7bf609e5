"""How good a model is on the test split: `metrics.json`, and `predictions.jsonl` in the order of the test examples."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

from components.artifacts.backbone import WeightsOrigin
from components.artifacts.examples import DataOrigin
from components.storage.files import read_json, read_jsonl, write_json


class Accuracy(TypedDict):
    """The share of examples that are classified right, its 95 % interval [low, high], and their number."""

    accuracy: float
    accuracy_interval: list[float]
    num_examples: int


class ClassMetrics(TypedDict):
    """Of one class, 0–1; the interval of the recall is [low, high], 95 %."""

    precision: float
    recall: float
    f1: float
    num_examples: int
    recall_interval: list[float]


class CalibrationBin(TypedDict):
    """The predictions whose confidence lies in `lower` to `upper`; the means are null where there are none."""

    lower: float
    upper: float
    confidence: float | None
    accuracy: float | None
    num_examples: int


class Calibration(TypedDict):
    """The expected calibration error, 0–1, and its bins."""

    ece: float
    bins: list[CalibrationBin]


class LabelMetrics(Accuracy):
    """What depends on the predicted labels alone; the confusion matrix `[C, C]` has true labels as rows."""

    class_names: list[str]
    macro: dict[str, float]
    per_class: dict[str, ClassMetrics]
    confusion_matrix: list[list[int]]


class ProbabilityMetrics(LabelMetrics):
    """What depends on the probabilities, too; the loss (0 up) and the Brier score (0–2) are null where not finite."""

    loss: float | None
    brier: float | None
    calibration: Calibration


class BaselineMetrics(TypedDict):
    """The pushed model on the test photos that neither model has learned from, beside the candidate.

    Attributes:
        version: of the pushed model.
        accuracy: of the pushed model on them; null where it cannot be judged.
        candidate_accuracy: of the candidate on the same photos; null likewise.
        num_examples: how many there are.
        num_only_baseline_right: photos that only the pushed model classifies right.
        num_only_candidate_right: photos that only the candidate classifies right.
        p_value: of the drop, see `drop_p_value`; null where it cannot be judged.
        reason: why it cannot be judged; null where it can.
    """

    version: int
    accuracy: float | None
    candidate_accuracy: float | None
    num_examples: int
    num_only_baseline_right: int
    num_only_candidate_right: int
    p_value: float | None
    reason: str | None


class Uncalibrated(TypedDict):
    """The same model without its temperature: what the calibration was worth on the test photos."""

    temperature: float
    loss: float | None
    brier: float | None
    calibration: Calibration


class Metrics(ProbabilityMetrics):
    """`metrics.json`; `slices` are parts of the test photos, by property and value."""

    uncalibrated: Uncalibrated
    data: DataOrigin
    weights: WeightsOrigin
    slices: dict[str, dict[str, Accuracy]]
    baseline: BaselineMetrics | None


class Prediction(TypedDict):
    """One line of `predictions.jsonl`: labels are indices into the class names, probabilities are rounded to 1e-6."""

    filename: str
    label: int
    predicted: int
    probabilities: list[float]


def read_metrics(evaluation_dir: Path) -> Metrics:
    """Read `metrics.json`."""
    return read_json(evaluation_dir / "metrics.json")


def write_metrics(out_dir: Path, metrics: Metrics) -> None:
    """Write `metrics.json`."""
    write_json(out_dir / "metrics.json", metrics)


def read_predictions(evaluation_dir: Path) -> list[Prediction]:
    """Read `predictions.jsonl`."""
    return read_jsonl(evaluation_dir / "predictions.jsonl")


def write_predictions(out_dir: Path, predictions: Iterable[Prediction]) -> None:
    """Write `predictions.jsonl`."""
    with (out_dir / "predictions.jsonl").open("w") as file:
        file.writelines(json.dumps(prediction) + "\n" for prediction in predictions)
