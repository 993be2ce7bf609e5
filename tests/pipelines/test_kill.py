"""The real pipeline, killed with SIGKILL again and again, ends as if nothing had happened.

After every kill, everything that can be seen is complete. In the end the artifacts, the trained weights and the
measured numbers are those of an undisturbed run: of the artifacts that all tests share. A kill comes when a step has
started or, while it runs, as soon as a certain file is there, so the moments are the same on a slow machine and on a
fast one. One that is gone before it was seen (a push takes milliseconds) becomes the start of the next step, so that no
kill is left out.
"""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.blessing import is_blessed
from components.artifacts.manifest import read_manifest
from components.storage.files import TEMPORARY_FILES, read_json
from components.storage.models import LINEAGE
from pipelines import fingerprint
from pipelines.flowers import STEPS
from tests import tiny_pipeline

ROOT = Path(__file__).resolve().parents[2]
ORDER = [step.name for step in STEPS]
TIMEOUT_S = 300


@dataclass(frozen=True)
class Moment:
    """When to kill: as soon as a step has started and, with a `sign`, a file of that pattern exists."""

    step: str
    sign: str | None = None


def _in(step: str, name: str) -> Moment:
    return Moment(step, f"runs/artifacts/{step}/*.partial/{name}")


FEW = (
    _in("features", "train-*.view0.npz"),
    _in("trainer", "checkpoints/head_0/epoch-00001"),
    Moment("pusher", "models/.staging/*"),
)
MANY = (
    _in("examples", "pool.bin"),
    _in("examples", "train-*.tfrecord"),
    Moment("validator", "runs/schemas/*.json"),
    _in("model", "backbone.weights.h5"),
    _in("features", "train-*.view0.npz"),
    _in("features", "validation-*.view0.npz"),
    Moment("trainer"),
    _in("trainer", "checkpoints/head_0/epoch-00001"),
    _in("trainer", "checkpoints/head_0/epoch-00002"),
    _in("trainer", "model.keras"),
    _in("export", "variables"),
    _in("export", "saved_model.pb"),
    Moment("evaluator"),
    _in("infra_validator", "logs/server.log"),
    _in("litert", "*.tflite"),
    Moment("litert_evaluator"),
    Moment("pusher", "models/.staging/*/variables"),
    Moment("pusher", "models/flowers/1"),
    Moment("pusher", "models/tflite/1"),
    _in("report", "plots/*.png"),
)


