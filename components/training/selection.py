"""Which photos to label next: those that stand for most others, where a classifier is unsure.

Uncertainty herding (W. Bae et al., "Uncertainty Herding: One Active Learning Method for All Label Budgets", 2025): one
photo after the other is taken by which most is gained. Each photo is covered by its most similar labelled one, and
counts as much as a classifier is unsure of it. While labels are few no classifier is asked, and all count the same.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MIN_LABELS_PER_CLASS = 20
"""Labels, for each class on average, from which on a classifier is asked."""

# Widths of kernels and the distance of look-alikes are shares of the mean squared distance between photos: networks
# differ in how near to each other they put them. Chosen on photos of flower_photos' train split that were held out.
_TYPICAL_WIDTH, _UNCERTAIN_WIDTH = 0.45, 0.12
_CLASSIFIER_WIDTH, _RIDGE = 0.75, 0.1
_POWER = 2  # of the uncertainty, in what a photo counts
_ALIKE = 0.05

_MAX_TARGETS, _MAX_LABELLED = 4096, 4096
"""So many photos, drawn at random, stand for those of a large folder, and for those that are labelled."""

_BLOCK = 1024
_UNSURE = 0.5  # the lead of the most probable class, 0–1, below which a photo is called uncertain


class Choice(NamedTuple):
    """The row of a photo, and whether the classifier is unsure of it."""

    row: int
    is_uncertain: bool


class Labelled(NamedTuple):
    """Embeddings `float32 [L, E]` of photos whose labels, `int64 [L]`, are known."""

    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]


def choose(
    embeddings: NDArray[np.float32],
    count: int,
    *,
    labelled: Labelled,
    decided: NDArray[np.float32],
    looks_like: Callable[[int, Sequence[int]], bool] | None = None,
) -> list[Choice]:
    """Choose photos, the one most worth labelling first.

    Args:
        embeddings: `float32 [N, E]` of length 1, of the photos to choose from.
        count: of photos to choose; fewer are left where others look the same.
        labelled: what the classifier learns from.
        decided: `float32 [M, E]`, of photos that need no label though they have none.
        looks_like: whether the photo of a row looks the same as one of those of other rows; those with about the same
            embedding do, too. `None` where no two photos look the same.

    >>> angles = np.array([0, 1, 2, 3, 80, 81, 82], np.float32)[:, np.newaxis] * np.pi / 180
    >>> embeddings = np.hstack([np.cos(angles), np.sin(angles)])
    >>> nothing = Labelled(embeddings[:0], np.empty(0, np.int64))
    >>> [choice.row for choice in choose(embeddings, 2, labelled=nothing, decided=embeddings[:0])]
    [1, 5]
    """
    if not len(embeddings):
        return []
    scale = _measure_scale(embeddings)
    nearest = _ALIKE * scale if looks_like else -1.0
    known = np.concatenate([labelled.embeddings, decided])
    are_open = np.ones(len(embeddings), bool)
    for block in _blocks(len(embeddings)):
        are_open[block] = _distances(embeddings[block], known).min(axis=1, initial=np.inf) > nearest
    classes, labels = np.unique(labelled.labels, return_inverse=True)
    if len(classes) < 2 or len(labels) < MIN_LABELS_PER_CLASS * len(classes):
        uncertainties, width = np.ones(len(embeddings)), _TYPICAL_WIDTH
        are_uncertain = np.zeros(len(embeddings), bool)
    else:
        uncertainties, width = _measure_uncertainty(embeddings, labelled.embeddings, labels, scale), _UNCERTAIN_WIDTH
        are_uncertain = uncertainties > 1 - _UNSURE
    chosen: list[int] = []
    for row in _herd(embeddings, np.flatnonzero(are_open), known, uncertainties, width * scale):
        if len(chosen) == count:
            break
        is_near = _distances(embeddings[row], embeddings[chosen]).min(initial=np.inf) <= nearest
        if not (is_near or (looks_like and looks_like(row, chosen))):
            chosen.append(row)
    return [Choice(row, bool(are_uncertain[row])) for row in chosen]


def _measure_scale(embeddings: NDArray[np.float32]) -> float:
    """Return the mean squared distance between photos."""
    mean = embeddings.mean(axis=0, dtype=np.float64)
    return max(2 * (1 - float(mean @ mean)), 1e-6)


def _measure_uncertainty(
    embeddings: NDArray[np.float32], labelled: NDArray[np.float32], labels: NDArray[np.intp], scale: float
) -> NDArray[np.float64]:
    """Return how small the lead of the most probable class is, `[N]`, 0–1, by kernel ridge regression on the labels."""
    if len(labels) > _MAX_LABELLED:
        rows = np.random.default_rng(0).choice(len(labels), _MAX_LABELLED, replace=False)
        labelled, labels = labelled[rows], labels[rows]
    targets = np.eye(labels.max() + 1)[labels]
    mean = targets.mean(axis=0)
    width = _CLASSIFIER_WIDTH * scale
    kernel = _similarities(labelled, labelled, width) + _RIDGE * np.eye(len(labelled))
    weights = np.linalg.solve(kernel, targets - mean)
    uncertainties = np.empty(len(embeddings))
    for block in _blocks(len(embeddings)):
        scores = np.sort(_similarities(embeddings[block], labelled, width) @ weights + mean, axis=1)
        uncertainties[block] = 1 - np.clip(scores[:, -1] - scores[:, -2], 0, 1)
    return uncertainties


def _herd(
    embeddings: NDArray[np.float32],
    rows: NDArray[np.intp],
    known: NDArray[np.float32],
    uncertainties: NDArray[np.float64],
    width: float,
) -> Iterator[int]:
    """Yield rows, each time the one by which most is gained, given that those before it are labelled.

    What a row gains becomes less as others are taken, so that only the best ones are looked at again (M. Minoux, 1978).
    """
    targets = rows
    if len(rows) > _MAX_TARGETS:
        targets = np.random.default_rng(0).choice(rows, _MAX_TARGETS, replace=False)
    around, weights = embeddings[targets], (uncertainties[targets] ** _POWER).astype(np.float32)
    covered = np.zeros(len(targets), np.float32)
    for block in _blocks(len(known)):
        covered = np.maximum(covered, _similarities(around, known[block], width).max(axis=1, initial=0.0))
    waiting: list[tuple[float, int]] = []
    for block in _blocks(len(rows)):
        gains = np.maximum(_similarities(embeddings[rows[block]], around, width) - covered, 0) @ weights
        waiting += zip((-gains).tolist(), rows[block].tolist(), strict=True)
    heapq.heapify(waiting)
    while waiting:
        _, row = heapq.heappop(waiting)
        similarities = _similarities(embeddings[row], around, width)
        gain = float(np.maximum(similarities - covered, 0) @ weights)
        if waiting and -gain > waiting[0][0] + 1e-6:
            heapq.heappush(waiting, (-gain, row))
            continue
        yield row
        covered = np.maximum(covered, similarities)


def _distances(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the squared distances between embeddings `[N, E]` and `[M, E]` of length 1: `[N, M]`."""
    return 2 - 2 * (one @ other.T)


def _similarities(one: NDArray[np.float32], other: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    return np.exp(_distances(one, other) * np.float32(-1 / width))


def _blocks(length: int) -> Iterator[slice]:
    for start in range(0, length, _BLOCK):
        yield slice(start, start + _BLOCK)
