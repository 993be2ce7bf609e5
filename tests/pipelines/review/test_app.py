"""Tests of the server over HTTP: what it takes, what it refuses, and how it starts and ends."""

import hashlib
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipelines.__main__ import main
from pipelines.review.desk import Desk, Task
from tests.pipelines.review.conftest import Review, start_review
from tests.pipelines.review.drawn_run import DrawnRun, draw, write_run
from tests.ready import ROOT
from tests.serving.web.conftest import wait_until

FOREIGN = {"Origin": "https://elsewhere.example"}


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Review]:
    """A server that is sent nothing that it may save."""
    folder = tmp_path_factory.mktemp("refusing")
    with start_review(write_run(folder / "runs", 2).runs_dir, folder / "labels.jsonl") as started:
        yield started


def test_photos_are_served_by_content_alone(review: Review, run: DrawnRun) -> None:
    response = review.get(f"/photos/{run.photos[3]}")
    assert (response.content, response.headers["content-type"]) == (draw(3), "image/jpeg")
    for name in ("0" * 64, "..%2f..%2fetc%2fpasswd", "labels.jsonl"):
        assert review.get(f"/photos/{name}").status_code == 404


def test_a_decision_is_a_line_and_a_repeat_is_not_a_second(review: Review, run: DrawnRun) -> None:
    for _ in range(3):
        response = review.decide("ada", run.photos[0], "roses", id="ada.7", who="Ada Lovelace")
        assert (response.status_code, response.json()["saved"]) == (200, "ada.7")
    (line,) = review.labels.read_text().splitlines()
    found = json.loads(line)
    assert found.pop("when").endswith("+00:00")
    assert found == {
        "sha256": run.photos[0],
        "photo": "train/daisy/00000.jpg",
        "decision": "label",
        "label": "roses",
        "who": "Ada Lovelace",
        "why": "suspect",
        "id": "ada.7",
    }


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"label": " rose"}, "label must be printable text"),
        ({"label": None}, "label must be printable text"),
        ({"decision": "maybe"}, "decision must be one of label, none, skip, undo"),
        ({"decision": "none"}, "label must be null where decision is none"),
        ({"sha256": "1.jpg"}, "sha256 must be 64 hexadecimal digits"),
        ({"who": ""}, "who must be printable text"),
        ({"who": 5}, "who must be printable text"),
        ({"id": "a\nb"}, "id must be printable text"),
        ({"label": "x" * 10_000}, "A request may have 10000 bytes"),
    ],
)
def test_what_is_no_decision_is_refused_with_the_rule(
    refusing: Review, further: dict[str, object], message: str
) -> None:
    body = {"sha256": "0" * 64, "photo": "1.jpg", "decision": "label", "label": "roses", "who": "Ada", "id": "a.1"}
    response = refusing.post("/api/decisions", json={**body, **further})
    assert response.status_code in (400, 413)
    assert message in response.json()["error"]
    assert not refusing.labels.exists()
    assert refusing.post("/api/decisions", data="[]").status_code == 400


def test_pages_of_other_sites_change_nothing(review: Review, run: DrawnRun) -> None:
    assert review.post("/api/decisions", json={}, headers=FOREIGN).status_code == 403
    assert review.post("/api/training", json={"action": "start"}, headers=FOREIGN).status_code == 403
    assert review.get("/api/next?client=a", headers={"Host": "elsewhere.example"}).status_code == 421
    assert review.post("/api/training", json={"action": "dance"}).status_code == 400
    assert not review.labels.exists()


def test_nothing_but_its_own_files_can_run_in_the_page(review: Review) -> None:
    for path in ("/", "/api/next?client=a", "/api/none"):
        policy = review.get(path).headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
    report = review.get("/report")
    assert "script-src" not in report.headers["content-security-policy"]
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in report.headers["content-security-policy"]
    assert report.text.endswith("<p>A report.</p>")


def test_somebody_elses_decision_is_said_and_both_lines_stay(review: Review, run: DrawnRun) -> None:
    assert review.decide("ada", run.photos[0], "roses").json()["other"] is None
    assert review.decide("ada", run.photos[0], "daisy").json()["other"] is None, "one's own"
    assert review.decide("ben", run.photos[0], "daisy").json()["other"] is None, "the same"
    other = review.decide("ben", run.photos[0], decision="none").json()["other"]
    assert other is None, "one's own"
    other = review.decide("ada", run.photos[0], "tulips", id="ada.mine").json()["other"]
    assert other == {"decision": "none", "label": None, "who": "ben"}
    review.decide("ben", run.photos[0], "roses")
    refused = review.decide("ada", run.photos[0], decision="undo", undoes="ada.mine")
    assert (refused.status_code, refused.json()["other"]["who"]) == (409, "ben")
    assert len(review.decisions()) == 6


