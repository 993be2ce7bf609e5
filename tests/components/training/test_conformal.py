"""What conformal prediction promises holds on drawn data, and few or many photos break nothing."""

import numpy as np
import pytest
from numpy.typing import NDArray

from components.training.conformal import MAX_SCORES, find_min_probability, keep_scores


def draw(rng: np.random.Generator, num_examples: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw labels from probabilities, and return these as a classifier would have them that is too sure."""
    true = rng.dirichlet(np.full(5, 0.3), num_examples)
    labels = (true.cumsum(axis=1) > rng.random((num_examples, 1))).argmax(axis=1)
    sharp = true**3 + 1e-9
    return (sharp / sharp.sum(axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("coverage", [0.8, 0.95])
@pytest.mark.parametrize("num_examples", [50, 276])
def test_sets_hold_the_right_label_as_often_as_stated(coverage: float, num_examples: int) -> None:
    """On average over what is validated on, and by at most 1 in N + 1 more often."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        least = find_min_probability(*draw(rng, num_examples), coverage=coverage)
        probabilities, labels = draw(rng, 500)
        shares.append((probabilities[np.arange(500), labels] >= least).mean())
    # The mean of 200 shares of 500 photos, each with a deviation of some 0.06 at most, is known to 0.005.
    assert coverage - 0.012 <= np.mean(shares) <= coverage + 1 / (num_examples + 1) + 0.012


@pytest.mark.parametrize(("num_examples", "expected"), [(1, 0.0), (18, 0.0), (19, 0.25)])
def test_too_few_photos_for_a_coverage_have_all_labels_in_their_sets(num_examples: int, expected: float) -> None:
    probabilities = np.full((num_examples, 2), 0.25, np.float32)
    labels = np.zeros(num_examples, np.int64)
    assert find_min_probability(probabilities, labels, coverage=0.95) == expected


@pytest.mark.parametrize("num_scores", [1, MAX_SCORES, MAX_SCORES + 1, 1999, 5000])
def test_p_values_of_many_scores_are_those_of_all_to_one_in_a_thousand_and_never_smaller(num_scores: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=num_scores).astype(np.float32)
    kept = keep_scores(scores)
    assert len(kept) == min(num_scores, MAX_SCORES)
    assert (np.diff(kept) >= 0).all()
    assert np.isin(kept, scores).all()
    new = rng.normal(size=(300, 1)).astype(np.float32) * 2
    of_all, of_kept = ((1 + (known >= new).sum(axis=1)) / (1 + len(known)) for known in (scores, kept))
    assert (of_kept >= of_all - 1e-9).all()
    assert (of_kept <= of_all + 1 / (MAX_SCORES + 1)).all()


def test_known_photos_are_refused_no_more_often_than_stated() -> None:
    rng = np.random.default_rng(0)
    num_refused, share = 0, 0.05
    for _ in range(100):
        kept = keep_scores(rng.gamma(2, size=276).astype(np.float32))
        new = rng.gamma(2, size=(200, 1))
        num_refused += int(((1 + (kept >= new).sum(axis=1)) / 277 <= share).sum())
    # Of 20,000 photos; the deviation of a share among 276 known ones is 0.013, of the mean of 100 such 0.0015.
    assert num_refused / 20_000 == pytest.approx(share, abs=0.006)
