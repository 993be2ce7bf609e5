"""What is on disk of a release: it goes on after a kill, obeys people, and admits no second one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.artifacts import release as records
from components.storage.files import file_lock
from pipelines.__main__ import main
from pipelines.release.session import Session
from serving.proxy.plan import Board, Plan


def record(folder: Path, **changes: Any) -> records.ReleaseRecord:
    made: Any = {
        "number": 1, "model_name": "flowers", "stable": 1, "canary": 2, "mode": "shadow", "salt": "", "config": None,
        "server": None, "options": {"min_requests": 100, "max_requests": 1000}, "status": records.RUNNING, "who": "",
        "reason": "", "started": "", "decided": None, "evidence": {}, **changes,
    }  # fmt: skip
    records.write_release(folder, made)
    return made


def pair(number: int, canary: str = "a") -> dict[str, Any]:
    reply = {"label": "a", "probability": 0.9, "is_known": True, "latency_ms": None, "failed": False}
    return {"photo": f"{number:064x}", "stable": reply, "canary": {**reply, "label": canary}, "estimated_drop": None}


class ControlPort:
    """The proxy's control port without a network; a step runs before each reading, and the last one ends it."""

    def __init__(self, board: Board, *steps: Callable[[], Any]) -> None:
        self.board, self._steps = board, iter(steps)

    def begin(self, plan: dict[str, Any]) -> int:
        self.board.begin(Plan(**plan))
        return self.board.num_observed

    def observations(self, after: int, salt: str) -> dict[str, Any]:
        step = next(self._steps, None)
        if step is None:
            raise KeyboardInterrupt
        step()
        has_plan = self.board.plan is not None
        return {"has_plan": has_plan, "num_skipped": 0, "observations": self.board.after(after)}


def watch(folder: Path, board: Board, *steps: Callable[[], Any]) -> None:
    """Continue a release until it is killed after the last step."""
    with pytest.raises(KeyboardInterrupt):
        Session(folder, records.read_releases(folder)[0]).watch(
            ControlPort(board, *steps),  # type: ignore[arg-type]
            PLAN,
        )


