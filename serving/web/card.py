"""The model card: what a run of the pipeline says of the model that it made.

Reads `metrics.json`, `plots/` and, in `steps/`, `examples.json`, `push.json` and the LiteRT files' `evaluation.json`
of a run's folder. Whatever is missing, or is not what it should be, is left out.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.web.model_info import ModelInfo

PLOTS = ("accuracy", "loss", "calibration")
"""Those of a run's plots that the card may show."""

_FILES = {
    "metrics": "metrics.json",
    "examples": "steps/examples/examples.json",
    "evaluation": "steps/litert_evaluator/evaluation.json",
    "push": "steps/pusher/push.json",
}
_NEEDED = ("accuracy", "accuracy_interval", "num_examples", "class_names", "confusion_matrix", "per_class", "macro")


@dataclass(frozen=True)
class Card:
    """What a run says of its model.

    Attributes:
        run: the run's name.
        metrics: on the test photos, as the evaluator wrote them.
        plots: names of those that are there.
        num_photos: of each split; empty where the run does not say.
        files: how good each LiteRT file is, by the SHA-256 of its content; empty where the run does not say.
        pushed_version: under which the run pushed its model; empty where it did not.
    """

    run: str
    metrics: dict[str, Any]
    plots: tuple[str, ...]
    num_photos: dict[str, int]
    files: dict[str, dict[str, Any]]
    pushed_version: str

    def find_file(self, model: ModelInfo) -> dict[str, Any] | None:
        """Give how good the very file is that answers; `None` where none does, or the run did not measure it."""
        return self.files.get(model.sha256)

    def is_of_another(self, model: ModelInfo) -> bool:
        """Tell whether the model that answers is known to be another one than the run's."""
        if model.sha256 and self.files:
            return model.sha256 not in self.files
        return bool(model.version) and model.version != self.pushed_version


def find_run(runs_dir: Path, model: ModelInfo) -> Path:
    """Give the newest run that pushed the model that answers; where none did, the newest of all."""
    for run_dir in sorted(runs_dir.glob("*-*"), reverse=True):
        push = _read(run_dir / _FILES["push"])
        if push.get("version") and f"{push.get('path')}".endswith(f"{model.name}/{model.version}"):
            return run_dir
    return runs_dir / "latest"


def read_card(run_dir: Path) -> Card | None:
    """Read a run; `None` where there is none, or it measured nothing."""
    found = {name: _read(run_dir / file) for name, file in _FILES.items()}
    metrics = found["metrics"]
    if any(name not in metrics for name in _NEEDED):
        return None
    version = found["push"].get("version")
    splits = found["examples"].get("splits", {})
    return Card(
        run=run_dir.resolve().name,
        metrics=metrics,
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
