"""The real pipeline, killed with SIGKILL again and again, ends as if nothing had happened.

After every kill, everything that can be seen is complete. In the end the artifacts, the trained weights and the
measured numbers are those of a run that nobody disturbed. A kill comes when a step has started or, while it runs, as
soon as a certain file is there, so the moments are the same on a slow machine and on a fast one. One that is gone
before it was seen (a push takes milliseconds) becomes the start of the next step, so that no kill is left out.
"""

import io
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from components.pusher import LINEAGE
from components.storage.files import TEMPORARY_FILES, read_json
from pipelines import fingerprint
from pipelines.flowers import STEPS

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (
    "examples.source=synthetic",
    "examples.num_synthetic_per_class=20",
    "model.backbone=small_cnn",
    "model.weights=none",
    "model.image_size_px=32",
    "features.num_augmented_views=1",
    "trainer.epochs=3",
    "trainer.num_heads=2",
    "litert.num_calibration_images=4",
    "evaluator.min_accuracy=0.1",
)
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
        command = [sys.executable, "-m", "pipelines", "run", "--set", *SETTINGS]
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


def assert_same_outcome(pipeline: Pipeline, undisturbed: Pipeline) -> None:
    ours, theirs = pipeline.record(), undisturbed.record()
    assert ours["status"] == "finished"
    assert list(ours["steps"]) == list(theirs["steps"]) == ORDER
    for step in ("examples", "statistics", "validator", "model", "features"):
        ours_dir, theirs_dir = pipeline.artifact(step), undisturbed.artifact(step)
        assert _files(ours_dir) == _files(theirs_dir), step
        for name in _files(ours_dir) - {Path("manifest.json")}:
            assert (ours_dir / name).read_bytes() == (theirs_dir / name).read_bytes(), f"{step}: {name}"
        assert ours["steps"][step]["digest"] == theirs["steps"][step]["digest"]
    for name in ("history.json", "training.json"):
        assert read_json(pipeline.artifact("trainer") / name) == read_json(undisturbed.artifact("trainer") / name)
    ours_weights, theirs_weights = _weights(pipeline), _weights(undisturbed)
    assert list(ours_weights) == list(theirs_weights)
    # Bit by bit: a training that goes on draws the same batches and the same dropout.
    for name, weights in ours_weights.items():
        np.testing.assert_array_equal(weights, theirs_weights[name], err_msg=name)
    assert read_json(pipeline.runs / "latest" / "metrics.json") == read_json(
        undisturbed.runs / "latest" / "metrics.json"
    )
    assert read_json(pipeline.artifact("infra_validator") / "blessing.json")["blessed"]
    for name in ("predictions.jsonl", "blessing.json"):
        ours_file, theirs_file = pipeline.artifact("evaluator") / name, undisturbed.artifact("evaluator") / name
        assert ours_file.read_bytes() == theirs_file.read_bytes()
    assert [p.name for p in pipeline.models.glob("flowers/*")] == ["1"]
    assert (pipeline.runs / "latest" / "report.html").exists()
    leftovers = [
        *pipeline.runs.glob("artifacts/*/*.partial"),
        *pipeline.runs.glob(f"artifacts/*/*/**/{TEMPORARY_FILES}"),
    ]
    assert not leftovers
    assert not (pipeline.models / ".staging").exists()


def _weights(pipeline: Pipeline) -> dict[str, np.ndarray]:
    """Read every variable of the trained classifier."""
    arrays: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(pipeline.artifact("trainer") / "model.keras") as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as file:
        file.visititems(lambda name, node: arrays.update({name: node[()]}) if isinstance(node, h5py.Dataset) else None)
    assert sum(array.size for array in arrays.values()) > 10_000
    return arrays


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    pipeline = Pipeline(tmp_path_factory.mktemp("undisturbed"))
    assert pipeline.run() == 0, pipeline.logs[-1]
    return pipeline


def kill_again_and_again(pipeline: Pipeline, undisturbed: Pipeline, moments: Sequence[Moment]) -> None:
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
    assert "trainer: head_0 goes on after epoch 1 of 3" in log


def test_a_pipeline_that_is_killed_ends_as_if_nothing_had_happened(tmp_path, undisturbed):
    kill_again_and_again(Pipeline(tmp_path), undisturbed, FEW)


@pytest.mark.slow
def test_a_pipeline_that_is_killed_at_twenty_moments_ends_as_if_nothing_had_happened(tmp_path, undisturbed):
    assert len(MANY) == 20
    kill_again_and_again(Pipeline(tmp_path), undisturbed, MANY)
