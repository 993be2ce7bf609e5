"""How good a model is on the test split: `metrics.json`, and `predictions.jsonl` in the order of the test examples."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

from components.artifacts.backbone import WeightsOrigin
from components.artifacts.examples import DataOrigin
from components.storage.files import read_json, read_jsonl, write_json, write_jsonl


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


class Share(TypedDict):
    """A share of photos, its 95 % interval [low, high], and the number of all of them."""

    share: float
    interval: list[float]
    num_examples: int


class KnownLimits(TypedDict):
    """What a model says of photos of its classes.

    Attributes:
        refused: the share that is refused as none of the classes.
        covered: the share whose prediction set holds the right label.
        mean_set_size: labels in a prediction set.
    """

    refused: Share
    covered: Share
    mean_set_size: float


class RiskPoint(TypedDict):
    """The error rate of the most confident predictions; `coverage` is their share of all, above 0 and up to 1."""

    coverage: float
    error: float


class PValueBin(TypedDict):
    """The photos whose p-value is above `lower` and at most `upper`."""

    lower: float
    upper: float
    num_examples: int


class Foreign(TypedDict):
    """Photos of other things than the classes.

    Attributes:
        folder: where they lie.
        num_unreadable: files in it that are no images that can be read.
        refused: the share that is refused, as all should be.
        auroc: how likely a test photo has a higher p-value than a foreign one, a tie counting half; 0.5 is chance.
        p_values: the histogram of their p-values.
    """

    folder: str
    num_unreadable: int
    refused: Share
    auroc: float
    p_values: list[PValueBin]


class LimitsMetrics(KnownLimits):
    """What the model knows of its limits, on the test photos.

    Attributes:
        expected_refused_share: the share of known photos that it was made to refuse; null where its spec has none.
        expected_coverage: the share of photos whose right label its sets were made to hold; null likewise.
        set_sizes: how many prediction sets have no label, one, two and so on, `[C + 1]`.
        accepted: the accuracy on photos that are not refused; null where all are.
        risk_coverage: at most 50 points, the most confident predictions first.
        p_values: the histogram of the p-values, the least strange photos first.
        foreign: null without such photos.
    """

    expected_refused_share: float | None
    expected_coverage: float | None
    set_sizes: list[int]
    accepted: Accuracy | None
    risk_coverage: list[RiskPoint]
    p_values: list[PValueBin]
    foreign: Foreign | None


class Judged(Accuracy):
    """A classifier on photos beside the test split: with its cross-entropy (null where not finite) and its ECE."""

    loss: float | None
    ece: float


class Elsewhere(Judged):
    """Photos of the same classes from another collection; `limits` is null for a model that has none.

    `num_unreadable` files in the folder are no images that can be read.
    """

    folder: str
    num_unreadable: int
    limits: KnownLimits | None


class Corrupted(Judged):
    """The validation photos after a corruption; `refused` is null for a model without limits."""

    refused: Share | None


class PairedLoss(TypedDict):
    """The mean cross-entropy of both models on the same photos, and the p-value of the rise, see `rise_p_value`."""

    baseline: float
    candidate: float
    p_value: float


class PairedShare(TypedDict):
    """A share that should be small, of both models on the same photos.

    Attributes:
        baseline: of the pushed model.
        candidate: of the candidate.
        num_examples: how many photos there are.
        num_only_baseline: photos that count for the pushed model alone.
        num_only_candidate: photos that count for the candidate alone.
        p_value: of the rise, see `drop_p_value`.
    """

    baseline: float
    candidate: float
    num_examples: int
    num_only_baseline: int
    num_only_candidate: int
    p_value: float


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
        loss: the cross-entropy of both; null where it cannot be judged, or is not finite.
        refused: the share of these photos that is refused; null where it cannot be judged, or a model has no limits.
        let_through: the share of foreign photos that is not refused; null likewise, and without such photos.
    """

    version: int
    accuracy: float | None
    candidate_accuracy: float | None
    num_examples: int
    num_only_baseline_right: int
    num_only_candidate_right: int
    p_value: float | None
    reason: str | None
    loss: PairedLoss | None
    refused: PairedShare | None
    let_through: PairedShare | None


class Uncalibrated(TypedDict):
    """The same model without its temperature: what the calibration was worth on the test photos."""

    temperature: float
    loss: float | None
    brier: float | None
    calibration: Calibration


class Metrics(ProbabilityMetrics):
    """`metrics.json`.

    Attributes:
        uncalibrated: the model without its temperature.
        data: the photos that it was trained on.
        weights: its backbone's.
        slices: parts of the test photos, by property and value.
        limits: null for a model that says nothing of them.
        elsewhere: null without photos from elsewhere.
        corruptions: by name, the photos as they are first; null where this was not wanted.
        baseline: null where no model was pushed before.
    """

    uncalibrated: Uncalibrated
    data: DataOrigin
    weights: WeightsOrigin
    slices: dict[str, dict[str, Accuracy]]
    limits: LimitsMetrics | None
    elsewhere: Elsewhere | None
    corruptions: dict[str, Corrupted] | None
    baseline: BaselineMetrics | None


class Prediction(TypedDict):
    """One line of `predictions.jsonl`: labels are indices into the class names, probabilities are rounded to 1e-6.

    `p_value`, `is_known` and `prediction_set` (the most probable label first) are null for a model without limits.
    """

    filename: str
    label: int
    predicted: int
    probabilities: list[float]
    p_value: float | None
    is_known: bool | None
    prediction_set: list[int] | None


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
    write_jsonl(out_dir / "predictions.jsonl", predictions)
