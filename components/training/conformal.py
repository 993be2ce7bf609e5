"""Conformal prediction: what holds for a stated share of photos like those it was fitted on, whatever the classifier.

V. Vovk et al., "Algorithmic Learning in a Random World", 2005; for new photos that come from where the validation
photos come from, and no others.
"""

import numpy as np
from numpy.typing import NDArray

MAX_SCORES = 1000
"""Kept of the scores: p-values are then no finer than 1 in 1,001."""


def keep_scores(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return scores in ascending order: all, or of many a thousand whose p-values are not too small.

    >>> keep_scores(np.arange(1999, dtype=np.float32))[[0, 1, -1]].tolist()  # each second one
    [1.0, 3.0, 1998.0]
    """
    ordered = np.sort(scores)
    if len(scores) <= MAX_SCORES:
        return ordered
    ranks = np.ceil(np.arange(1, MAX_SCORES + 1) * (len(scores) + 1) / (MAX_SCORES + 1)).astype(int)
    return ordered[ranks - 1]


def find_min_probability(probabilities: NDArray[np.float32], labels: NDArray[np.int64], *, coverage: float) -> float:
    """Return the probability from which on a label belongs to a prediction set, so that the sets hold the right one.

    M. Sadinle et al., "Least Ambiguous Set-Valued Classifiers with Bounded Error Levels", 2019. Of all sets with that
    coverage these are the smallest on average.

    Args:
        probabilities: `float32 [N, C]`, of photos that the classifier has not learned from.
        labels: `int64 [N]`.
        coverage: the share of photos whose set holds the right label, above 0 and below 1.

    Returns:
        The probability, 0–1: 0, so that every label is in, where the photos are too few for that coverage.

    >>> probabilities = np.array([[0.9, 0.1]] * 18 + [[0.3, 0.7]], np.float32)
    >>> round(find_min_probability(probabilities, np.zeros(19, int), coverage=0.95), 4)  # 1 of 20 may be missed
    0.3
    """
    of_truth = np.sort(probabilities[np.arange(len(labels)), labels])
    num_missed = int((1 - coverage) * (len(labels) + 1) + 1e-9)
    return float(of_truth[num_missed - 1]) if num_missed else 0.0
