"""What the tests of the pipelines share: a toy pipeline in folders of its own."""

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.storage.files import read_json
from pipelines import local_runner
from pipelines.artifact_store import Artifact
from pipelines.declaration import Step
from pipelines.folders import Folders
from pipelines.local_runner import Selection
from pipelines.runs import RunRecord, list_runs
from tests.pipelines import toy


class Toy:
    """A toy pipeline: its text, its folders, its options, and what its steps have done."""

    def __init__(self, folder: Path) -> None:
        self.text = folder / "text.txt"
        self.text.write_text("a rose is a rose")
        self.journal = folder / "journal.txt"
        self.folders = Folders(runs=folder / "runs", models=folder / "models")
        self.config = toy.ToyConfig(toy.ReadOptions(str(self.text)))

    def run(self, steps: Sequence[Step] = toy.STEPS, **selection: Any) -> dict[str, Artifact]:
        return local_runner.run(steps, self.config, folders=self.folders, selection=Selection(**selection))[1]

    def set(self, section: str, **options: Any) -> None:
        self.config = replace(self.config, **{section: replace(getattr(self.config, section), **options)})

    def executed(self) -> list[str]:
        """Give the steps that ran since this was asked last."""
        names = self.journal.read_text().split() if self.journal.exists() else []
        self.journal.unlink(missing_ok=True)
        return names

    def record(self, run: str = "latest") -> RunRecord:
        return read_json(self.folders.runs / run / "run.json")

    def records(self) -> list[RunRecord]:
        return list(list_runs(self.folders.runs))

    def start(self, call: Callable[[], Any]) -> Any:
        """Call a function in a process of its own."""
        process = multiprocessing.get_context("fork").Process(target=call)
        process.start()
        return process


@pytest.fixture
def toy_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    pipeline = Toy(tmp_path)
    monkeypatch.setenv("TOY_JOURNAL", str(pipeline.journal))
    return pipeline
