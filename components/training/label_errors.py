"""Labels that are probably wrong: those that a classifier thinks unlikely which has not learned from their photos.

Confident learning (C. Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021) with a
linear discriminant of embeddings. It is made of sums over photos: photos are read part by part, and the classifier
without one of them is a correction of the whole. What one pass doubts, the next one does not learn from. How probable a
label is depends on how often such labels are given to such photos, too: where two classes are often mixed up, less
speaks against a mistake.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from components.training.calibration import fit_temperature_of_logits, softmax
from components.training.novelty import Moments

MIN_PHOTOS = 10
"""Of a class whose labels are judged: fewer say too little of what its photos look like."""

_NUM_PASSES = 3
_NUM_ITERATIONS = 20
_RIDGE = 1.0  # of the mean variance; chosen of 0.1 to 5, on labels of flower_photos that were changed at random

Part = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Embeddings `[N, E]` and labels `[N]` of some photos."""


def cross_validate(
    read: Callable[[], Iterable[Part]], *, num_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what classifiers think of photos, each by the one that has learned from all others.

    Args:
        read: reads all photos, part by part, in the same order whenever it is called.
        num_classes: of the labels.

    Returns:
        The probabilities `float64 [N, C]`, and the squared distances `float64 [N]` from the nearest class.

    >>> rng = np.random.default_rng(0)
    >>> truth = np.arange(100) % 2
    >>> embeddings = (rng.normal(size=(100, 4)) + 4 * truth[:, np.newaxis]).astype(np.float32)
    >>> labels = np.where(np.arange(100) == 7, 0, truth)  # one of them is wrong
    >>> probabilities, _ = cross_validate(lambda: [(embeddings, labels)], num_classes=2)
    >>> np.flatnonzero(probabilities[np.arange(100), labels] < 0.02).tolist()
    [7]
    """
    labels = np.concatenate([labels for _, labels in read()])
    are_trusted = np.ones(len(labels), bool)
    for _ in range(_NUM_PASSES):
        moments = Moments(num_classes=num_classes)
        for embeddings, part, here in _with_slices(read()):
            moments.add(embeddings[are_trusted[here]], part[are_trusted[here]])
        discriminant = _Discriminant(moments)
        judged = [discriminant.judge(x, y, are_trusted[here]) for x, y, here in _with_slices(read())]
        logits, distances = (np.concatenate(parts) for parts in zip(*judged, strict=True))
        probabilities = softmax(logits / fit_temperature_of_logits(logits[are_trusted], labels[are_trusted]))
        are_trusted = _trust(probabilities, labels)
    return probabilities, distances


def weigh_labels(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how probable each class is to be the right one, given the label that each photo has.

    Bayes' rule, with the rates at which photos of one class are given the label of another. They are fitted to the
    labels by expectation maximization (A. Dawid and A. Skene, 1979), one photo of each mistake assumed.

    Args:
        probabilities: `[N, C]` of each class, by a classifier that has not learned from the photo.
        labels: `[N]`, as they were given.

    Returns:
        `float64 [N, C]`, each row sums to 1.

    >>> probabilities = np.array([[0.1, 0.9], [0.99, 0.01], [0.01, 0.99]]).repeat([4, 40, 40], axis=0)
    >>> given_rightly = np.array([0, 0, 1]).repeat([4, 40, 40])
    >>> float(weigh_labels(probabilities, given_rightly)[0, 0].round(1))
    0.7
    >>> mixed_up = np.array([0, 0, 0]).repeat([4, 40, 40])
    >>> mixed_up[60:] = 1  # every second photo of class 1 is called 0
    >>> float(weigh_labels(probabilities, mixed_up)[0, 0].round(1))
    0.2
    """
    num_classes = probabilities.shape[1]
    rates = np.full((num_classes, num_classes), 0.01) + 0.95 * np.eye(num_classes)  # [right, given]
    given = np.eye(num_classes)[labels]
    for _ in range(_NUM_ITERATIONS):
        weights = probabilities * rates[:, labels].T
        weights /= weights.sum(axis=1, keepdims=True)
        counts = weights.T @ given + 1 - np.eye(num_classes)
        rates = counts / counts.sum(axis=1, keepdims=True)
    return weights


class _Discriminant:
    """Linear discriminant analysis: a mean for each class, and one covariance for all."""

    def __init__(self, moments: Moments) -> None:
        self._counts, self._means, covariance = moments.describe()
        ridge = max(_RIDGE * np.trace(covariance) / len(covariance), 1e-12)
        self._inverse = np.linalg.inv(covariance + ridge * np.eye(len(covariance)))
        self._products = self._means @ self._inverse @ self._means.T

    def judge(
        self, embeddings: NDArray[np.float32], labels: NDArray[np.int64], are_learned: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the logits `[N, C]` and the distances `[N]` of photos, each as if it had not been learned from.

        A photo r away from the mean of its class of n moves that mean by r / (n - 1), and the covariance has
        n / (n - 1) · r rᵀ less: a change of rank one, whose inverse is that of J. Sherman and W. Morrison (1950).
        """
        own = np.arange(len(labels)), labels
        rows = embeddings.astype(np.float64)
        turned = rows @ self._inverse
        squares = (turned * rows).sum(axis=1, keepdims=True)
        along = turned @ self._means.T
        distances = squares - 2 * along + np.diag(self._products)  # [N, C], between a photo and each mean
        across = squares - along - along[own][:, np.newaxis] + self._products[labels]  # r with each difference
        counts = np.broadcast_to(self._counts, distances.shape).copy()
        growth = np.where(are_learned, counts[own] / np.maximum(counts[own] - 1, 1), 1.0)
        share = np.where(are_learned, growth / max(self._counts.sum(), 1), 0.0)
        spread = distances[own]
        gain = share / np.maximum(1 - share * spread, 1e-9)
        distances += gain[:, np.newaxis] * across**2
        distances[own] = growth**2 * (spread + gain * spread**2)
        counts[own] -= are_learned
        distances[counts == 0] = np.inf  # a class without photos
        return np.maximum(np.log(np.maximum(counts, 1)) - distances / 2, -1e9), distances.min(axis=1)


def _with_slices(parts: Iterable[Part]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64], slice]]:
    start = 0
    for embeddings, labels in parts:
        yield embeddings, labels, slice(start, start := start + len(labels))


def _trust(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which photos the next pass learns from: `bool [N]`.

    Not those that are confidently of another class: as probable as the photos of that class are on average. Of a class
    that would keep fewer than half of its photos all are trusted.
    """
    num_classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=num_classes)
    averages = np.bincount(labels, own, num_classes) / np.maximum(counts, 1)
    confident = np.where((probabilities >= averages) & (counts > 0), probabilities, -1.0)
    are_trusted = (confident.argmax(axis=1) == labels) | (confident.max(axis=1) < 0)
    kept = np.bincount(labels[are_trusted], minlength=num_classes)
    return are_trusted | (2 * kept < counts)[labels]
