"""Evidence rarely gathers against what is true, however often it is looked at, and soon against what is not."""

import doctest
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from components.monitoring import accuracy, reference, sequential

NUM_SEQUENCES, LENGTH, ERROR = 400, 400, 0.05
MOST = 0.08  # 5 % of 400 is exceeded by chance up to here with a probability below 1 %


def share_of_alarms(evidences: list[NDArray[np.float64]]) -> float:
    return float(np.mean([sequential.find_alarm(evidence, ERROR) is not None for evidence in evidences]))


@pytest.mark.parametrize("module", [accuracy, reference, sequential], ids=lambda module: module.__name__)
def test_examples_run(module: ModuleType) -> None:
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("bound", [0.02, 0.5, 0.9])
def test_a_mean_at_its_bound_raises_no_more_alarms_than_it_may(bound: float) -> None:
    draws = np.random.default_rng(1).random((NUM_SEQUENCES, LENGTH)) < bound
    assert share_of_alarms([sequential.weigh_mean(draw, bound) for draw in draws]) <= MOST


def test_values_that_depend_on_those_before_raise_no_more_alarms() -> None:
    draws = np.random.default_rng(2).random((NUM_SEQUENCES, LENGTH))
    # Long runs: each value is the one before, or its opposite, as likely.
    values = np.logical_xor.accumulate(draws < 0.5, axis=1)
    assert share_of_alarms([sequential.weigh_mean(value, 0.5) for value in values]) <= MOST


def test_evidence_has_a_mean_of_one_where_the_mean_is_at_its_bound() -> None:
    # All 4096 sequences of 12 values, so nothing is left to chance; 0.3 is the probability of a 1.
    ones = (np.arange(4096)[:, np.newaxis] >> np.arange(12)) & 1
    probabilities = np.prod(np.where(ones, 0.3, 0.7), axis=1)
    mean = sum(
        probability * np.exp(sequential.weigh_mean(row, 0.3)[-1])
        for probability, row in zip(probabilities, ones, strict=True)
    )
    assert mean == pytest.approx(1, abs=1e-9)


def test_evidence_has_a_mean_of_one_while_gamblers_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequential, "RESTART_EVERY", 3)
    test_evidence_has_a_mean_of_one_where_the_mean_is_at_its_bound()


@pytest.mark.parametrize("before", [0, 1000])
def test_a_change_is_found_early_and_late(before: int) -> None:
    generator = np.random.default_rng(3)
    delays = []
    for _ in range(50):
        values = generator.random(before + 200) < np.r_[np.full(before, 0.02), np.full(200, 0.3)]
        found = sequential.find_alarm(sequential.weigh_mean(values, 0.05), ERROR)
        assert found is not None
        delays.append(found - before)
    assert np.median(delays) <= 60
    assert min(delays) > 0


def test_a_range_is_left_on_either_side() -> None:
    low, high = np.full(200, 0.2), np.full(200, 0.8)
    assert sequential.weigh_range(low, 0.4, 0.6)[-1] > sequential.threshold(ERROR)
    assert sequential.weigh_range(high, 0.4, 0.6)[-1] > sequential.threshold(ERROR)
    assert sequential.weigh_range(np.full(200, 0.5), 0.4, 0.6).max() <= 0


def test_a_side_that_cannot_be_left_costs_nothing() -> None:
    values = np.random.default_rng(4).random(100)
    np.testing.assert_array_equal(sequential.weigh_range(values, 0, 0.4), sequential.weigh_mean(values, 0.4))
    assert not sequential.weigh_range(values, 0, 1).any()


def test_interval_holds_the_mean_at_all_steps_at_once() -> None:
    draws = np.random.default_rng(6).beta(8, 2, (200, 300))  # with a mean of 0.8
    missed = 0
    for draw in draws:
        intervals = [sequential.interval(draw[:count], ERROR) for count in (5, 20, 50, 100, 300)]
        missed += not all(low <= 0.8 <= high for low, high in intervals)
    assert missed / len(draws) <= MOST
    low, high = sequential.interval(draws[0], ERROR)
    assert 0 < high - low < 0.1


def test_without_values_nothing_is_known() -> None:
    nothing = np.empty(0)
    assert sequential.weigh_mean(nothing, 0.5).shape == (0,)
    assert sequential.interval(nothing, ERROR) == (0, 1)


@pytest.mark.parametrize("values", [[0.5, 1.5], [-0.1], [float("nan")]])
def test_values_beyond_0_to_1_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="values must be 0 to 1"):
        sequential.weigh_mean(np.array(values), 0.5)


def test_bound_of_0_is_refused() -> None:
    with pytest.raises(ValueError, match=r"bound must be above 0\. Received: 0"):
        sequential.weigh_mean(np.array([0.5]), 0)
