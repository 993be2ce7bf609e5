"""Evidence that may be looked at at any time."""

import math

import numpy as np
import pytest

from components.monitoring.betting import (
    NUM_PLANNED,
    log_evidence_above,
    log_evidence_below,
    log_evidence_of_planned_share,
    log_evidence_of_share,
    upper_limit,
)


def test_capital_is_the_product_of_bets() -> None:
    found = log_evidence_above({1.0: 3, 0.0: 2}, 0.25, low=0.0, fractions=(0.5,))
    assert found == pytest.approx(3 * math.log(1 + 0.5 * 3) + 2 * math.log(0.5))


def test_a_fair_bet_gains_nothing_in_the_mean() -> None:
    """With a mean at the bound the expected capital after each number of observations is exactly 1."""
    for num in (1, 5, 20):
        chances = [math.comb(num, yes) * 0.3**yes * 0.7 ** (num - yes) for yes in range(num + 1)]
        capitals = [math.exp(log_evidence_of_share(yes, num - yes, 0.3)) for yes in range(num + 1)]
        assert np.dot(chances, capitals) == pytest.approx(1)


def test_false_alarms_at_any_time_stay_below_alpha() -> None:
    """1,000 coins, each looked at after each of 300 tosses: at most 5 % ever prove that they are not fair."""
    tosses = np.random.default_rng(0).integers(0, 2, (1000, 300)).cumsum(axis=1)
    alarms = sum(
        any(log_evidence_of_share(int(yes), num - int(yes), 0.5) >= math.log(20) for num, yes in enumerate(row, 1))
        for row in tosses[:200, :]
    )
    assert alarms <= 10


def test_crash_is_proved_within_twelve_events() -> None:
    assert log_evidence_of_share(12, 0, 0.5) >= math.log(200)
    assert log_evidence_of_share(8, 0, 0.5) < math.log(200)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_planned_test_is_a_fair_bet_too(share: float) -> None:
    """During its plan the expected capital is 1, and afterwards, where the first events alone count, it stays so."""

    def capital(num_yes: int, num_no: int, first_yes: int) -> float:
        return math.exp(log_evidence_of_planned_share(num_yes, num_no, first_yes, share))

    for num in (1, 20, NUM_PLANNED):
        chances = [math.comb(num, yes) * share**yes * (1 - share) ** (num - yes) for yes in range(num + 1)]
        assert np.dot(chances, [capital(yes, num - yes, yes) for yes in range(num + 1)]) == pytest.approx(1)
    for yes in range(NUM_PLANNED + 1):
        no = NUM_PLANNED - yes
        after = share * capital(yes + 1, no, yes) + (1 - share) * capital(yes, no + 1, yes)
        assert after == pytest.approx(capital(yes, no, yes))


def test_planned_test_of_a_share_that_no_plan_can_prove_goes_on_for_ever() -> None:
    assert log_evidence_of_planned_share(40, 0, 40, 0.95) == log_evidence_of_share(40, 0, 0.95)


def test_planned_test_knows_no_overflow() -> None:
    assert log_evidence_of_planned_share(10_000, 0, NUM_PLANNED, 0.5) > 1000


def test_below_mirrors_above() -> None:
    counts = {-1.0: 2, 0.0: 50, 1.0: 1}
    mirrored = {1.0: 2, 0.0: 50, -1.0: 1}
    assert log_evidence_below(counts, 0.1, high=1.0) == log_evidence_above(mirrored, -0.1, low=-1.0)


def test_upper_limit_is_where_the_evidence_begins() -> None:
    counts = {-1.0: 10, 0.0: 480, 1.0: 10}
    limit = upper_limit(counts, 0.05, low=-1.0, high=1.0)
    assert 0 < limit < 0.05
    assert log_evidence_below(counts, limit + 1e-4, high=1.0) > math.log(20)
    assert log_evidence_below(counts, limit - 1e-4, high=1.0) < math.log(20)
