"""Tests of the decisions as the page adds and follows them."""

import json
import threading
from pathlib import Path

import pytest

from components.artifacts.labels import Decision, add_decisions, read_decisions
from components.errors import DataError
from pipelines.review.ledger import Ledger, MadeDecision, OvertakenError

PHOTO = "a" * 64


def make(number: int, *, client: str = "ada", decision: str = "label", label: str | None = "rose") -> MadeDecision:
    return MadeDecision(
        sha256=PHOTO,
        photo="1.jpg",
        decision=decision,
        label=label if decision == "label" else None,
        who=client,
        when="2026-01-01T00:00:00+00:00",
        why="",
        id=f"{client}.{number}",
    )


def counting(ledger: Ledger) -> Decision | None:
    with ledger.turn() as current:
        return current.get(PHOTO)


def test_a_repeat_is_no_second_line_also_for_another_server(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    first, second = Ledger(path), Ledger(path)
    for ledger in (first, second, first, Ledger(path)):
        ledger.add(make(1))
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["ada.1"]


def test_what_others_add_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    ledger = Ledger(path)
    assert counting(ledger) is None
    other = Decision(sha256=PHOTO, photo="1.jpg", decision="none", label=None, who="Ben", when="now", why="")
    add_decisions(path, [other])
    assert (counting(ledger) or {}).get("who") == "Ben"
    assert (ledger.add(make(1)) or {}).get("who") == "Ben"
    assert (counting(ledger) or {}).get("label") == "rose"


def test_undo_takes_back_ones_own_decision_alone(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "labels.jsonl")
    ledger.add(make(1))
    ledger.add(make(1, client="ben", label="tulip"))
    with pytest.raises(OvertakenError) as raised:
        ledger.add(make(2, decision="undo"), undoes="ada.1")
    assert raised.value.by is not None
    assert raised.value.by["label"] == "tulip"
    ledger.add(make(2, client="ben", decision="undo"), undoes="ben.1")
    assert (counting(ledger) or {}).get("label") == "rose"
    ledger.add(make(3, decision="undo"), undoes="ada.1")
    ledger.add(make(3, decision="undo"), undoes="ada.1")
    assert counting(ledger) is None
    with pytest.raises(OvertakenError):
        ledger.add(make(4, decision="undo"), undoes="ada.1")
    assert len(read_decisions(ledger.path)) == 4


@pytest.mark.parametrize("change", ["replaced", "cut", "removed"])
def test_a_file_that_is_not_what_it_was_is_read_again(tmp_path: Path, change: str) -> None:
    path = tmp_path / "labels.jsonl"
    ledger = Ledger(path)
    ledger.add(make(1, label="a long label that the other file has not"))
    if change == "replaced":
        path.with_suffix(".new").write_text(json.dumps(make(2, label="tulip")) + "\n")
        path.with_suffix(".new").replace(path)
    elif change == "cut":
        path.write_text("")
    else:
        path.unlink()
    found = counting(ledger)
    assert (found and found["label"]) == ("tulip" if change == "replaced" else None)
    ledger.add(make(3, label="daisy"))
    assert (counting(ledger) or {}).get("label") == "daisy"


def test_a_damaged_file_is_an_error_until_it_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    ledger = Ledger(path)
    ledger.add(make(1))
    with path.open("a") as file:
        file.write("no decision\n")
    with pytest.raises(DataError, match="must be a decision on a photo"):
        ledger.add(make(2, label="tulip"))
    path.write_text(path.read_text().replace("no decision\n", ""))
    ledger.add(make(2, label="tulip"))
    assert len(read_decisions(path)) == 2


def test_many_threads_of_two_servers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    ledgers = [Ledger(path), Ledger(path)]

    def add(client: int) -> None:
        for number in range(25):
            ledgers[client % 2].add(make(number, client=str(client)))

    threads = [threading.Thread(target=add, args=(client,)) for client in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [json.loads(line)["id"] for line in path.read_text().splitlines()]
    assert sorted(ids) == sorted(f"{client}.{number}" for client in range(4) for number in range(25))
