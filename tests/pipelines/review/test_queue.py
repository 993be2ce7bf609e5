"""Tests of which photo is next for whom."""

from pathlib import Path

import pytest

from components.artifacts.labels import add_decisions
from components.errors import DataError
from pipelines.review.items import Item, read_class_names, read_suspects_of
from pipelines.review.ledger import Ledger
from pipelines.review.queue import LEASE_S, Queue
from tests.pipelines.review.drawn_run import draw, write_run
from tests.pipelines.review.test_ledger import make

PHOTOS = [f"{number:064x}" for number in range(4)]


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def open_queue(path: Path, clock: Clock) -> Queue:
    queue = Queue(Ledger(path), clock=clock)
    items = [Item(photo, f"{photo[-1]}.jpg", "suspect", lambda: b"") for photo in PHOTOS]
    queue.load(items[:3], items, class_names=["rose"])
    return queue


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> Queue:
    return open_queue(tmp_path / "labels.jsonl", clock)


def take(queue: Queue, client: str, *held: str) -> str | None:
    item, _ = queue.take(client, held)
    return item and item.sha256


def decide(path: Path, photo: str, **options: str) -> None:
    add_decisions(path, [{**make(1, **options), "sha256": photo}])  # type: ignore[typeddict-item, arg-type]


def test_what_was_handed_out_is_held_also_from_another_server(queue: Queue, tmp_path: Path, clock: Clock) -> None:
    other = open_queue(tmp_path / "labels.jsonl", clock)
    assert [take(queue, "ada"), take(other, "ben"), take(queue, "cleo")] == PHOTOS[:3]
    assert take(queue, "ada", PHOTOS[0]) == PHOTOS[3]
    assert take(other, "dan") == PHOTOS[0], "where nothing else is left, two see one photo"


def test_a_lease_ends_by_itself_and_is_renewed_by_its_holder(queue: Queue, clock: Clock) -> None:
    assert take(queue, "ada") == PHOTOS[0]
    clock.now_s = LEASE_S - 1
    assert take(queue, "ada", PHOTOS[0]) == PHOTOS[1]
    clock.now_s = LEASE_S + 1
    assert take(queue, "ben") == PHOTOS[2]
    clock.now_s = 2 * LEASE_S
    assert take(queue, "ben") == PHOTOS[0]


def test_decided_photos_do_not_come_and_undone_ones_come_back(queue: Queue, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    decide(path, PHOTOS[0])
    decide(path, PHOTOS[1], decision="skip")
    assert take(queue, "ada") == PHOTOS[2]
    progress = queue.measure()
    assert (progress.left, progress.done, progress.people) == (2, 2, {"ada": 2})
    decide(path, PHOTOS[0], decision="undo")
    assert take(queue, "ada") == PHOTOS[0]


def test_a_photo_that_cannot_be_shown_is_passed_over_until_the_queue_is_loaded_anew(queue: Queue) -> None:
    queue.pass_over(PHOTOS[0])
    assert take(queue, "ada") == PHOTOS[1]
    assert queue.measure().left == 3


def test_classes_that_were_decided_beyond_the_run_follow_its_own(queue: Queue, tmp_path: Path) -> None:
    decide(tmp_path / "labels.jsonl", PHOTOS[0], label="lily")
    decide(tmp_path / "labels.jsonl", PHOTOS[1], label="rose")
    assert queue.measure().classes == ["rose", "lily"]


def test_damaged_leases_are_no_leases(queue: Queue, tmp_path: Path) -> None:
    (tmp_path / ".labels.jsonl.leases").write_text("{")
    assert take(queue, "ada") == PHOTOS[0]


def test_suspects_come_before_doubted_labels_the_most_improbable_first(tmp_path: Path) -> None:
    run = write_run(tmp_path, 4)
    path = run.run_dir / "suspects.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    items = read_suspects_of(run.run_dir)
    assert [item.sha256 for item in items] == run.photos
    assert [item.why for item in items] == ["suspect", "suspect", "doubted", "doubted"]
    assert [item.read() for item in items] == [draw(number) for number in range(4)]
    assert read_class_names(run.run_dir) == ["daisy", "roses", "tulips"]


def test_without_a_run_there_are_no_suspects_and_a_damaged_index_is_an_error(tmp_path: Path) -> None:
    assert read_suspects_of(tmp_path / "latest") == read_class_names(tmp_path / "latest") == []
    run = write_run(tmp_path, 2)
    next(tmp_path.glob("artifacts/examples/*/index.jsonl")).write_text("{}\n")
    with pytest.raises(DataError, match=r"index\.jsonl"):
        read_suspects_of(run.run_dir)
