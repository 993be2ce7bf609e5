"""Several workers on a network: after a fault, training ends as with one process, or an error names who is lost."""

from pathlib import Path

import pytest

from benchmarks.faults import FAULTS, MOMENTS, strike
from benchmarks.network import why_not
from benchmarks.workers import prepare

TIME_LIMIT_S = 500
"""For a loss to be noticed (10 s), waited for (150 s), and training to go on, on a machine that does other things."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("alone")
    prepare(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_training_with_a_fault_ends_as_without_or_names_the_lost_worker(
    name: str, prepared: Path, tmp_path: Path
) -> None:
    fault = FAULTS[name]
    outcome, addresses = strike(fault, prepared, tmp_path, moment=MOMENTS[0])
    assert outcome.is_as_expected(fault, addresses), outcome
    assert outcome.time_s < TIME_LIMIT_S
