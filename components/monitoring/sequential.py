"""Tests that may be looked at after every value, and a confidence sequence, of means of values between 0 and 1.

A test bets against its null hypothesis: evidence is the money that a gambler has, who began with 1 and cannot gain on
average where the hypothesis holds. So it ever reaches 1 / a with a probability of at most a (J. Ville, 1939), however
often it is looked at, and the mean of several evidences is an evidence again. Evidence is given as its natural
logarithm. The bets are those of I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by
betting", JRSS B 2024, with a fixed mixture of stakes.

The hypothesis is that each value's mean, given all values before it, is at most a bound; so values need not be
independent, nor have one distribution.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.monitoring.betting import threshold, upper_limit

Values = NDArray[np.floating]

STAKES = (0.05, 0.15, 0.4, 0.8)
"""Shares of the most that can be bet without ever losing everything; the money is split evenly between them."""
RESTART_EVERY = 50
"""Values after which another gambler begins: a change that comes late is found nearly as fast as an early one."""
FIRST_SHARE = 0.75
"""Of the money, what the first gambler has."""


def weigh_mean(values: Values, bound: float) -> NDArray[np.float64]:
    """Return the log evidence `[N]` after each value against "the mean is at most the bound".

    `FIRST_SHARE` of the money is bet from the first value on. The rest is for changes that come later: 1 / (j (j + 1))
    of it enters after j times `RESTART_EVERY` values, and waits until then.

    Args:
        values: `[N]`, each 0 to 1; truth values for a share.
        bound: above 0; one of 1 or more is no hypothesis that could be wrong.

    Raises:
        ValueError: a value is not between 0 and 1, or the bound not above 0.

    >>> evidence = weigh_mean(np.array([True] * 30), 0.5)  # all of what is to be every second at most
    >>> int((evidence >= threshold(0.05)).argmax()) + 1  # is known to be wrong after
    8
    >>> bool(weigh_mean(np.array([True, False] * 500), 0.5).max() < threshold(0.05))
    True
    """
    _check(values, bound)
    if bound >= 1 or not len(values):
        return np.zeros(len(values))
    money = np.cumsum(_log_gains(values, bound), axis=1)
    begun = np.arange(0, len(values), RESTART_EVERY)
    numbers = np.arange(1, len(begun))
    log_shares = np.log(np.concatenate([[FIRST_SHARE], (1 - FIRST_SHARE) / (numbers * (numbers + 1.0))]))
    before = np.concatenate([np.zeros((len(STAKES), 1)), money], axis=1)[:, begun]
    entered = np.logaddexp.accumulate(log_shares - before, axis=1)
    gambler = np.arange(len(values)) // RESTART_EVERY
    waiting = np.log(1 - FIRST_SHARE) - np.log(gambler + 1.0)
    each = np.logaddexp(money + entered[:, gambler], waiting)
    return np.logaddexp.reduce(each, axis=0) - np.log(len(STAKES))


def weigh_range(values: Values, low: float, high: float) -> NDArray[np.float64]:
    """Return the log evidence `[N]` against "the mean lies between two bounds"; 0 and 1 are none, and cost nothing.

    >>> evidence = weigh_range(np.full(100, 0.1), 0.4, 1.0)
    >>> bool(evidence[-1] >= threshold(0.01))
    True
    """
    sides = []
    if high < 1:
        sides.append(weigh_mean(values, high))
    if low > 0:
        sides.append(weigh_mean(1 - np.asarray(values, float), 1 - low))
    return mean_of(sides or [np.zeros(len(values))])


def mean_of(evidences: Sequence[NDArray[np.float64]], weights: Sequence[float] | None = None) -> NDArray[np.float64]:
    """Return the log of the mean of several evidences, each `[N]`: against all of their hypotheses together.

    Args:
        evidences: at least one.
        weights: what each counts, 1 in sum; the same by default.

    >>> np.exp(mean_of([np.log([1.0]), np.log([3.0])])).round(3).tolist()
    [2.0]
    >>> np.exp(mean_of([np.log([1.0]), np.log([3.0])], (0.75, 0.25))).round(3).tolist()
    [1.5]
    """
    weights = weights or [1 / len(evidences)] * len(evidences)
    return np.logaddexp.reduce(np.stack(evidences) + np.log(weights)[:, np.newaxis], axis=0)


def find_alarm(evidence: NDArray[np.float64], error: float) -> int | None:
    """Return how many values it took to reach the threshold; `None` where it never was.

    >>> find_alarm(np.array([0.0, 3.1, 0.2]), 0.05)
    2
    """
    reached = evidence >= threshold(error)
    return int(reached.argmax()) + 1 if reached.any() else None


def interval(values: Values, error: float) -> tuple[float, float]:
    """Return between what the mean lies: the last step of a confidence sequence, which holds at all steps at once.

    Args:
        values: `[N]`, each 0 to 1, of one mean; without any the interval is 0 to 1.
        error: the probability that the mean ever leaves the intervals, at most.

    >>> low, high = interval(np.tile([0.0, 1.0], 500), 0.05)
    >>> round(low, 2), round(high, 2)
    (0.45, 0.55)
    """
    _check(values, 0.5)
    distinct, nums = np.unique(values, return_counts=True)  # of truth values there are two
    counts = dict(zip(distinct.tolist(), nums.tolist(), strict=True))
    opposite = {1 - value: num for value, num in counts.items()}
    high, above_low = (upper_limit(each, error / 2, low=0, high=1, fractions=STAKES) for each in (counts, opposite))
    return 1 - above_low, high


def _log_gains(values: Values, bound: float) -> NDArray[np.float64]:
    """Return the log `[stakes, N]` of what each stake makes of 1 at each value."""
    return np.log1p(np.multiply.outer(STAKES, np.asarray(values, float) / bound - 1))


def _check(values: Values, bound: float) -> None:
    values = np.asarray(values, float)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"values must be 0 to 1. Received: {values.min()} to {values.max()}")
    if not bound > 0:
        raise ValueError(f"bound must be above 0. Received: {bound}")
