"""Random small situations, each held to the same invariants: see `invariants.py`.

    CAMPAIGN_SEED=5 CAMPAIGN_SITUATIONS=200 pytest tests/campaign -m slow -n 2     the whole campaign
    CAMPAIGN_SEED=5 CAMPAIGN_SITUATIONS=200 pytest tests/campaign -m slow -k '[17]' -s     one situation again

A situation is drawn from the seed and its number alone. A few that stop after the data are played in every test run.
"""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.campaign import invariants, situations
from tests.campaign.faults import FAULTS
from tests.campaign.session import Outcome, Session
from tests.campaign.situations import Situation
from tests.campaign.warm_python import WarmPython

SEED = int(os.environ.get("CAMPAIGN_SEED", "1"))
NUM_SITUATIONS = int(os.environ.get("CAMPAIGN_SITUATIONS", "10"))
SEED_OF_FEW = 1
FEW = (0, 1, 2, 3, 5, 7, 8, 9, 12, 13, 14, 15, 17, 19, 20, 23, 25, 27)


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmPython]:
    warm = WarmPython(tmp_path_factory.mktemp("warm"))
    yield warm
    warm.stop()


def play(session: Session) -> list[str]:
    """Play a situation and return what invariants it breaks."""
    found: list[str] = []

    def check(session: Session, outcome: Outcome) -> None:
        checks = [partial(invariants.check_outcome, session, outcome)]
        if outcome.status in (0, 3):
            checks += [partial(invariants.check_record, session), partial(invariants.check_fallback, session, outcome)]
        found.extend(f"{line}\n{outcome}" for line in invariants.broken(*checks))
        found.extend(invariants.broken(half_written))

    half_written = partial(
        invariants.check_nothing_half_written_is_visible, session.runs, session.models, session.damaged
    )
    session.check = check
    found += invariants.broken(lambda: FAULTS[session.situation.fault](session))
    found += invariants.broken(half_written)
    end = session.run()
    is_good = end.status in (0, 3)
    if session.situation.is_plain and not is_good:
        found.append(f"the fault is removed, and the same command does not come to a good end\n{end}")
    if is_good:
        found += invariants.broken(
            partial(invariants.check_classes, session),
            partial(invariants.check_photos, session),
            partial(invariants.check_splits, session),
            partial(invariants.check_no_leftovers, session.runs, session.models),
            *([partial(invariants.check_pushed, session)] if not session.last_step else []),
        )
    before = invariants.snapshot(session)
    again = session.run()
    return found + invariants.broken(partial(invariants.check_rerun, session, before, end, again))


def fail_if_broken(session: Session, found: list[str]) -> None:
    __tracebackhide__ = True
    if found:
        pytest.fail("\n\n".join([str(session.situation), *found]), pytrace=False)


def describe(seed: int, number: int, situation: Situation) -> None:
    again = f"CAMPAIGN_SEED={seed} CAMPAIGN_SITUATIONS={number + 1} pytest tests/campaign -m slow -k '[{number}]'"
    print(f"situation {number} of seed {seed}: {situation}\nagain: {again}")  # noqa: T201


@pytest.mark.slow
@pytest.mark.parametrize("number", range(NUM_SITUATIONS))
def test_no_situation_breaks_an_invariant(python: WarmPython, tmp_path: Path, number: int) -> None:
    situation = situations.draw(SEED, number, tuple(FAULTS)[1:])
    describe(SEED, number, situation)
    session = Session(tmp_path, situation, python)
    situations.build(situation, session.data)
    fail_if_broken(session, play(session))


@pytest.mark.parametrize("number", FEW)
def test_no_data_breaks_an_invariant(tmp_path: Path, own_logging: None, number: int) -> None:
    """The first steps alone, in this process."""
    situation = situations.draw(SEED_OF_FEW, number, faults=())
    describe(SEED_OF_FEW, number, situation)
    session = Session(tmp_path, situation, last_step="validator")
    situations.build(situation, session.data)
    fail_if_broken(session, play(session))
