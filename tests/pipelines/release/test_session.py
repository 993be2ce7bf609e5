"""What is on disk of a release: it goes on after a kill, obeys people, and admits no second one."""

from pathlib import Path
from typing import Any

import pytest

from components.artifacts import release as records
from components.storage.files import file_lock
from pipelines.__main__ import main
from pipelines.release.session import Session


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


def test_second_release_is_refused(folder: Path, capsys: pytest.CaptureFixture) -> None:
    record(folder)
    with file_lock(folder / ".lock"):
        assert release(folder) == 1
    assert "One release of a model goes on at a time" in capsys.readouterr().err


def test_decided_release_is_not_decided_again(folder: Path, capsys: pytest.CaptureFixture) -> None:
    record(folder, status=records.PROMOTED)
    assert release(folder, "--roll-back") == 1
    assert "decides a release that is open" in capsys.readouterr().err
