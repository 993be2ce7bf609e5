"""How good a classifier is, computed from its probabilities. All of it is numpy; the formulas name their sources."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from components.artifacts.evaluation import (
    Accuracy,
    Calibration,
    CalibrationBin,
    ClassMetrics,
    LabelMetrics,
    ProbabilityMetrics,
)

NUM_CALIBRATION_BINS = 15  # as in Guo et al. 2017


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
    loss = float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-7)).mean())
    brier = float(((probabilities - np.eye(len(class_names))[labels]) ** 2).sum(axis=1).mean())  # G. Brier, 1950
    return {
        **summarize_classes(predicted, labels, class_names),
        "loss": loss if math.isfinite(loss) else None,
        "brier": brier if math.isfinite(brier) else None,
        "calibration": calibration(probabilities.max(axis=1), predicted == labels),
    }
