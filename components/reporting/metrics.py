"""How good a classifier is, computed from its probabilities. All of it is numpy; the formulas name their sources."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.artifacts.evaluation import (
    Accuracy,
    Calibration,
    CalibrationBin,
    ClassMetrics,
    Judged,
    LabelMetrics,
    ProbabilityMetrics,
    PValueBin,
    RiskPoint,
    Share,
)

NUM_CALIBRATION_BINS = 15  # as in Guo et al. 2017
MAX_RISK_POINTS = 50
_P_VALUE_BINS_PER_DECADE, _NUM_P_VALUE_BINS = 4, 13
"""Down to 10 ** -3 and below: a model of ours has no p-value under 1 in 1,001."""


def wilson_interval(num_right: int, num_examples: int, *, tail: float = 0.025) -> list[float]:
    """Return the score interval of a proportion, [low, high] (E. B. Wilson, 1927); [0, 1] without examples.

    Args:
        num_right: right predictions.
        num_examples: all predictions.
        tail: the chance that the true share lies above the interval, and that it lies below; 0.025 each is 95 %.

    >>> [round(share, 3) for share in wilson_interval(0, 10)]  # none of ten: the true share may well be a quarter
    [0.0, 0.278]
    """
    if num_examples == 0:
        return [0.0, 1.0]
    z = NormalDist().inv_cdf(1 - tail)
    share, z2 = num_right / num_examples, z**2 / num_examples
    middle = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(share * (1 - share) * z2 + z2**2 / 4) / (1 + z2)
    return [max(0.0, middle - half), min(1.0, middle + half)]


def drop_p_value(num_lost: int, num_won: int, num_examples: int, *, max_drop: float = 0.0) -> float:
    """Return how likely so large a drop in accuracy is, if the true one is `max_drop`: small is shown to be worse.

    One-sided, for two models on the same examples: the score test of T. Tango (Statistics in Medicine 17, 1998, eq. 7
    and 8), with the continuity correction of A. L. Edwards (1948). Without a `max_drop` it is McNemar's test.

    Args:
        num_lost: examples that only the other model classifies right.
        num_won: examples that only this model classifies right.
        num_examples: all that both have classified.
        max_drop: share of right predictions that this model may have less, 0–1.

    >>> round(drop_p_value(1, 0, 274), 2), round(drop_p_value(10, 1, 274), 3)  # one photo is luck, nine are not
    (0.5, 0.008)
    """
    n, d = num_examples, max_drop
    excess = num_lost - num_won - n * d - 1
    if excess <= 0:
        return 0.5
    # The most likely share of `num_won` where the drop is `max_drop`.
    b = (2 * n - num_lost + num_won) * d - num_lost - num_won
    won = (math.sqrt(b * b + 8 * n * num_won * d * (1 - d)) - b) / (4 * n)
    return 1 - NormalDist().cdf(excess / math.sqrt(n * (2 * won + d * (1 - d))))


def rise_p_value(rises: NDArray[np.floating[Any]], *, max_rise: float = 0.0) -> float:
    """Return how likely so large a mean rise is, if the true one is `max_rise`: small is shown to be worse.

    One-sided, for a number of each example, by a normal approximation of the mean (Student's paired test without his
    correction for few examples).

    Args:
        rises: `float [N]`, how much more it is with this model than with the other.
        max_rise: how much more it may be on average.

    >>> round(rise_p_value(np.array([0.2, 0.1] * 50), max_rise=0.15), 2), rise_p_value(np.array([0.2] * 9))
    (0.5, 0.0)
    """
    excess = float(rises.mean()) - max_rise
    error = float(rises.std(ddof=1)) / math.sqrt(len(rises)) if len(rises) > 1 else math.inf
    if error < 1e-12:
        return 0.0 if excess > 1e-9 else 1.0
    return 1 - NormalDist().cdf(excess / error)


def share(which: NDArray[np.bool_]) -> Share:
    """Return the share of examples for which something is true, with its interval and their number."""
    count, num_examples = int(which.sum()), len(which)
    interval = wilson_interval(count, num_examples)
    return {"share": count / num_examples, "interval": interval, "num_examples": num_examples}


def auroc(higher: NDArray[np.float32], lower: NDArray[np.float32]) -> float:
    """Return how likely a score of the first is above one of the second, a tie counting half (J. Hanley, 1982).

    >>> auroc(np.array([0.5, 0.9]), np.array([0.1, 0.5]))
    0.875
    """
    ordered = np.sort(lower)
    num_below, num_up_to = (np.searchsorted(ordered, higher, side=side) for side in ("left", "right"))
    return float((num_below + num_up_to).sum() / (2 * len(higher) * len(lower)))


def risk_coverage(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> list[RiskPoint]:
    """Return the error rate of the most confident share of the predictions (Y. Geifman and R. El-Yaniv, 2017).

    Args:
        confidence: `float32 [N]`, 0–1; a NaN is the least.
        right: `bool [N]`.

    Returns:
        At most 50 points in equal steps of coverage; the last one is of all predictions.
    """
    order = np.argsort(-np.nan_to_num(confidence), kind="stable")
    num_wrong, num_examples = np.cumsum(~right[order]), len(right)
    counts = sorted({-(-step * num_examples // MAX_RISK_POINTS) for step in range(1, MAX_RISK_POINTS + 1)})
    return [{"coverage": count / num_examples, "error": float(num_wrong[count - 1] / count)} for count in counts]


def p_value_histogram(p_values: NDArray[np.float32]) -> list[PValueBin]:
    """Count p-values, 0–1, in bins that are equal on a logarithmic scale, from 1 downwards; the last one ends at 0."""
    # With room for the rounding of a float32 at a bound.
    depths = -np.log10(np.maximum(p_values.astype(np.float64), 1e-9)) * _P_VALUE_BINS_PER_DECADE + 1e-6
    which = depths.clip(0, _NUM_P_VALUE_BINS - 1).astype(int)
    counts = np.bincount(which, minlength=_NUM_P_VALUE_BINS).tolist()
    bounds = [10 ** (-number / _P_VALUE_BINS_PER_DECADE) for number in range(_NUM_P_VALUE_BINS)] + [0.0]
    return [
        {"lower": bounds[number + 1], "upper": bounds[number], "num_examples": count}
        for number, count in enumerate(counts)
    ]


def accuracy(right: NDArray[np.bool_]) -> Accuracy:
    """Return the share of right predictions with its interval and the number of examples."""
    num_right, num_examples = int(right.sum()), len(right)
    return {
        "accuracy": num_right / num_examples,
        "accuracy_interval": wilson_interval(num_right, num_examples),
        "num_examples": num_examples,
    }


def confusion_matrix(labels: NDArray[np.int64], predicted: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """Count examples by true class (rows) and predicted class (columns): `int64 [C, C]`."""
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class(matrix: NDArray[np.int64], class_names: Sequence[str]) -> dict[str, ClassMetrics]:
    """Return each class's precision, recall and F1; 0 where there is nothing to divide by."""
    found: dict[str, ClassMetrics] = {}
    for row, name in enumerate(class_names):
        right, num_examples, num_predicted = (
            int(n) for n in (matrix[row, row], matrix[row].sum(), matrix[:, row].sum())
        )
        found[name] = {
            "precision": right / num_predicted if num_predicted else 0.0,
            "recall": right / num_examples if num_examples else 0.0,
            "f1": 2 * right / (num_examples + num_predicted) if num_examples + num_predicted else 0.0,
            "num_examples": num_examples,
            "recall_interval": wilson_interval(right, num_examples),
        }
    return found


