"""Runs at a URL: a machine finds what another made, fetches only what it needs, and nothing incomplete is ever seen."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from components.errors import ComponentError, StorageError
from components.storage.bucket import Bucket
from components.storage.files import read_json, write_json
from pipelines import local_runner
from pipelines.declaration import Step
from pipelines.folders import Folders
from pipelines.runs import list_runs
from tests.pipelines import toy
from tests.s3 import S3, Killed, killed_after

MODULE = __name__
ROOT = Path(__file__).resolve().parents[2]


def judge(*, result_dir: Path, out_dir: Path) -> dict[str, Any]:
    toy.note("judge")
    write_json(out_dir / "metrics.json", {"accuracy": read_json(result_dir / "result.json") / 100})
    return {}


def report(*, evaluation_dir: Path, out_dir: Path) -> dict[str, Any]:
    toy.note("report")
    (out_dir / "plots").mkdir()
    (out_dir / "plots" / "accuracy.png").write_bytes(b"plot")
    (out_dir / "report.html").write_text("<title>Report</title>")
    return {}


def remember(*, text_dir: Path, state_dir: Path, out_dir: Path) -> dict[str, Any]:
    """A step with state: keeps the first text it sees, as the validator keeps a schema."""
    toy.note("remember")
    kept = state_dir / "text.json"
    if not kept.exists():
        write_json(kept, (text_dir / "text.txt").read_text())
    write_json(out_dir / "first.json", read_json(kept))
    return {}


REMEMBER = Step(
    name="remember", function=f"{MODULE}:remember", inputs={"text_dir": "read"}, state={"state_dir": "schemas"}
)
STEPS = (
    *toy.STEPS,
    Step(name="evaluator", function=f"{MODULE}:judge", inputs={"result_dir": "multiply"}),
    Step(name="report", function=f"{MODULE}:report", inputs={"evaluation_dir": "evaluator"}),
)


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A URL whose writes take no time, and a cache of its own."""
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    yield f"memory:/{tmp_path}/runs"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def bucket(memory: str) -> Bucket:
    return Bucket(memory)


@pytest.fixture
def machine(toy_pipeline: Any, memory: str) -> Callable[..., Any]:
    """Return the function that moves the toy pipeline to a machine of that name, which keeps its runs at a URL."""

    def machine(name: str, url: str = memory) -> Any:
        toy_pipeline.folders = replace(
            toy_pipeline.folders, runs=toy_pipeline.text.parent / name, remote_runs=Bucket(url)
        )
        return toy_pipeline

    return machine


def assert_all_visible_is_complete(bucket: Bucket) -> None:
    """An artifact whose manifest is there has all its files; `latest` names a run with everything to look at."""
    files = bucket.files()
    for name in files:
        if name.startswith("artifacts/") and name.endswith("manifest.json"):
            folder = name.removesuffix("manifest.json")
            for file, described in json.loads(bucket.read(name))["files"].items():
                assert files[folder + file].size_bytes == described["size"], name
    if latest := bucket.read("latest"):
        run = latest.decode()
        assert {f"{run}/{file}" for file in ("run.json", "metrics.json", "report.html", "plots/accuracy.png")} <= {
            *files
        }


def test_another_machine_reuses_what_one_has_made(machine, s3: S3):
    url = f"{s3.url}/runs"
    first = machine("one", url).run(STEPS)
    toy_pipeline = machine("two", url)
    assert toy_pipeline.executed() == ["read", "count", "multiply", "judge", "report"]
    second = toy_pipeline.run(STEPS)
    assert toy_pipeline.executed() == []
    assert [a.digest for a in second.values()] == [a.digest for a in first.values()]
    # Of what is cached only the manifest comes, and what a person looks at.
    assert [p.name for p in second["multiply"].path.iterdir()] == ["manifest.json"]
    assert read_json(toy_pipeline.folders.runs / "latest" / "metrics.json") == {"accuracy": 0.1}
    assert (toy_pipeline.folders.runs / "latest" / "report.html").read_text() == "<title>Report</title>"


