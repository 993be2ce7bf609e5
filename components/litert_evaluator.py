"""Judge each LiteRT file on the whole test split, through the thin client, in a process that holds nothing else.

Reads the test examples, the SavedModel with its evaluation, and the LiteRT files. Writes `evaluation.json`: accuracy,
agreement with the SavedModel, size, latency and peak memory of each file, and whether it may be pushed. It exists
because what runs on a phone is this file with this preprocessing, not the model that was trained.
"""

import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components import examples, litert_exporter
from components.data import transform
from components.errors import EvaluationError
from components.reporting import metrics
from components.storage.files import size_bytes, write_json
from export.spec import read_spec

log = logging.getLogger(__name__)

NUM_SAVED_MODEL_PHOTOS = 50
"""Enough for the SavedModel's latency; its accuracy is known."""
_WORKER = "export.measure"
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class LiteRTEvaluatorOptions:
    """What a file must reach.

    Attributes:
        max_accuracy_drop: how much less accurate than the SavedModel it may be.
        min_agreement: on which share of the test photos it must name the class that the SavedModel names.
        timeout_s: how long one file may take for the whole split.
    """

    max_accuracy_drop: float = 0.02
    min_agreement: float = 0.95
    timeout_s: float = 3600.0

    def __post_init__(self) -> None:
        for name in ("max_accuracy_drop", "min_agreement"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be 0 to 1. Received: {getattr(self, name)}")
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s must be above 0. Received: {self.timeout_s}")


def evaluate(
    *,
    examples_dir: Path,
    export_dir: Path,
    evaluation_dir: Path,
    litert_dir: Path,
    out_dir: Path,
    options: LiteRTEvaluatorOptions,
) -> dict[str, Any]:
    """Measure the files and decide which of them may be pushed.

    Raises:
        EvaluationError: a file cannot be run at all, or not in time.
    """
    spec = read_spec(export_dir)
    found = litert_exporter.find(litert_dir, spec["model_name"])
    files = dict(sorted(found.items(), key=lambda item: -item[1].stat().st_size))
    evaluation: dict[str, Any] = {"saved_model": None, "files": {}}
    if files:
        with (evaluation_dir / "predictions.jsonl").open() as lines:
            predictions = [json.loads(line) for line in lines]
        labels = np.array([prediction["label"] for prediction in predictions])
        expected = np.array([prediction["predicted"] for prediction in predictions])
        with tempfile.TemporaryDirectory() as folder:
            photos_dir = Path(folder)
            _write_photos(examples_dir, photos_dir)
            for kind, path in files.items():
                measured = _run_worker(options, path, photos_dir)
                predicted = _predicted(measured["predictions"], spec["class_names"])
                evaluation["files"][kind] = {
                    "name": path.name,
                    "sha256": sha256(path.read_bytes()).hexdigest(),
                    **_describe(predicted == labels, path.stat().st_size, measured),
                    **_judge(predicted, labels, expected, options),
                }
            measured = _run_worker(options, export_dir, photos_dir, NUM_SAVED_MODEL_PHOTOS)
            evaluation["saved_model"] = _describe(expected == labels, size_bytes(export_dir), measured)
    write_json(out_dir / "evaluation.json", evaluation)
    for row in evaluation["files"].values():
        for objection in row["objections"]:
            log.warning("litert_evaluator: %s will not be pushed: %s", row["name"], objection)
    return {
        "num_files": len(files),
        "num_passed": sum(row["passed"] for row in evaluation["files"].values()),
        **{kind: f"{row['accuracy']:.4f} in {row['latency_ms']:.1f} ms" for kind, row in evaluation["files"].items()},
    }


def _write_photos(examples_dir: Path, folder: Path) -> None:
    """Write the encoded test photos as files, named by their place."""
    for place, encoded in enumerate(transform.encoded(examples.shards(examples_dir, "test"))):
        (folder / f"{place:08d}").write_bytes(encoded)


def _run_worker(options: LiteRTEvaluatorOptions, model: Path, *arguments: Path | int) -> dict[str, Any]:
    command = [sys.executable, "-m", _WORKER, str(model.absolute()), *map(str, arguments)]
    try:
        done = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, timeout=options.timeout_s)
    except subprocess.TimeoutExpired as exc:
        raise EvaluationError(
            f"{model} must answer every test photo within litert_evaluator.timeout_s ({options.timeout_s:g} s), and "
            "does not. Allow more, or look whether the machine has the memory."
        ) from exc
    except subprocess.CalledProcessError as exc:
        said = exc.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit status {exc.returncode}"]
        raise EvaluationError(f"{model} must run in a process of its own, and does not: {said[0]}") from exc
    return json.loads(done.stdout)


def _predicted(answers: Sequence[dict[str, float] | None], class_names: Sequence[str]) -> NDArray[np.int64]:
    """Give the class of each answer, -1 where there is none, or no number in it."""
    rows = np.array([[(answer or {}).get(name, np.nan) for name in class_names] for answer in answers])
    return np.where(np.isfinite(rows).all(axis=1), np.nan_to_num(rows).argmax(axis=1), -1)


def _describe(right: NDArray[np.bool_], num_bytes: int, measured: dict[str, Any]) -> dict[str, Any]:
    return {
        **metrics.accuracy(right),
        "size_bytes": num_bytes,
        **{name: measured[name] for name in ("latency_ms", "peak_memory_bytes")},
    }


def _judge(
    predicted: NDArray[np.int64],
    labels: NDArray[np.int64],
    expected: NDArray[np.int64],
    options: LiteRTEvaluatorOptions,
) -> dict[str, Any]:
    """Compare a file's classes with the true ones and with the SavedModel's: `int [N]` each."""
    drop = float((expected == labels).mean() - (predicted == labels).mean())
    agreement = float((predicted == expected).mean())
    objections = []
    # With room for the rounding of a difference.
    if not drop <= options.max_accuracy_drop + 1e-9:
        objections.append(
            f"its accuracy is {drop:.4f} below the SavedModel's, more than litert_evaluator.max_accuracy_drop "
            f"({options.max_accuracy_drop})"
        )
    if not agreement >= options.min_agreement:
        objections.append(
            f"it agrees with the SavedModel on {agreement:.4f} of the photos, less than litert_evaluator.min_agreement "
            f"({options.min_agreement})"
        )
    if len(set(predicted)) == 1 and len(set(expected)) > 1:
        objections.append("it answers one class for everything")
    return {"agreement": agreement, "passed": not objections, "objections": objections}