def test_two_servers_share_a_file(review: Review, run: DrawnRun) -> None:
    with start_review(run.runs_dir, review.labels) as other:
        first, second = review.take("ada")["item"]["sha256"], other.take("ben")["item"]["sha256"]
        assert [first, second] == run.photos[:2]
        review.decide("ada", first, "roses")
        other.decide("ben", second, "daisy")
        found = [each.take("cleo") for each in (review, other)]
        assert [(each["done"], each["people"]) for each in found] == [(2, {"ada": 1, "ben": 1})] * 2


def test_a_damaged_file_is_said_until_it_is_mended(review: Review, run: DrawnRun) -> None:
    review.labels.write_text("no decision\n")
    response = review.decide("ada", run.photos[0], "roses")
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert "Each line of" in response.json()["error"]
    review.labels.write_text("")
    assert review.decide("ada", run.photos[0], "roses").status_code == 200


def test_a_full_disk_is_said_and_nothing_is_half_written(small_disk, run: DrawnRun, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    small_disk("small")
    labels = tmp_path / "small" / "labels.jsonl"
    with start_review(run.runs_dir, labels, env={"TMPDIR": str(tmp_path)}) as review:
        review.decide("ada", run.photos[0], "roses")
        filler = tmp_path / "small" / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 1024)
        # What is left of the file's last page takes one of them at most.
        responses = [review.decide("ada", run.photos[1], f"{number}" + "r" * 4000) for number in range(2)]
        assert responses[-1].status_code == 503
        assert "No space left on device" in responses[-1].json()["error"]
        filler.unlink()
        assert review.decide("ada", run.photos[1], "daisy").status_code == 200
        assert review.decisions()[-1]["label"] == "daisy"


def test_with_a_token_everything_but_the_empty_page_needs_it(run: DrawnRun, tmp_path: Path) -> None:
    with start_review(run.runs_dir, tmp_path / "labels.jsonl", env={"REVIEW_TOKEN": "sesame"}) as review:
        assert review.get("/").status_code == 200
        paths = ("/api/next?client=a", f"/photos/{run.photos[0]}", "/report", "/api/training")
        assert {review.get(path).status_code for path in paths} == {401}
        assert review.decide("ada", run.photos[0], "roses").status_code == 401
        assert review.post("/api/token", data="wrong").status_code == 401
        bearer = {"Authorization": "Bearer sesame"}
        assert review.get("/api/next?client=a", headers=bearer).status_code == 200
        entered = review.post("/api/token", data="sesame")
        assert entered.status_code == 204
        cookie = entered.headers["set-cookie"]
        assert "sesame" not in cookie
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert {review.get(path).status_code for path in paths} == {200}
        assert review.decide("ada", run.photos[0], "roses").status_code == 200
        review.session.cookies.clear()
        statuses = [review.post("/api/token", data=f"guess {number}").status_code for number in range(25)]
        assert statuses[-1] == 429


def test_other_machines_need_a_token(run: DrawnRun, capsys: pytest.CaptureFixture[str], own_logging: None) -> None:
    assert main(["review", "--runs-dir", str(run.runs_dir), "--host", "0.0.0.0"]) == 2
    assert "so the page needs a token. Set REVIEW_TOKEN, or give --token-file." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 1, "A review needs a run of the pipeline that looked for doubted labels, or photos without labels."),
        (["--set", "trainer.epoch=2"], 2, "Did you mean 'trainer.epochs'?"),
        (["--count", "0"], 2, "--count takes a number of photos"),
        (["--who", " x"], 2, "--who takes printable text"),
        (["--port", "70000"], 2, "port must be 0 to 65535"),
        (["--token-file", "/none"], 1, "--token-file must be readable"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_shown(
    tmp_path: Path,
    arguments: list[str],
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    own_logging: None,
) -> None:
    labels = ["--labels", str(tmp_path / "labels.jsonl")]
    assert main(["review", "--runs-dir", str(tmp_path / "runs"), *labels, *arguments]) == status
    assert message in capsys.readouterr().err


def test_a_damaged_file_of_decisions_ends_the_start(
    run: DrawnRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], own_logging: None
) -> None:
    labels = tmp_path / "labels.jsonl"
    labels.write_text("{}\n")
    assert main(["review", "--runs-dir", str(run.runs_dir), "--labels", str(labels)]) == 1
    assert "Each line of" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(
    run: DrawnRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], own_logging: None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        labels = str(tmp_path / "labels.jsonl")
        assert main(["review", "--runs-dir", str(run.runs_dir), "--labels", labels, "--port", port]) == 1
    assert f"The review page listens on 127.0.0.1:{port}, and cannot: Address already in use" in capsys.readouterr().err


