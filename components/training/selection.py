"""Which photos to label next: those that stand for most others, where the classifier is unsure.

Uncertainty herding (W. Bae et al., "Uncertainty Herding: One Active Learning Method for All Label Budgets", 2025): one
photo after the other is taken whose neighbours gain most. A photo is covered by its most similar labelled one, and
counts as much as a classifier is unsure of it. While labels are few no classifier is asked, and all count the same.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.training.calibration import fit_temperature_of_logits, softmax
from components.training.label_errors import Discriminant
from components.training.novelty import Moments

MIN_LABELS_PER_CLASS = 40
"""Labels, for each class on average, from which on a classifier is asked."""

_WIDTH = 0.3  # of the kernel, in squared distance
_ALIKE = 0.98
"""Photos whose embeddings have this cosine, or more, look the same."""

_MAX_TARGETS = 4096
"""So many photos, drawn at random, stand for those of a large folder."""

_BLOCK = 1024
_UNSURE = 0.5  # the lead of the most probable class, below which a photo is called uncertain


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
    looks_like: Callable[[int, Sequence[int]], bool],
) -> list[Choice]:
    """Choose photos, the one most worth labelling first.

    Args:
        embeddings: `float32 [N, E]` of length 1, of the photos to choose from.
        count: of photos to choose; fewer are left where others look the same.
        labelled: what the classifier learns from.
        decided: `float32 [M, E]`, of photos that need no label though they have none.
        looks_like: whether the photo of a row looks the same as one of those of other rows.
    """
    known = np.concatenate([labelled.embeddings, decided])
    uncertainties = _measure_uncertainty(embeddings, labelled)
    are_open = np.ones(len(embeddings), bool)
    for rows in _blocks(len(embeddings)):
        are_open[rows] = (embeddings[rows] @ known.T).max(axis=1, initial=-1.0) < _ALIKE
    chosen: list[int] = []
    for row in _herd(embeddings, np.flatnonzero(are_open), known, uncertainties):
        if len(chosen) == count:
            break
        is_alike = (embeddings[chosen] @ embeddings[row]).max(initial=-1.0) >= _ALIKE
        if not (is_alike or looks_like(row, chosen)):
            chosen.append(row)
    are_uncertain = np.zeros(len(embeddings), bool) if uncertainties is None else uncertainties > 1 - _UNSURE
    return [Choice(row, bool(are_uncertain[row])) for row in chosen]


def _measure_uncertainty(embeddings: NDArray[np.float32], labelled: Labelled) -> NDArray[np.float64] | None:
    """Return how small the lead of the most probable class is, `[N]`, 0–1; `None` while labels are few."""
    classes, labels = np.unique(labelled.labels, return_inverse=True)
    if len(classes) < 2 or len(labels) < MIN_LABELS_PER_CLASS * len(classes):
        return None
    moments = Moments(num_classes=len(classes))
    moments.add(labelled.embeddings, labels)
    discriminant = Discriminant(moments)
    learned, _ = discriminant.judge(labelled.embeddings, labels, np.ones(len(labels), bool))
    temperature = fit_temperature_of_logits(learned, labels)
    none = np.zeros(len(embeddings), np.int64)
    logits, _ = discriminant.judge(embeddings, none, none.astype(bool))
    two = np.sort(softmax(logits / temperature), axis=1)[:, -2:]
    return 1 - (two[:, 1] - two[:, 0])


def _herd(
    embeddings: NDArray[np.float32],
    rows: NDArray[np.intp],
    known: NDArray[np.float32],
    uncertainties: NDArray[np.float64] | None,
) -> Iterator[int]:
    """Yield rows, each time the one by which most is gained; whoever takes the next one has taken the last.

    What a row gains becomes less as others are taken, so that only the best ones are looked at again (M. Minoux, 1978).
    """
    targets = rows
    if len(rows) > _MAX_TARGETS:
        targets = np.random.default_rng(0).choice(rows, _MAX_TARGETS, replace=False)
    around = embeddings[targets]
    weights = np.ones(len(targets), np.float32) if uncertainties is None else uncertainties[targets].astype(np.float32)
    covered = np.zeros(len(targets), np.float32)
    for block in _blocks(len(known)):
        covered = np.maximum(covered, _similarity(around, known[block]).max(axis=1, initial=0.0))
    gains = [
        np.maximum(_similarity(embeddings[rows[block]], around) - covered, 0) @ weights for block in _blocks(len(rows))
    ]
    waiting = [(-gain, row) for gain, row in zip(np.concatenate([*gains, []]).tolist(), rows.tolist(), strict=True)]
    heapq.heapify(waiting)
    while waiting:
        _, row = heapq.heappop(waiting)
        similarity = _similarity(embeddings[row : row + 1], around)[0]
        gain = float(np.maximum(similarity - covered, 0) @ weights)
        if waiting and -gain > waiting[0][0] + 1e-6:
            heapq.heappush(waiting, (-gain, row))
            continue
        yield row
        covered = np.maximum(covered, similarity)


def _similarity(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.exp((one @ other.T - 1) * (2 / _WIDTH))


def _blocks(length: int) -> Iterator[slice]:
    for start in range(0, length, _BLOCK):
        yield slice(start, start + _BLOCK)