def calibration(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> Calibration:
    """Compare confidence with accuracy in equal bins; their mean distance is the ECE (Guo et al. 2017, eq. 5)."""
    # A NaN is counted in the first bin, and makes the error a NaN.
    positions = np.nan_to_num(confidence).clip(0, 1) * NUM_CALIBRATION_BINS
    which = np.minimum(positions.astype(int), NUM_CALIBRATION_BINS - 1)
    bins: list[CalibrationBin] = []
    error = 0.0
    for number in range(NUM_CALIBRATION_BINS):
        inside = which == number
        count = int(inside.sum())
        mean_confidence = float(confidence[inside].mean()) if count else None
        share_right = float(right[inside].mean()) if count else None
        if mean_confidence is not None and share_right is not None:
            error += count / len(right) * abs(mean_confidence - share_right)
        lower, upper = number / NUM_CALIBRATION_BINS, (number + 1) / NUM_CALIBRATION_BINS
        bins.append(
            {
                "lower": lower,
                "upper": upper,
                "confidence": mean_confidence,
                "accuracy": share_right,
                "num_examples": count,
            }
        )
    return {"ece": error, "bins": bins}


def cross_entropy(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the cross-entropy `float32 [N]` of each example; probabilities `[N, C]` below 1e-7 count as that."""
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-7))


def summarize_classes(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], class_names: Sequence[str]
) -> LabelMetrics:
    """Return every number that depends on the predicted classes alone.

    Args:
        predicted: `int64 [N]`, indices into `class_names`.
        labels: `int64 [N]`, likewise.
        class_names: the C labels.
    """
    matrix = confusion_matrix(labels, predicted, len(class_names))
    classes = per_class(matrix, class_names)
    return {
        **accuracy(predicted == labels),
        "class_names": list(class_names),
        "macro": {n: float(np.mean([c[n] for c in classes.values()])) for n in ("precision", "recall", "f1")},
        "per_class": classes,
        "confusion_matrix": matrix.tolist(),
    }


def judge(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> Judged:
    """Return how right a classifier is, and how well it knows that, in a few numbers.

    Args:
        probabilities: `float32 [N, C]`.
        labels: `int64 [N]`.
    """
    right = probabilities.argmax(axis=1) == labels
    loss = float(cross_entropy(probabilities, labels).mean())
    return {
        **accuracy(right),
        "loss": loss if math.isfinite(loss) else None,
        "ece": calibration(probabilities.max(axis=1), right)["ece"],
    }


def summarize(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], class_names: Sequence[str]
) -> ProbabilityMetrics:
    """Return every number that describes a classifier on one set of examples.

    Args:
        probabilities: `float32 [N, C]`.
        labels: `int64 [N]`, indices into `class_names`.
        class_names: the C labels.
    """
    predicted = probabilities.argmax(axis=1)
    loss = float(cross_entropy(probabilities, labels).mean())
    brier = float(((probabilities - np.eye(len(class_names))[labels]) ** 2).sum(axis=1).mean())  # G. Brier, 1950
    return {
        **summarize_classes(predicted, labels, class_names),
        "loss": loss if math.isfinite(loss) else None,
        "brier": brier if math.isfinite(brier) else None,
        "calibration": calibration(probabilities.max(axis=1), predicted == labels),
    }
