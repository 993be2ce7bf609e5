"""How accurate a classifier becomes with a quarter, half and all of the labels, and what twice as many would gain.

Linear discriminants of features stand for the head: sums over photos tell them, so that quarters of the photos are
summed once and added up to halves and to the whole.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from components.artifacts.learning_curve import Estimate
from components.training.novelty import Moments

SHARES = (0.25, 0.5, 1.0)
"""Of the training labels."""

_SUBSETS = (
    tuple((quarter,) for quarter in range(4)),
    tuple((quarter, (quarter + 1) % 4) for quarter in range(4)),
    ((0, 1, 2, 3),),
)
"""The quarters that are learned from, for each share: several subsets, in which each photo has the same part."""

_RIDGE = 0.6  # of the variance in all directions, over the number of photos; of 0.3, 0.6 and 1 (flower_photos)
_NUM_RESAMPLES = 2000

Part = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Features `[N, D]` and labels `[N]` of some photos."""


def measure(train: Iterable[Part], validation: Iterable[Part], *, num_classes: int) -> list[NDArray[np.bool_]]:
    """Return which validation photos are classified rightly, for each of `SHARES`: `bool [subsets, N]`.

    Args:
        train: in an order that has nothing to do with what they show; a class' photos take turns in the quarters.
        validation: that the classifiers are judged by.
        num_classes: of the labels.
    """
    quarters = [Moments(num_classes=num_classes) for _ in range(4)]
    seen = np.arange(num_classes)  # Small classes should not all lie in the first quarter.
    for features, labels in train:
        turns = np.empty(len(labels), np.int64)
        for label in np.unique(labels):
            (members,) = np.nonzero(labels == label)
            turns[members] = (seen[label] + np.arange(len(members))) % 4
            seen[label] += len(members)
        for quarter, moments in enumerate(quarters):
            moments.add(features[turns == quarter], labels[turns == quarter])
    discriminants = [[_fit(reduce(add, (quarters[i] for i in subset))) for subset in each] for each in _SUBSETS]
    rights: list[list[NDArray[np.bool_]]] = [[] for _ in SHARES]
    for features, labels in validation:
        for each, right in zip(discriminants, rights, strict=True):
            right.append(np.array([(features @ w + b).argmax(axis=1) == labels for w, b in each]))
    return [np.concatenate(right, axis=1) for right in rights]


def extrapolate(rights: Sequence[NDArray[np.bool_]]) -> Estimate:
    """Return by how much the accuracy would grow with twice the labels, with an interval of 95 %.

    Errors fall as a power of the number of labels (J. Hestness et al., "Deep Learning Scaling is Predictable,
    Empirically", 2017): from a quarter to the whole in two equal steps on a logarithmic scale, of which the next one is
    a third. The interval is that of a bootstrap of the validation photos, and of the subsets.

    Args:
        rights: see `measure`.

    >>> rng = np.random.default_rng(0)
    >>> rights = [rng.random((n, 1000)) > error for n, error in ((4, 0.4), (4, 0.2), (1, 0.1))]
    >>> gain = extrapolate(rights)  # errors halve with each doubling: half of 10 % are left to gain
    >>> 0 < gain["low"] < 0.05 < gain["high"] < 0.1
    True
    """
    rng = np.random.default_rng(0)
    num_photos = rights[0].shape[1]
    wrongs = [(~right).astype(np.float64) for right in rights]
    gains = np.empty(_NUM_RESAMPLES)
    for resample in range(_NUM_RESAMPLES):
        weights = np.bincount(rng.integers(num_photos, size=num_photos), minlength=num_photos) / num_photos
        subsets = rng.integers(len(wrongs[0]), size=len(wrongs[0]))
        gains[resample] = _gain((wrongs[0] @ weights)[subsets].mean(), (wrongs[-1] @ weights).mean())
    low, high = np.quantile(gains, (0.025, 0.975))
    expected = _gain(wrongs[0].mean(), wrongs[-1].mean())
    return {"expected": round(float(expected), 6), "low": round(float(low), 6), "high": round(float(high), 6)}


def _gain(quarter: float, whole: float) -> float:
    """Return what error the next doubling takes away, by the errors with a quarter of the labels and with all."""
    return whole * (1 - (whole / quarter) ** 0.5) if quarter > 0 else 0.0 - whole


def _fit(moments: Moments) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the weights `[D, C]` and biases `[C]` of the linear discriminant; what varies at random counts less."""
    counts, means, covariance = moments.describe()
    ridge = max(_RIDGE * np.trace(covariance) / max(counts.sum(), 1), 1e-12)
    weights = np.linalg.solve(covariance + ridge * np.eye(len(covariance)), means.T)
    biases = np.log(np.maximum(counts, 1)) - (means * weights.T).sum(axis=1) / 2
    biases[counts == 0] = -np.inf  # a class without photos
    return weights.astype(np.float32), biases.astype(np.float32)