class Pipeline:
    """The flowers pipeline with tiny settings, in a process and folders of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self.models = folder / "models"
        self.logs: list[str] = []

    def run(self, kill_at: Moment | None = None) -> int:
        """Run the command until it ends or the moment to kill it has come; keep its log and return its exit status."""
        command = [sys.executable, "-m", "pipelines", "run", "--set", *tiny_pipeline.assignments()]
        folders = ["--runs-dir", str(self.runs), "--models-dir", str(self.models)]
        log = self.folder / "log.txt"
        end = time.monotonic() + TIMEOUT_S
        with log.open("w") as stderr:
            process = subprocess.Popen([*command, *folders], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            while process.poll() is None and time.monotonic() < end:
                if kill_at and self._has_come(kill_at, log.read_text(errors="replace")):
                    break
                time.sleep(0.002)
        finally:
            process.kill()
            status = process.wait()
            self.logs.append(log.read_text(errors="replace"))
        return status

    def _has_come(self, moment: Moment, log: str) -> bool:
        later = ORDER[ORDER.index(moment.step) + 1 :]
        if any(f" {step}: started" in log for step in later):
            return True
        started = f" {moment.step}: started" in log
        return started and (moment.sign is None or any(self.folder.glob(moment.sign)))

    def artifact(self, step: str) -> Path:
        return (self.runs / "latest" / "steps" / step).resolve()

    def record(self) -> dict[str, Any]:
        return read_json(self.runs / "latest" / "run.json")


def assert_nothing_half_written_is_visible(pipeline: Pipeline) -> None:
    for pushed in pipeline.models.glob("flowers/*"):
        assert pushed.name.isdecimal()
        assert read_json(pushed / LINEAGE)["version"] == int(pushed.name)
        candidate = read_json(pushed / LINEAGE)["model"]
        export = pipeline.runs / "artifacts" / "export" / candidate["key"]
        assert _files(pushed) == (_files(export) - {Path("manifest.json")}) | {LINEAGE}
        assert {Path("saved_model.pb"), Path("variables/variables.index")} < _files(pushed)
        for name, file in read_json(export / "manifest.json")["files"].items():
            assert fingerprint.of_file(pushed / name) == file["sha256"]
    for folder in pipeline.runs.glob("artifacts/*/*"):
        if folder.is_dir() and folder.suffix != ".partial":
            files = read_json(folder / "manifest.json")["files"]
            assert _files(folder) == {Path(name) for name in files} | {Path("manifest.json")}
            for name, file in files.items():
                assert fingerprint.of_file(folder / name) == file["sha256"]
    for record in pipeline.runs.glob("*-*/run.json"):
        assert read_json(record)["status"] in ("running", "finished")


def _files(folder: Path) -> set[Path]:
    return {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}


def assert_same_outcome(pipeline: Pipeline, undisturbed: Callable[[str], Path]) -> None:
    record = pipeline.record()
    assert record["status"] == "finished"
    assert list(record["steps"]) == ORDER
    for step in ("examples", "statistics", "validator", "model", "features"):
        ours, theirs = read_manifest(pipeline.artifact(step)), read_manifest(undisturbed(step))
        assert ours["files"] == theirs["files"], step
        assert ours["digest"] == theirs["digest"] == record["steps"][step]["digest"]
    for name in ("history.json", "training.json", "model.keras"):
        assert (pipeline.artifact("trainer") / name).read_bytes() == (undisturbed("trainer") / name).read_bytes()
    for name in ("metrics.json", "predictions.jsonl", "blessing.json"):
        ours_file, theirs_file = pipeline.artifact("evaluator") / name, undisturbed("evaluator") / name
        assert ours_file.read_bytes() == theirs_file.read_bytes()
    shown = pipeline.runs / "latest" / "metrics.json"
    assert shown.read_bytes() == (undisturbed("evaluator") / "metrics.json").read_bytes()
    assert is_blessed(pipeline.artifact("infra_validator"))
    assert [p.name for p in pipeline.models.glob("flowers/*")] == ["1"]
    assert (pipeline.runs / "latest" / "report.html").exists()
    leftovers = [
        *pipeline.runs.glob("artifacts/*/*.partial"),
        *pipeline.runs.glob(f"artifacts/*/*/**/{TEMPORARY_FILES}"),
    ]
    assert not leftovers
    assert not (pipeline.models / ".staging").exists()


def kill_again_and_again(pipeline: Pipeline, undisturbed: Callable[[str], Path], moments: Sequence[Moment]) -> None:
    for number, moment in enumerate(moments, 1):
        assert pipeline.run(moment) == -signal.SIGKILL, f"{moment} did not come before the end: {pipeline.logs[-1]}"
        last = [line for line in pipeline.logs[-1].splitlines() if re.match(r"[\d:]+ \w+: (started|finished)", line)][
            -1
        ]
        print(f"kill {number} at {moment.step} {moment.sign or 'started'}; log: {last}")  # noqa: T201
        assert_nothing_half_written_is_visible(pipeline)
    assert pipeline.run() == 0, pipeline.logs[-1]
    assert_nothing_half_written_is_visible(pipeline)
    assert_same_outcome(pipeline, undisturbed)
    log = "".join(pipeline.logs)
    assert "features: going on after" in log
    assert "trainer: head_0 goes on after epoch 1 of 2" in log


def test_a_pipeline_that_is_killed_ends_as_if_nothing_had_happened(tmp_path, artifact):
    kill_again_and_again(Pipeline(tmp_path), artifact, FEW)


@pytest.mark.slow
def test_a_pipeline_that_is_killed_at_twenty_moments_ends_as_if_nothing_had_happened(tmp_path, artifact):
    assert len(MANY) == 20
    kill_again_and_again(Pipeline(tmp_path), artifact, MANY)