def test_a_step_that_runs_gets_its_inputs_from_the_url(toy_pipeline, machine):
    machine("one").run(STEPS)
    toy_pipeline.executed()
    toy_pipeline.set("multiply", factor=3)
    artifacts = machine("two").run(STEPS)
    assert toy_pipeline.executed() == ["multiply", "judge", "report"]
    assert read_json(artifacts["multiply"].path / "result.json") == 15
    assert sorted(p.name for p in artifacts["count"].path.iterdir()) == ["count.json", "manifest.json"]
    assert [p.name for p in artifacts["read"].path.iterdir()] == ["manifest.json"]


def test_a_run_at_a_url_leaves_what_people_and_servers_look_for(machine, bucket):
    machine("one").run(STEPS)
    run = bucket.read("latest").decode()
    assert set(bucket.files(run)) == {"run.json", "metrics.json", "report.html", "plots/accuracy.png"}
    record = json.loads(bucket.read(f"{run}/run.json"))
    assert (record["status"], list(record["steps"])) == ("finished", [step.name for step in STEPS])


def test_runs_of_all_machines_are_listed(toy_pipeline, machine, bucket):
    machine("one").run(STEPS)
    toy_pipeline.set("multiply", fail=True)
    with pytest.raises(ComponentError, match="must be a lucky one"):
        machine("two").run(STEPS)
    third = machine("three").folders
    third.fetch_records()
    assert sorted(record["status"] for record in list_runs(third.runs)) == ["failed", "finished"]
    # Whether a process of another machine still runs cannot be known here.
    (elsewhere,) = third.runs.glob(f"{bucket.read('latest').decode()}/run.json")
    write_json(elsewhere, {**read_json(elsewhere), "status": "running", "host": "elsewhere", "process": 2**22 + 1})
    assert sorted(record["status"] for record in list_runs(third.runs)) == ["failed", "running"]


def test_from_takes_what_the_newest_run_of_any_machine_made(toy_pipeline, machine):
    machine("one").run(STEPS)
    toy_pipeline.executed()
    artifacts = machine("two").run(STEPS, first="multiply", forced=("multiply",))
    assert toy_pipeline.executed() == ["multiply"]
    assert read_json(artifacts["multiply"].path / "result.json") == 10


def test_what_is_kept_between_runs_is_kept_for_all_machines(toy_pipeline, machine, bucket, monkeypatch):
    machine("one").run((toy.READ, REMEMBER))
    toy_pipeline.text.write_text("another text")
    monkeypatch.setenv("PIPELINE_CACHE", str(toy_pipeline.text.parent / "cache of two"))
    artifacts = machine("two").run((toy.READ, REMEMBER))
    assert read_json(artifacts["remember"].path / "first.json") == "a rose is a rose"
    assert list(bucket.files("schemas")) == ["text.json"]


def test_what_was_kept_here_and_not_uploaded_is_uploaded_by_the_next_run(machine, bucket):
    machine("one").run((toy.READ, REMEMBER))
    bucket.remove_file("schemas/text.json")
    machine("one").run((toy.READ, REMEMBER))
    assert list(bucket.files("schemas")) == ["text.json"]


def test_what_was_not_uploaded_is_uploaded_by_the_next_run(toy_pipeline, machine, bucket):
    machine("one").run(STEPS)
    toy_pipeline.executed()
    bucket.remove("artifacts/count", marker="none")
    toy_pipeline.run(STEPS)
    assert toy_pipeline.executed() == []
    assert len(bucket.files("artifacts/count")) == 2


def test_what_is_neither_here_nor_at_the_url_is_made_again(toy_pipeline, machine, bucket):
    machine("one").run(STEPS)
    machine("two").run(STEPS)
    toy_pipeline.executed()
    bucket.remove("artifacts/count", marker="none")
    toy_pipeline.set("multiply", factor=3)
    artifacts = toy_pipeline.run(STEPS)
    assert toy_pipeline.executed() == ["count", "multiply", "judge", "report"]
    assert read_json(artifacts["multiply"].path / "result.json") == 15


def test_files_lost_at_the_url_are_an_error_that_says_what_to_do(toy_pipeline, machine, bucket):
    machine("one").run(STEPS)
    (key,) = (key for key in bucket.files() if key.endswith("count.json"))
    bucket.write(key, b"other content")
    toy_pipeline.set("multiply", factor=3)
    with pytest.raises(
        StorageError, match=r"Files at memory:.*/count/.* are not as they were written\. .*--force count"
    ):
        machine("two").run(STEPS)
    toy_pipeline.run(STEPS, forced=("count",))
    assert toy_pipeline.record()["status"] == "finished"