PLAN = {"mode": "shadow", "stable": 1, "canary": 2, "salt": "x"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return records.releases_dir(tmp_path / "models", "flowers")


def release(folder: Path, *arguments: str) -> int:
    return main(["release", "--models-dir", str(folder.parents[1]), *arguments])


def test_killed_release_goes_on_from_its_evidence(folder: Path) -> None:
    first = Session(folder, record(folder))
    first.judge(pair(number) for number in range(120))
    with (folder / "1.jsonl").open("a") as file:
        file.write('{"photo": "torn')
    again = Session(folder, records.read_releases(folder)[0])
    assert again.release.counts == first.release.counts
    again.judge([pair(120)])
    assert len(records.read_evidence(folder, 1)) == 121


def test_killed_before_its_decision_is_written_decides_on_what_it_has(folder: Path) -> None:
    first = Session(folder, record(folder, options={"min_requests": 10, "max_requests": 20}))
    first.judge(pair(number) for number in range(20))
    record(folder, options={"min_requests": 10, "max_requests": 20})  # as it was before
    again = Session(folder, records.read_releases(folder)[0])
    assert not again.judge([pair(20)])
    assert (again.record["status"], again.record["reason"]) == (first.record["status"], first.record["reason"])
    assert len(records.read_evidence(folder, 1)) == 20


def test_killed_release_reads_no_observation_twice(folder: Path) -> None:
    record(folder)
    board = Board()

    def see(*numbers: int) -> Callable[[], None]:
        return lambda: [board.add(Plan(**PLAN), pair(number)) for number in numbers] and None

    watch(folder, board, see(1, 2, 3))
    watch(folder, board, see(4))
    watch(folder, board, see(5), see(), lambda: board.end(), see())  # its plan ended while it was asleep
    assert len(records.read_evidence(folder, 1)) == 5


def test_killed_after_the_decision_only_carries_it_out(folder: Path) -> None:
    record(folder, status=records.ROLLING_BACK, who="tests", reason="errors", decided="now")
    assert release(folder) == 3
    assert records.read_releases(folder)[0]["status"] == records.ROLLED_BACK


def test_labels_that_come_later_are_joined(folder: Path, tmp_path: Path) -> None:
    from components.artifacts.labels import Decision, add_decisions

    labels = tmp_path / "labels.jsonl"
    held = Session(folder, record(folder), labels_path=labels)
    held.judge([pair(1, "b"), pair(2, "b")])
    decision = Decision(sha256=pair(1)["photo"], photo="", decision="label", label="a", who="me", when="", why="")
    add_decisions(labels, [decision])
    held.judge([])
    held.judge([])
    assert held.release.num_labelled == 1
    assert held.release.counts["drop"] == {1.0: 1}


def test_person_without_a_login_name_decides(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, whose user is a number alone."""

    def fail() -> str:
        raise KeyError("getpwuid(): uid not found: 65534")

    monkeypatch.setattr("getpass.getuser", fail)
    record(folder)
    assert release(folder, "--promote") == 0
    assert records.read_releases(folder)[0]["who"] == "a person without a name"


@pytest.mark.parametrize(("flag", "status"), [("--promote", 0), ("--roll-back", 3), ("--stop", 4)])
def test_person_decides_an_open_release(folder: Path, flag: str, status: int, capsys: pytest.CaptureFixture) -> None:
    record(folder)
    assert release(folder, flag, "--who", "me", "--why", "because") == status
    assert release(folder, "--status") == 0
    assert "me: because" in capsys.readouterr().out


def test_person_decides_a_release_that_another_process_holds(folder: Path) -> None:
    held = Session(folder, record(folder))
    with file_lock(folder / ".lock"):
        assert release(folder, "--roll-back", "--who", "me") == 0
    held.judge([pair(1)])
    assert (held.record["status"], held.record["who"]) == (records.ROLLING_BACK, "me")


@pytest.mark.parametrize(("status", "flag", "exit_status"), [
    (records.PROMOTING, "--roll-back", 3), (records.ROLLING_BACK, "--promote", 0), (records.PROMOTING, "--stop", 1),
])  # fmt: skip
def test_person_decides_otherwise_before_a_decision_is_in_force(
    folder: Path, status: str, flag: str, exit_status: int
) -> None:
    record(folder, status=status, who="tests", reason="some", decided="now")
    assert release(folder, flag, "--who", "me") == exit_status
    found = records.read_releases(folder)[0]
    expected = {0: records.PROMOTED, 1: status, 3: records.ROLLED_BACK}[exit_status]
    assert (found["status"], found["who"]) == (expected, "tests" if exit_status == 1 else "me")


def test_order_outlives_a_release_that_is_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(folder, mode="offline")
    records.write_order(folder, {"what": "roll back", "who": "me", "why": ""})

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_release", killed)
        with pytest.raises(KeyboardInterrupt):
            Session(folder, records.read_releases(folder)[0]).judge([])
    held = Session(folder, records.read_releases(folder)[0])
    held.judge([])
    assert held.record["who"] == "me"
    assert records.read_order(folder) is None


def test_order_that_comes_too_late_is_not_passed_over_in_silence(folder: Path, capsys: pytest.CaptureFixture) -> None:
    record(folder, status=records.PROMOTING, who="tests", reason="some", decided="now")
    records.write_order(folder, {"what": "roll back", "who": "me", "why": ""})
    assert release(folder) == 0
    assert "--roll-back of me came too late" in capsys.readouterr().err
    assert records.read_order(folder) is None


@pytest.mark.parametrize("option", [("--candidate", "3"), ("--stable", "3"), ("--mode", "split")])
def test_open_release_does_not_go_on_as_another_one(
    folder: Path, capsys: pytest.CaptureFixture, option: tuple[str, str]
) -> None:
    record(folder, status=records.PROMOTING)
    assert release(folder, *option) == 1
    assert "must end before another one begins: 1 → 2" in capsys.readouterr().err
    assert records.read_releases(folder)[0]["status"] == records.PROMOTING


def test_second_release_is_refused(folder: Path, capsys: pytest.CaptureFixture) -> None:
    record(folder)
    with file_lock(folder / ".lock"):
        assert release(folder) == 1
    assert "One release of a model goes on at a time" in capsys.readouterr().err


def test_decided_release_is_not_decided_again(folder: Path, capsys: pytest.CaptureFixture) -> None:
    record(folder, status=records.PROMOTED)
    assert release(folder, "--roll-back") == 1
    assert "decides a release that is open" in capsys.readouterr().err