def test_the_server_ends_in_good_order(review: Review) -> None:
    assert review.stop() == 0


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_the_process_has_nothing_of_tensorflow(review: Review, run: DrawnRun) -> None:
    review.take("ada")
    review.get(f"/photos/{run.photos[0]}")
    review.decide("ada", run.photos[0], "roses")
    maps = Path(f"/proc/{review.process.pid}/maps").read_text()
    assert "PIL" in maps
    assert "tensorflow" not in maps.lower()
    assert "keras" not in maps.lower()


def choose_two(folder: str) -> list[tuple[str, str, str]]:
    """Choose as the pipeline's `select` does."""
    paths = sorted(Path(folder).iterdir())
    assert "tensorflow" not in sys.modules
    return [(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), "typical") for path in paths[:2]]


def test_photos_without_labels_follow_the_suspects(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", 2)
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.tif").write_bytes(draw(100 + number, "TIFF"))
    desk = Desk(
        Task(
            runs_dir=run.runs_dir,
            labels=tmp_path / "labels.jsonl",
            input=str(folder),
            choose=partial(choose_two, str(folder)),
        )
    )
    assert desk.selection
    wait_until(lambda: desk.queue.measure().left == 4)
    item, _ = desk.queue.take("ada", run.photos)
    assert item is not None
    assert (item.photo, item.why, item.given_label) == (str(folder / "0.tif"), "selected: typical", None)
    assert item.read() == draw(100, "TIFF")
    (folder / "0.tif").write_bytes(draw(7))
    with pytest.raises(Exception, match="another photo than the one that was chosen"):
        item.read()
    desk.close()


def fail_to_choose() -> list[tuple[str, str, str]]:
    raise ValueError("nothing to choose from")


def die() -> list[tuple[str, str, str]]:
    os._exit(3)


@pytest.mark.parametrize(("choose", "message"), [(fail_to_choose, "nothing to choose"), (die, "without a result")])
def test_a_choice_that_fails_is_said(tmp_path: Path, choose, message: str) -> None:  # type: ignore[no-untyped-def]
    desk = Desk(Task(runs_dir=tmp_path, labels=tmp_path / "labels.jsonl", input=str(tmp_path), choose=choose))
    assert desk.selection
    wait_until(lambda: not desk.selection.is_going_on)
    assert message in desk.selection.error
    desk.close()


def choose_for_long() -> list[tuple[str, str, str]]:
    time.sleep(60)
    return []


def test_a_training_ends_a_choice_and_the_choice_is_made_anew_after_it(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    task = Task(
        runs_dir=tmp_path / "runs",
        labels=tmp_path / "labels.jsonl",
        input=str(empty),
        choose=choose_for_long,
        assignments=[f"examples.source={empty}"],
    )
    desk = Desk(task)
    selection = desk.selection
    assert selection
    wait_until(lambda: bool(multiprocessing.active_children()))
    desk.train()
    assert not selection.is_going_on
    assert not selection.error
    wait_until(lambda: not desk.training.read().is_running)
    assert selection.is_going_on
    desk.close()
    assert not selection.is_going_on


def test_many_requests_without_a_body_or_an_end_do_no_harm(review: Review, run: DrawnRun) -> None:
    address = urlsplit(review.url)
    head = b"POST /api/decisions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{"
    for _ in range(20):
        with socket.create_connection((address.hostname, address.port or 0)) as sent:
            sent.sendall(head)
    assert review.decide("ada", run.photos[0], "roses").status_code == 200


def test_the_command_says_what_it_takes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "review", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--input FOLDER|URL" in done.stdout
