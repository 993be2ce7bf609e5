"""The real pipeline, killed with SIGKILL again and again, ends as if nothing had happened.

After every kill, everything that can be seen is complete. In the end the artifacts, the trained weights and the
measured numbers are those of an undisturbed run: of the artifacts that all tests share. A kill comes when a step has
started or, while it runs, as soon as a certain file is there, so the moments are the same on a slow machine and on a
fast one. One that is gone before it was seen (a push takes milliseconds) becomes the start of the next step, so that no
kill is left out.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, TextIO

import pytest

from components.artifacts.blessing import is_blessed
from components.artifacts.manifest import read_manifest
from components.storage.files import read_json
from tests import tiny_pipeline
from tests.campaign.invariants import check_no_leftovers, check_nothing_half_written_is_visible
from tests.campaign.session import ORDER, Moment, wait_or_kill
from tests.campaign.warm_python import WarmProcess, WarmPython

ROOT = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("KILLS_SEED", "1"))
NUM_KILLS = int(os.environ.get("KILLS", "20"))
NUM_PIPELINES = 4


def _in(step: str, name: str) -> Moment:
    return Moment(step, f"runs/artifacts/{step}/*.partial/{name}")


FEW = (
    _in("features", "train-*.view0.npz"),
    _in("trainer", "checkpoints/head/epoch-00001"),
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
    _in("trainer", "checkpoints/head/epoch-00001"),
    _in("trainer", "checkpoints/head/epoch-00002"),
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

    def __init__(self, folder: Path, python: WarmPython | None = None) -> None:
        self.folder = folder
        self.python = python
        self.runs = folder / "runs"
        self.models = folder / "models"
        self.logs: list[str] = []

    def run(self, kill_at: Moment | None = None) -> int:
        """Run the command until it ends or the moment to kill it has come; keep its log and return its exit status."""
        command = ["pipelines", "run", "--set", *tiny_pipeline.assignments()]
        folders = ["--runs-dir", str(self.runs), "--models-dir", str(self.models)]
        log = self.folder / "log.txt"
        with log.open("w") as stderr:
            process = self._start([*command, *folders], stderr)
        try:
            wait_or_kill([process], log, kill_at=kill_at)
        finally:
            process.kill()
            status = process.wait()
            self.logs.append(log.read_text(errors="replace"))
        return status

    def _start(self, arguments: list[str], stderr: TextIO) -> "subprocess.Popen[bytes] | WarmProcess":
        if self.python:
            return self.python.start(*arguments, stdout=stderr.fileno(), stderr=stderr.fileno())
        command = [sys.executable, "-m", *arguments]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stderr)

    def artifact(self, step: str) -> Path:
        return (self.runs / "latest" / "steps" / step).resolve()

    def record(self) -> dict[str, Any]:
        return read_json(self.runs / "latest" / "run.json")


def assert_same_outcome(pipeline: Pipeline, undisturbed: Callable[[str], Path]) -> None:
    record = pipeline.record()
    assert record["status"] == "finished"
    assert sorted(record["steps"]) == sorted(ORDER)  # those in the background end when they end
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
    check_no_leftovers(pipeline.runs, pipeline.models)


def kill_again_and_again(pipeline: Pipeline, undisturbed: Callable[[str], Path], moments: Sequence[Moment]) -> None:
    for number, moment in enumerate(moments, 1):
        assert pipeline.run(moment) == -signal.SIGKILL, f"{moment} did not come before the end: {pipeline.logs[-1]}"
        last = [line for line in pipeline.logs[-1].splitlines() if re.match(r"[\d:]+ \w+: (started|finished)", line)][
            -1
        ]
        print(f"kill {number} at {moment.step} {moment.sign or 'started'}; log: {last}")  # noqa: T201
        check_nothing_half_written_is_visible(pipeline.runs, pipeline.models)
    assert pipeline.run() == 0, pipeline.logs[-1]
    check_nothing_half_written_is_visible(pipeline.runs, pipeline.models)
    assert_same_outcome(pipeline, undisturbed)
    log = "".join(pipeline.logs)
    assert "features: going on after" in log
    assert "trainer: head goes on after epoch 1 of 2" in log


@pytest.fixture
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmPython | None]:
    """What starts a pipeline that has imported TensorFlow already; `None` where a fresh Python has to."""
    if sys.platform != "linux":
        yield None
        return
    warm = WarmPython(tmp_path_factory.mktemp("warm"))
    yield warm
    warm.stop()


def test_a_pipeline_that_is_killed_ends_as_if_nothing_had_happened(tmp_path, artifact, python):
    kill_again_and_again(make_pipeline(tmp_path / "pipeline", python), artifact, FEW)


@pytest.mark.slow
def test_a_pipeline_that_is_killed_at_twenty_moments_ends_as_if_nothing_had_happened(tmp_path, artifact):
    assert len(MANY) == 20
    kill_again_and_again(Pipeline(tmp_path), artifact, MANY)


def make_pipeline(folder: Path, python: WarmPython | None) -> Pipeline:
    folder.mkdir()
    return Pipeline(folder, python)


def draw_moments(random: Random, num_moments: int, seconds: dict[str, float]) -> list[Moment]:
    """Draw moments that are spread evenly over the work of the pipeline, in their order.

    Args:
        random: what draws.
        num_moments: how many.
        seconds: that each step takes.
    """
    steps = [step for step in ORDER for _ in range(1 + round(10 * seconds[step]))]
    chosen = sorted(random.choices(steps, k=num_moments), key=ORDER.index)
    return [Moment(step, delay_s=random.uniform(0, 0.6 * seconds[step] + 0.1)) for step in chosen]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(NUM_PIPELINES))
def test_a_pipeline_that_is_killed_at_random_moments_ends_as_if_nothing_had_happened(
    tmp_path, artifact, python, number
):
    """`KILLS=100 KILLS_SEED=5 pytest tests/pipelines/test_kill.py -m slow -k random -n 2`: 100 kills in 4 pipelines."""
    seconds = {step: read_manifest(artifact(step))["seconds"] for step in ORDER}
    num_kills = len(range(number, NUM_KILLS, NUM_PIPELINES))
    random, folders = Random(f"{SEED}/{number}"), count()
    print(f"KILLS={NUM_KILLS} KILLS_SEED={SEED}, pipeline {number}")  # noqa: T201
    pipeline = make_pipeline(tmp_path / str(next(folders)), python)
    killed = 0
    while killed < num_kills:
        for moment in draw_moments(random, num_kills - killed, seconds):
            status = pipeline.run(moment)
            assert status in (-signal.SIGKILL, 0), f"{moment}: {pipeline.logs[-1]}"
            check_nothing_half_written_is_visible(pipeline.runs, pipeline.models)
            killed += status != 0
            if status == 0:  # The moment came after the end: the next one kills another.
                assert_same_outcome(pipeline, artifact)
                pipeline = make_pipeline(tmp_path / str(next(folders)), python)
    assert pipeline.run() == 0, pipeline.logs[-1]
    assert_same_outcome(pipeline, artifact)
