import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.labels import (
    Decision,
    add_decisions,
    find_current,
    read_decisions,
    read_decisions_from,
)
from components.errors import DataError


def decide(letter: str = "a", label: str | None = "rose", **changes: Any) -> Decision:
    decision = Decision(
        sha256=letter * 64,
        photo=f"{letter}.jpg",
        decision="none" if label is None else "label",
        label=label,
        who="anna",
        when="2026-11-26T20:00:00+00:00",
        why="",
    )
    return {**decision, **changes}  # type: ignore[typeddict-item]


def test_decisions_are_read_as_they_were_added(tmp_path: Path) -> None:
    path = tmp_path / "new" / "labels.jsonl"
    assert read_decisions(path) == []
    add_decisions(path, [decide("a", photo="café.jpg"), decide("b", None)])
    add_decisions(path, [decide("c", who="ben")])
    assert [d["sha256"][0] + d["who"] for d in read_decisions(path)] == ["aanna", "banna", "cben"]
    assert read_decisions(path)[0]["photo"] == "café.jpg"


def test_reading_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    add_decisions(path, [decide("a")])
    first, offset = read_decisions_from(path, 0)
    add_decisions(path, [decide("b")])
    second, end = read_decisions_from(path, offset)
    assert ([d["sha256"][0] for d in first], [d["sha256"][0] for d in second]) == (["a"], ["b"])
    assert read_decisions_from(path, end) == ([], end)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["rose"], "rose"),
        (["rose", "tulip"], "tulip"),
        (["rose", "tulip", "undo"], "rose"),
        (["rose", "undo"], None),
        (["undo", "rose"], "rose"),
        (["rose", "undo", "undo", "tulip"], "tulip"),
    ],
)
def test_the_last_decision_counts_and_undo_takes_it_back(kinds: list[str], expected: str | None) -> None:
    lines = [decide(label=None, decision="undo") if kind == "undo" else decide(label=kind) for kind in kinds]
    current = find_current(lines)
    assert (current["a" * 64]["label"] if current else None) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "AB"}, "64 hexadecimal digits"),
        ({"decision": "perhaps"}, "must be one of"),
        ({"label": " rose"}, "without a space"),
        ({"label": ""}, "without a space"),
        ({"decision": "skip"}, "must be null"),
        ({"who": None}, "must be text"),
    ],
)
def test_what_is_no_decision_is_neither_added_nor_read(tmp_path: Path, changes: Any, message: str) -> None:
    path = tmp_path / "labels.jsonl"
    with pytest.raises(ValueError, match=message):
        add_decisions(path, [decide("a"), decide(**changes)])
    assert not path.exists()
    path.write_text(str(decide()) + "\n")
    with pytest.raises(DataError, match="must be a decision on a photo"):
        read_decisions(path)


def test_a_line_without_its_end_is_not_read_and_then_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "labels.jsonl"
    add_decisions(path, [decide("a")])
    with path.open("ab") as file:
        file.write(b'{"sha256": "' + b"b" * 9000)
    assert len(read_decisions(path)) == 1
    add_decisions(path, [decide("c")])
    assert [d["sha256"][0] for d in read_decisions(path)] == ["a", "c"]
    assert "removed" in caplog.text


def test_several_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"

    def write(letter: str) -> None:
        for _ in range(50):
            add_decisions(path, [decide(letter, who=letter * 200)])

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = [sum(d["sha256"][0] == letter for d in read_decisions(path)) for letter in "abcd"]
    assert counts == [50] * 4


_WRITER = """
import sys
from pathlib import Path
from components.artifacts.labels import add_decisions
from tests.components.artifacts.test_labels import decide
for number in range(10_000):
    add_decisions(Path(sys.argv[1]), [decide(who=f"{sys.argv[2]}-{number}")])
    print(number, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_has_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    confirmed = []
    for turn in range(5):
        command = [sys.executable, "-c", _WRITER, str(path), str(turn)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout
            for _ in range(3 + 7 * turn):
                last = int(writer.stdout.readline())
            os.kill(writer.pid, signal.SIGKILL)
            last = max([last, *map(int, writer.stdout.read().split())])
        confirmed += [f"{turn}-{number}" for number in range(last + 1)]
    found = {d["who"] for d in read_decisions(path)}
    assert set(confirmed) <= found