@pytest.mark.parametrize("file", ["weights", "logs/server.log"])
def test_two_machines_that_make_the_same_step_at_once_do_not_mix(machine, bucket, file):
    for number, name in enumerate(("one", "two")):
        store = machine(name).folders.store
        partial = store.start("train", "key", keep=False)
        for written, content in {"same": "same", file: "line\n" * (number + 1)}.items():
            (partial / written).parent.mkdir(exist_ok=True)
            (partial / written).write_text(content)
        store._learn = lambda step, key: None  # type: ignore[method-assign]  # neither has seen the other's yet
        store.publish(partial, {"step": "train", "key": "key", "created": f"2026-01-0{number + 1}"})
    three = machine("three").folders.store
    found = three.fetch(three.find("train", "key"))
    assert (found.path / file).read_text() == "line\nline\n"
    assert len(bucket.files("artifacts/train")) == 6


def test_a_run_killed_at_any_write_is_finished_by_the_next_one(toy_pipeline, machine, memory):
    for number in itertools.count():
        url = f"{memory}/{number}"
        try:
            with killed_after(number):
                machine(f"killed-{number}", url).run((*STEPS, REMEMBER))
            break
        except Killed:
            assert_all_visible_is_complete(Bucket(url))
        # On the machine that was killed, and on another: neither is left with anything incomplete.
        for name in (f"killed-{number}", f"other-{number}"):
            artifacts = machine(name, url).run((*STEPS, REMEMBER))
            assert read_json(toy_pipeline.folders.runs / "latest" / "metrics.json") == {"accuracy": 0.1}
            assert_all_visible_is_complete(Bucket(url))
        assert set(toy_pipeline.executed()) <= {"read", "count", "multiply", "judge", "report", "remember"}
        assert read_json(artifacts["remember"].path / "first.json") == "a rose is a rose"
    # The probe, its removal, six artifacts, a record for each step and more.
    assert number > 2 + 6 * 2 + 6


def run_until_killed(num_writes: int, text: str, runs: str, url: str) -> None:
    """Run the pipeline in this process, which ends by SIGKILL at a write to the store."""
    folders = Folders(runs=Path(runs), remote_runs=Bucket(url))
    with killed_after(num_writes, lambda: os.kill(os.getpid(), signal.SIGKILL)):
        local_runner.run(STEPS, toy.ToyConfig(toy.ReadOptions(text)), folders=folders)


@pytest.mark.slow
def test_a_process_killed_again_and_again_while_it_uploads_ends_as_if_nothing_had_happened(tmp_path, s3: S3):
    (tmp_path / "text.txt").write_text("a rose is a rose")
    paths = (str(tmp_path / "text.txt"), str(tmp_path / "runs"), f"{s3.url}/runs")
    for number in itertools.count(3, 3):
        call = f"from {MODULE} import run_until_killed; run_until_killed({number}, *{paths})"
        process = subprocess.run([sys.executable, "-c", call], cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert_all_visible_is_complete(Bucket(f"{s3.url}/runs"))
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, process.stderr
    assert number > 9
    run = s3.get("runs/latest").decode()
    assert json.loads(s3.get(f"runs/{run}/metrics.json")) == {"accuracy": 0.1}
    assert json.loads(s3.get(f"runs/{run}/run.json"))["status"] == "finished"


def test_a_url_that_cannot_be_used_is_found_before_any_step(toy_pipeline, machine, s3: S3, monkeypatch):
    with pytest.raises(StorageError, match="The specified bucket does not exist"):
        machine("one", f"{s3.url}-2/runs").run(STEPS)
    s3.forbid("s3:PutObject")
    with pytest.raises(StorageError, match=rf"{s3.url}/runs cannot be used"):
        machine("one", f"{s3.url}/runs").run(STEPS)
    toy_pipeline.folders = replace(toy_pipeline.folders, models=f"{s3.url}/models", remote_runs=None)
    with pytest.raises(StorageError, match=rf"{s3.url}/models cannot be used"):
        toy_pipeline.run((toy.READ, toy.COUNT, toy.VISIT))
    s3.unplug(monkeypatch)
    with pytest.raises(StorageError, match="Could not connect"):
        machine("one", "s3://dead/runs").run(STEPS)
    assert toy_pipeline.executed() == []
