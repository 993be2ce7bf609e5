"""Evidence on a mean that may be looked at after every observation, as betting gives it.

Somebody who believes that a mean is above a bound bets on it, at odds that are fair where it is at the bound. The
capital, 1 at first, is an e-process: while the mean is not above the bound it exceeds 1/alpha at any time with a
probability of at most alpha (Ville's inequality), however often one looks, and whenever one stops. All values that
no bet excludes are a confidence sequence. The bets are fixed fractions, and their capitals are averaged: the mixture
of Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS B 2024,
arxiv.org/abs/2010.09686), sections 4 and B. So the capital depends on how often each value was seen, and on nothing
else: what is kept of the observations is their counts; for a planned test, also those of its first ones.
"""

import math
from collections.abc import Mapping
from functools import cache

import numpy as np

FRACTIONS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.55, 0.75, 0.95)
"""Of the capital that can be lost at once: small ones find small differences, large ones find large ones soon."""
SIGN_FRACTIONS = (0.25, 0.5, 0.75, 0.95)
"""For shares of events, where what matters is large: fewer bets share the capital."""
NUM_PLANNED = 40
"""Events of a planned test: so many of 500 photos has one of two models right and the other wrong, if it is 8 %."""

Counts = Mapping[float, int]
"""How often each value was seen."""

# Chosen on simulated canaries that were 5 points worse: its error at its end, and its part of the capital.
_PLANNED_ERROR, _PLANNED_PART = 0.02, 0.7
_NUM_HALVINGS = 40


def threshold(error: float) -> float:
    """Return the log evidence that is ever reached with at most this probability where the hypothesis holds.

    >>> round(threshold(0.05), 3)
    2.996
    """
    return -math.log(error)


def log_evidence_above(counts: Counts, bound: float, *, low: float, fractions: tuple[float, ...] = FRACTIONS) -> float:
    """Return the logarithm of the evidence that a mean is above a bound; `threshold(alpha)` or more proves it.

    Args:
        counts: how often each value was seen.
        bound: at most the mean, if the hypothesis that is tested holds.
        low: the lowest value that is possible, below the bound.
        fractions: of the bets.

    >>> log_evidence_above({1.0: 10, 0.0: 0}, 0.5, low=0.0) > math.log(20)
    True
    >>> log_evidence_above({1.0: 10, 0.0: 10}, 0.5, low=0.0) > math.log(20)
    False
    """
    if not counts:
        return 0.0
    bets = np.array(fractions) / (bound - low)
    values = np.array(list(counts), dtype=float)
    nums = np.array(list(counts.values()), dtype=float)
    capitals = np.log1p(np.outer(bets, values - bound)) @ nums
    best = float(capitals.max())
    return best + math.log(float(np.exp(capitals - best).mean()))


def log_evidence_below(counts: Counts, bound: float, *, high: float, fractions: tuple[float, ...] = FRACTIONS) -> float:
    """Return the logarithm of the evidence that a mean is below a bound; `high` is the highest possible value."""
    return log_evidence_above({-value: num for value, num in counts.items()}, -bound, low=-high, fractions=fractions)


def log_evidence_of_share(num_yes: int, num_no: int, share: float) -> float:
    """Return the logarithm of the evidence that more than a share of events are of one kind.

    Of requests that one of two models fails and the other does not, half are the first's where both are alike: the
    sign test. Where a request goes to one model alone, drawn with probability `share`, that share of all failures is
    its own.

    >>> 11 * math.log(2) > log_evidence_of_share(11, 0, 0.5) > math.log(200)
    True
    """
    return log_evidence_above({1.0: num_yes, 0.0: num_no}, share, low=0.0, fractions=SIGN_FRACTIONS)


def log_evidence_of_planned_share(num_yes: int, num_no: int, first_yes: int, share: float) -> float:
    """Return the log evidence for a share, with most of the capital on a test planned for `NUM_PLANNED` events.

    The rest is on the bets of `log_evidence_of_share`, which go on for ever and have less power at the plan's end. The
    capital of the planned binomial test is the probability that it will reject, given the events so far and a fair
    share, over what that was before the first event: Koning and van Meer, "Anytime validity is free" (JRSS B 2026,
    arxiv.org/abs/2501.03982).

    Args:
        num_yes, num_no: events so far.
        first_yes: `num_yes` of the first `NUM_PLANNED` events.
        share: of events, if the hypothesis that is tested holds.

    >>> log_evidence_of_planned_share(29, 11, 29, 0.5) > threshold(0.035) > log_evidence_of_share(29, 11, 0.5)
    True
    """
    going_on = log_evidence_of_share(num_yes, num_no, share)
    needed, error = _plan(share)
    if needed > NUM_PLANNED:
        return going_on
    num_left = max(NUM_PLANNED - num_yes - num_no, 0)
    planned = _at_least(needed - first_yes, num_left, share) / error
    parts = going_on + math.log(1 - _PLANNED_PART), math.log(planned * _PLANNED_PART) if planned else -math.inf
    return float(np.logaddexp(*parts))


@cache
def _plan(share: float) -> tuple[int, float]:
    """Return how many events must be of a kind, and the error then; one more than there are for a share near 1."""
    errors = ((num, _at_least(num, NUM_PLANNED, share)) for num in range(NUM_PLANNED + 2))
    return next((num, error) for num, error in errors if error <= _PLANNED_ERROR)


def _at_least(num_yes: int, num: int, share: float) -> float:
    """Return the probability of so many events or more out of `num`."""
    return sum(math.comb(num, k) * share**k * (1 - share) ** (num - k) for k in range(max(num_yes, 0), num + 1))


def upper_limit(
    counts: Counts, alpha: float, *, low: float, high: float, fractions: tuple[float, ...] = FRACTIONS
) -> float:
    """Return the upper end of a mean's confidence sequence: with probability 1 - alpha it is never below the mean.

    >>> round(upper_limit({0.0: 200}, 0.05, low=-1.0, high=1.0), 3)
    0.024
    >>> upper_limit({}, 0.05, low=-1.0, high=1.0)
    1.0
    """
    below, above = low, high
    for _ in range(_NUM_HALVINGS):
        middle = (below + above) / 2
        if log_evidence_below(counts, middle, high=high, fractions=fractions) >= threshold(alpha):
            above = middle
        else:
            below = middle
    return above if above < high - 1e-6 else high
