"""The model card: what a run of the pipeline knows of the model that it made.

Reads `metrics.json`, `plots/` and, in `steps/`, `examples.json`, `push.json` and the LiteRT files' `evaluation.json`
of a run's folder. Whatever is missing or malformed is left out.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

from serving.web.model_info import ModelInfo

PLOTS = ("accuracy", "loss", "calibration")
"""The plots of a run that the card may show."""

_FILES = {
    "metrics": "metrics.json",
    "examples": "steps/examples/examples.json",
    "evaluation": "steps/litert_evaluator/evaluation.json",
    "push": "steps/pusher/push.json",
}


class ClassMetrics(TypedDict):
    """How good the model is at one class."""

    recall: float


class MacroMetrics(TypedDict):
    """The mean over the classes."""

    f1: float


class RunMetrics(TypedDict):
    """As much of `metrics.json` as the card shows; all of it must be there."""

    accuracy: float
    accuracy_interval: tuple[float, float]
    num_examples: int
    class_names: list[str]
    confusion_matrix: list[list[int]]
    per_class: dict[str, ClassMetrics]
    macro: MacroMetrics


class MeasuredFile(TypedDict):
    """A LiteRT file as its evaluation has it."""

    name: str
    sha256: str
    size_bytes: int
    accuracy: float


@dataclass(frozen=True)
class Card:
    """What a run knows of its model.

    Attributes:
        run: the run's name.
        metrics: on the test photos, as the evaluator wrote them.
        plots: the names of those that exist.
        num_photos: of each split; empty where the run does not have them.
        files: how good each LiteRT file is, by its SHA-256; empty where the run did not measure any.
        pushed_version: under which the run pushed its model; empty where it did not.
    """

    run: str
    metrics: RunMetrics
    plots: tuple[str, ...]
    num_photos: dict[str, int]
    files: dict[str, MeasuredFile]
    pushed_version: str

    def find_file(self, model: ModelInfo) -> MeasuredFile | None:
        """Return how good the file in use is; `None` where no file is, or the run did not measure it."""
        return self.files.get(model.sha256)

    def is_of_another(self, model: ModelInfo) -> bool:
        """Return whether the model in use is known to be another one than the run's."""
        if model.sha256 and self.files:
            return model.sha256 not in self.files
        return bool(model.version) and model.version != self.pushed_version


def find_run(runs_dir: Path, model: ModelInfo) -> Path:
    """Return the newest run that pushed the model in use; if none did, the newest of all."""
    for run_dir in sorted(runs_dir.glob("*-*"), reverse=True):
        push = _read(run_dir / _FILES["push"])
        if push.get("version") and f"{push.get('path')}".endswith(f"{model.name}/{model.version}"):
            return run_dir
    return runs_dir / "latest"


def read_card(run_dir: Path) -> Card | None:
    """Read a run; `None` where there is none, or it measured nothing."""
    found = {name: _read(run_dir / file) for name, file in _FILES.items()}
    metrics = found["metrics"]
    if not RunMetrics.__required_keys__ <= metrics.keys():
        return None
    version = found["push"].get("version")
    splits = found["examples"].get("splits", {})
    return Card(
        run=run_dir.resolve().name,
        metrics=cast(RunMetrics, metrics),
        plots=tuple(name for name in PLOTS if _plot_path(run_dir, name).is_file()),
        num_photos={name: split["num_examples"] for name, split in splits.items()},
        files={file["sha256"]: file for file in found["evaluation"].get("files", {}).values()},
        pushed_version="" if version is None else str(version),
    )


def read_plot(run_dir: Path, name: str) -> bytes | None:
    """Read a plot, a PNG; `None` where the card shows no such plot."""
    path = _plot_path(run_dir, name)
    return path.read_bytes() if name in PLOTS and path.is_file() else None


def _plot_path(run_dir: Path, name: str) -> Path:
    return run_dir / "plots" / f"{name}.png"


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
