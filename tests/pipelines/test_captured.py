"""Captured photos: which are to be decided on, and how those with a label become files to learn from."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.artifacts.labels import Decision, add_decisions
from components.data.sources.unlabelled import open_unlabelled
from components.errors import DataError
from pipelines.__main__ import main
from pipelines.captured import extract, find_labelled, find_unsure, read_photo
from pipelines.review.desk import Task
from pipelines.traffic import read_traffic
from tests.pipelines.review.conftest import Review, start_review
from tests.pipelines.review.drawn_run import draw
from tests.serving.shared.capture.records import CLASS_NAMES, make_message, write_file
from tests.serving.web.conftest import wait_until

NOW_S = 1_800_000_000
SURE, CLOSE, WIDE, STRANGE = draw(1), draw(2, "PNG"), draw(3), draw(4)
ROWS = {SURE: (0.9, 0.05, 0.05), CLOSE: (0.42, 0.4, 0.18), WIDE: (0.6, 0.35, 0.05), STRANGE: (0.7, 0.2, 0.1)}


def digest(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest()


def capture(folder: Path, *more: Any) -> Path:
    """Write what a server captured: each photo of `ROWS`, one of them twice, one as scores alone; return the folder."""
    folder.mkdir()
    messages = [
        make_message(NOW_S, list(ROWS.values()), images=list(ROWS), are_known=[True, True, True, False]),
        make_message(NOW_S + 1, [ROWS[WIDE]], images=[WIDE], are_known=[True]),
        make_message(NOW_S + 2, [ROWS[CLOSE]], are_known=[True]),
        *more,
    ]
    write_file(folder, NOW_S, messages)
    return folder


def decide(labels: Path, image: bytes, decision: str = "label", label: str | None = "roses") -> None:
    line = Decision(
        sha256=digest(image), photo="x", decision=decision, label=label, who="Ada", when="2026-11-27", why="captured"
    )
    add_decisions(labels, [line])


@pytest.fixture
def captured(tmp_path: Path) -> Path:
    return capture(tmp_path / "captured")


def test_photos_that_the_model_was_unsure_of_come_with_the_smallest_lead_first(captured: Path) -> None:
    found = find_unsure(captured)
    assert [each.sha256 for each in found] == [digest(image) for image in (CLOSE, WIDE, STRANGE)]
    assert [round(each.lead, 2) for each in found] == [0.02, 0.25, 0.5]
    assert [each.reason for each in found] == ["may be several", "may be several", "like none of the classes"]
    assert (found[0].name, found[0].label) == (f"{digest(CLOSE)}.png", "daisy")
    assert [read_photo(each.position, each.sha256) for each in found] == [CLOSE, WIDE, STRANGE]


def test_a_photo_that_was_deleted_for_its_age_is_an_error(captured: Path) -> None:
    first, second, _ = find_unsure(captured)
    with pytest.raises(DataError, match="holds another one"):
        read_photo(first.position, second.sha256)
    next(captured.iterdir()).unlink()
    with pytest.raises(DataError, match="A captured photo is gone"):
        read_photo(first.position, first.sha256)


def test_what_a_server_captured_is_traffic_to_watch(captured: Path) -> None:
    write_file(captured, NOW_S + 5, [make_message(NOW_S + 5, version=None), make_message(NOW_S + 6, version=6)])
    traffic = read_traffic(
        str(captured), model_name="flowers", version="7", class_names=list(CLASS_NAMES), num_strangest=2
    )
    expected = [*ROWS.values(), ROWS[WIDE], ROWS[CLOSE]]
    assert traffic.order == "as they came"
    assert traffic.predictions.probabilities == pytest.approx(np.array(expected))
    assert traffic.predictions.are_known.tolist() == [True, True, True, False, True, True]
    assert [strange.image for strange in traffic.strangest] == [SURE, CLOSE]
    assert traffic.left_out == {"of version unknown": 1, "of version 6": 1}


def test_a_model_without_limits_is_never_unsure(tmp_path: Path) -> None:
    write_file(tmp_path, NOW_S, [make_message(NOW_S, [ROWS[CLOSE]], images=[CLOSE])])
    assert find_unsure(tmp_path) == []


def test_photos_with_a_label_become_files_that_the_pipeline_knows_by_their_content(
    captured: Path, tmp_path: Path
) -> None:
    labels, to = tmp_path / "labels.jsonl", tmp_path / "photos"
    for image, decision in ((CLOSE, "label"), (STRANGE, "none"), (WIDE, "skip"), (draw(9), "label"), (SURE, "undo")):
        decide(labels, image, decision, "roses" if decision == "label" else None)
    for expected in ((1, 0), (0, 1)):
        assert extract(captured, to, wanted=find_labelled(labels)) == expected
    (photo,) = open_unlabelled(str(to))
    assert photo.encoded == CLOSE
    assert extract(captured, to, wanted=None) == (3, 1)
    assert {path.stem: path.read_bytes() for path in to.iterdir()} == {digest(image): image for image in ROWS}


def test_the_command_says_what_it_wrote_and_how_to_go_on(
    captured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, to = tmp_path / "labels.jsonl", tmp_path / "photos"
    command = ["labels", "extract", "--captured", str(captured), "--to", str(to), "--labels", str(labels)]
    assert main(command) == 0
    assert capsys.readouterr().out == f"Extracted: 0 photos into {to}. There already: 0.\n"
    decide(labels, WIDE)
    assert main(command) == 0
    assert f'make train SET="examples.unlabelled={to}"' in capsys.readouterr().out
    assert main([*command, "--all"]) == 0
    assert f"Extracted: 3 photos into {to}. There already: 1." in capsys.readouterr().out
    assert main(["labels", "extract", "--captured", str(tmp_path / "none")]) == 1
    assert "none: No such file or directory" in capsys.readouterr().err


def test_a_review_shows_them_and_learns_from_those_that_were_labelled(captured: Path, tmp_path: Path) -> None:
    runs_dir, labels = tmp_path / "runs", tmp_path / "labels.jsonl"
    task = Task(runs_dir=runs_dir, labels=labels, captured=captured)
    photos = task.captured_photos_dir
    assert not [each for each in task.command() if "unlabelled" in each]
    with start_review(runs_dir, labels, "--captured", captured, "--models-dir", tmp_path / "models") as review:
        item = review.take("ada")["item"]
        assert (item["sha256"], item["why"]) == (digest(CLOSE), "captured: may be several")
        assert (item["photo"], item["given"], item["suggested"]) == (f"{digest(CLOSE)}.png", None, "daisy")
        shown = review.get(f"/photos/{digest(CLOSE)}")
        assert (shown.content, shown.headers["Content-Type"]) == (CLOSE, "image/png")
        assert review.decide("ada", digest(CLOSE), "tulips").status_code == 200
        assert review.take("ada")["item"]["sha256"] == digest(WIDE)
        assert train(review) == "Stopped. The next training goes on where this one was."
    assert photos == tmp_path / "captured_photos"
    assert f"examples.unlabelled={photos}" in task.command()
    assert [path.read_bytes() for path in photos.iterdir()] == [CLOSE]


def train(review: Review) -> str:
    """Start a training, and stop it; return how it ended."""
    assert review.post("/api/training", json={"action": "start"}).status_code == 200
    assert review.post("/api/training", json={"action": "stop"}).status_code == 200
    wait_until(lambda: not review.get("/api/training").json()["is_running"])
    return str(review.get("/api/training").json()["result"])


def test_a_review_of_captured_photos_needs_no_run(captured: Path, tmp_path: Path) -> None:
    with start_review(tmp_path / "runs", tmp_path / "labels.jsonl", "--captured", captured) as review:
        assert review.take("ada")["left"] == 3
        next(captured.iterdir()).unlink()
        response = review.get(f"/photos/{digest(CLOSE)}")
        assert (response.status_code, "A captured photo is gone" in response.text) == (410, True)
        assert review.take("ada")["left"] == 2


def test_folders_of_photos_and_what_was_captured_are_not_reviewed_at_once(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["review", "--input", str(tmp_path), "--captured", str(tmp_path)])
    assert caught.value.code == 2
