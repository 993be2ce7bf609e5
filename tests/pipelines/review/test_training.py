"""Tests of the training that the page starts: the pipeline's command, and commands that end in its ways."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.artifacts.examples import read_examples, read_index
from components.artifacts.labels import read_applied
from pipelines.review.desk import Task
from pipelines.review.training import BusyError, Progress, Training
from pipelines.runs import list_runs
from serving.web.assets import SAMPLES_DIR
from tests import tiny_pipeline
from tests.pipelines.review.conftest import Review, start_review
from tests.pipelines.review.drawn_run import DrawnRun, write_run
from tests.serving.web.conftest import wait_until

LONG_S = 600

# It has a child, says which, and would go on for a minute.
_LONG = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("child", child.pid)
time.sleep(60)
"""
_STUBBORN = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('ready'); time.sleep(60)"


def make(code: str, runs_dir: Path, ended: list[str] | None = None) -> Training:
    return Training(
        lambda: [sys.executable, "-c", code],
        runs_dir,
        on_end=lambda: ended.append("ended") if ended is not None else None,
    )


def wait_for_end(training: Training) -> Progress:
    wait_until(lambda: not training.read().is_running)
    return training.read()


def is_alive(pid: int) -> bool:
    """Return whether a process runs, and is not only waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("print('Pushed: models/flowers/2')", "Finished. The new model is pushed: models/flowers/2."),
        (
            "import sys; print('Not pushed: accuracy 0.5 is below 0.6'); sys.exit(3)",
            "Finished. The new model is not blessed, so it is not pushed: accuracy 0.5 is below 0.6",
        ),
        (
            "import sys; print('begins'); print('error: no photos\\n- here', file=sys.stderr); sys.exit(1)",
            "Failed, with exit status 1. no photos - here",
        ),
        (
            "import sys; print('1\\n2\\n3\\n4\\n5\\n6'); sys.exit(9)",
            "Failed, with exit status 9. 2 3 4 5 6",
        ),
    ],
)
def test_how_it_ended_is_said_in_words(tmp_path: Path, code: str, result: str) -> None:
    ended: list[str] = []
    training = make(code, tmp_path, ended)
    training.start()
    progress = wait_for_end(training)
    assert (progress.result, progress.number, ended) == (result, 1, ["ended"])
    training.start()
    assert wait_for_end(training).number == 2


def test_lines_are_read_as_they_come_and_no_more_are_kept_than_needed(tmp_path: Path) -> None:
    training = make("for number in range(5000): print(number)", tmp_path)
    training.start()
    assert wait_for_end(training).num_lines == 5000
    assert training.read(4998).lines == ["4998", "4999"]
    assert len(training.read(0).lines) == 2000
    assert training.read(6000).lines == []


def test_there_is_one_at_a_time_and_stop_ends_it_with_all_its_processes(tmp_path: Path) -> None:
    training = make(_LONG, tmp_path)
    training.start()
    wait_until(lambda: training.read().num_lines == 1)
    with pytest.raises(BusyError):
        training.start()
    child = int(training.read().lines[0].split()[1])
    training.stop()
    assert training.read().result == "Stopped. The next training goes on where this one was."
    wait_until(lambda: not is_alive(child))


def test_one_that_does_not_heed_the_first_signal_is_ended_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.review.training._STOP_S", 0.2)
    training = make(_STUBBORN, tmp_path)
    training.start()
    wait_until(lambda: training.read().num_lines == 1)
    training.stop()
    assert not training.read().is_running


def test_a_run_that_others_started_is_not_disturbed(tmp_path: Path) -> None:
    run_dir = tmp_path / "20260101-000000-0001"
    run_dir.mkdir()
    record = {"run": run_dir.name, "status": "running", "process": os.getpid()}
    (run_dir / "run.json").write_text(json.dumps(record))
    training = make("", tmp_path)
    with pytest.raises(BusyError, match="20260101-000000-0001"):
        training.start()
    (run_dir / "run.json").write_text(json.dumps({**record, "status": "finished"}))
    training.start()
    wait_for_end(training)


def test_the_command_trains_with_the_decisions_and_what_was_asked_for(tmp_path: Path) -> None:
    labels = tmp_path / "labels.jsonl"
    task = Task(runs_dir=tmp_path, models_dir="m", labels=labels, input="photos", assignments=["trainer.epochs=2"])
    expected = ["-m", "pipelines", "run", "--runs-dir", str(tmp_path), "--models-dir", "m", "--set"]
    options = ["examples.unlabelled=photos", "trainer.epochs=2"]
    assert task.command()[1:] == [*expected, "examples.labels=", *options]
    labels.touch()
    assert task.command()[1:] == [*expected, f"examples.labels={labels}", *options]


def find_children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(each) for each in found.stdout.split()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_training_ends_with_the_server(review: Review, number: signal.Signals) -> None:
    assert review.post("/api/training", json={"action": "start"}).json()["is_running"]
    assert review.post("/api/training", json={"action": "start"}).status_code == 409
    (child,) = find_children(review.process.pid)
    review.process.send_signal(number)
    assert review.process.wait(60) == 0
    wait_until(lambda: not is_alive(child))


def test_a_training_whose_server_is_killed_goes_on_and_the_next_server_does_not_disturb_it(
    run: DrawnRun, tmp_path: Path
) -> None:
    labels, options = (
        tmp_path / "labels.jsonl",
        ("--models-dir", tmp_path / "models", "--set", "examples.source=synthetic"),
    )
    with start_review(run.runs_dir, labels, *options) as review:
        assert review.post("/api/training", json={"action": "start"}).status_code == 200
        wait_until(lambda: any(record["status"] == "running" for record in list_runs(run.runs_dir)))
        (child,) = find_children(review.process.pid)
        review.process.kill()
    try:
        with start_review(run.runs_dir, labels, *options) as review:
            refused = review.post("/api/training", json={"action": "start"})
            assert (refused.status_code, f"process {child}." in refused.json()["error"]) == (409, True)
            assert is_alive(child)
    finally:
        os.killpg(child, signal.SIGKILL)


def test_after_a_run_the_queue_is_of_the_new_run_and_decided_photos_do_not_come_back(
    run: DrawnRun, tmp_path: Path
) -> None:
    """The pipeline fails here at once, on an empty folder, and the new run is one that somebody else made."""
    empty = tmp_path / "empty"
    empty.mkdir()
    with start_review(run.runs_dir, tmp_path / "labels.jsonl", "--set", f"examples.source={empty}") as review:
        review.decide("ada", run.photos[0], "roses")
        new = write_run(run.runs_dir, 12, name="20260102-000000-0000")
        assert review.post("/api/training", json={"action": "start"}).status_code == 200
        wait_until(lambda: not review.get("/api/training").json()["is_running"])
        progress = review.get("/api/training").json()
        assert progress["result"].startswith("Failed, with exit status 1. ")
        assert str(empty) in progress["result"]
        found = review.take("ada")
        assert (found["item"]["sha256"], found["left"], found["done"]) == (new.photos[1], 11, 1)


@pytest.mark.slow
def test_decisions_become_a_model(tmp_path: Path) -> None:
    """The whole way: a run, a decision on one of its photos, a training from the page, and a model that learned it."""
    runs_dir, models_dir = tmp_path / "runs", tmp_path / "models"
    assignments = tiny_pipeline.assignments()
    folders = ["--runs-dir", str(runs_dir), "--models-dir", str(models_dir)]
    command = [sys.executable, "-m", "pipelines", "run", *folders, "--set", *assignments, "examples.labels="]
    subprocess.run(command, check=True, capture_output=True, timeout=LONG_S)
    examples_dir = runs_dir / "latest" / "steps" / "examples"
    photo, label = next((row["sha256"], row["label"]) for row in read_index(examples_dir) if row["split"] == "train")
    class_name = read_examples(examples_dir)["class_names"][label - 1]
    arguments = ("--models-dir", models_dir, "--set", *assignments)
    with start_review(runs_dir, tmp_path / "labels.jsonl", *arguments) as review:
        assert review.decide("ada", photo, class_name).status_code == 200
        assert review.post("/api/training", json={"action": "start"}).status_code == 200
        end_s = time.monotonic() + LONG_S
        while review.get("/api/training").json()["is_running"]:
            assert time.monotonic() < end_s
            time.sleep(1)
        progress = review.get("/api/training").json()
        assert progress["result"].startswith("Finished. The new model is pushed: "), progress
        assert review.get("/report").status_code == 200
    (applied,) = read_applied(examples_dir)
    assert (applied["sha256"], applied["label"], applied["who"]) == (photo, class_name, "ada")


@pytest.mark.slow
def test_photos_are_chosen_by_the_command_itself(tmp_path: Path) -> None:
    """From zero labels on: without a run, of a folder of photos alone."""
    pytest.importorskip("pipelines.select")
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    for sample in SAMPLES_DIR.glob("*.jpg"):
        shutil.copy(sample, folder)
    options = ("--models-dir", tmp_path / "models", "--input", folder, "--count", 2)
    arguments = (*options, "--set", *tiny_pipeline.assignments())
    with start_review(tmp_path / "runs", tmp_path / "labels.jsonl", *arguments) as review:
        end_s = time.monotonic() + LONG_S
        while (found := review.take("ada"))["choosing"]:
            assert time.monotonic() < end_s
            time.sleep(0.5)
        assert found["choice_error"] == ""
        assert (found["left"], found["item"]["given"]) == (2, None)
        assert found["item"]["why"].startswith("selected: ")
        assert review.get(f"/photos/{found['item']['sha256']}").status_code == 200
