"""Labels that are probably wrong: those that a classifier thinks unlikely which has not learned from their photos.

Confident learning (C. Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021) with
linear discriminants of embeddings. These are made of sums over photos: photos are read part by part, and a
classifier without a fold is one without its sums. What one pass doubts, the next one does not learn from.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from components.training.calibration import fit_temperature_of_logits, softmax
from components.training.novelty import Moments

NUM_FOLDS = 10
MIN_PHOTOS = 10
"""Of a class whose labels are judged: fewer say too little of what its photos look like."""

_NUM_PASSES = 3
_RIDGE = 1.0  # of the mean variance; chosen of 0.1 to 5, on labels of flower_photos that were changed at random

Part = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Embeddings `[N, E]` and labels `[N]` of some photos."""


def cross_validate(read: Callable[[], Iterable[Part]], *, num_classes: int) -> NDArray[np.float64]:
    """Return the probabilities `float64 [N, C]` that classifiers give photos which they have not learned from.

    Args:
        read: reads all photos, part by part, in the same order whenever it is called.
        num_classes: of the labels.

    >>> rng = np.random.default_rng(0)
    >>> truth = np.arange(100) % 2
    >>> embeddings = (rng.normal(size=(100, 4)) + 4 * truth[:, np.newaxis]).astype(np.float32)
    >>> labels = np.where(np.arange(100) == 7, 0, truth)  # one of them is wrong
    >>> probabilities = cross_validate(lambda: [(embeddings, labels)], num_classes=2)
    >>> np.flatnonzero(probabilities[np.arange(100), labels] < 0.02).tolist()
    [7]
    """
    labels = np.concatenate([labels for _, labels in read()])
    rng = np.random.default_rng(0)
    are_trusted = np.ones(len(labels), bool)
    for _ in range(_NUM_PASSES):
        folds = _draw_folds(labels, rng)
        logits = _judge(read, folds, are_trusted, num_classes)
        probabilities = softmax(logits / fit_temperature_of_logits(logits[are_trusted], labels[are_trusted]))
        are_trusted = _trust(probabilities, labels)
    return probabilities


def _draw_folds(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the fold of each photo: every fold has as many of each class, give or take one."""
    order = np.lexsort((rng.random(len(labels)), labels))
    folds = np.empty(len(labels), np.int64)
    folds[order] = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
    return folds % NUM_FOLDS


def _judge(
    read: Callable[[], Iterable[Part]], folds: NDArray[np.int64], are_trusted: NDArray[np.bool_], num_classes: int
) -> NDArray[np.float64]:
    """Return the logits `[N, C]` of each photo, by the trusted ones of the other folds."""
    by_fold = [Moments(num_classes=num_classes) for _ in range(NUM_FOLDS)]
    for embeddings, labels, here in _with_slices(read()):
        for fold, moments in enumerate(by_fold):
            chosen = are_trusted[here] & (folds[here] == fold)
            moments.add(embeddings[chosen], labels[chosen])
    discriminants = [_discriminate(Moments.join([*by_fold[:fold], *by_fold[fold + 1 :]])) for fold in range(NUM_FOLDS)]
    logits = np.empty((len(folds), num_classes))
    for embeddings, _, here in _with_slices(read()):
        for fold, (weights, biases) in enumerate(discriminants):
            chosen = folds[here] == fold
            logits[here][chosen] = embeddings[chosen] @ weights + biases
    return logits


def _discriminate(moments: Moments) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weights `[E, C]` and biases `[C]` of linear discriminant analysis."""
    counts, means, covariance = moments.describe()
    ridge = max(_RIDGE * np.trace(covariance) / len(covariance), 1e-12)
    weights = np.linalg.solve(covariance + ridge * np.eye(len(covariance)), means.T)
    priors = np.log(np.maximum(counts, np.finfo(float).tiny))  # what has no photo is impossible
    return weights, priors - (means.T * weights).sum(axis=0) / 2


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
