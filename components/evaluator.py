"""Judge the exported SavedModel, as it will be served, on photos it has never seen.

Reads the test examples, the SavedModel and the baseline (the last pushed model); sends the encoded photos through
`serving_default`. Writes `metrics.json`, `predictions.jsonl` and `blessing.json`: whether the model may be pushed, and
every reason for or against.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components import examples
from components.data import transform
from components.errors import EvaluationError
from components.reporting import metrics
from components.storage.bucket import is_url
from components.storage.cache import fetch_folder
from components.storage.files import read_json, write_json
from components.storage.models import MARKER
from export.spec import ModelSpec, read_spec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluatorOptions:
    """What a model must reach.

    Attributes:
        min_accuracy: share of right answers on the test photos below which no model is blessed.
        max_accuracy_drop: how much less accurate than the last pushed model it may be, on the same photos.
        batch_size: photos a call.
    """

    min_accuracy: float = 0.6
    max_accuracy_drop: float = 0.0
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name in ("min_accuracy", "max_accuracy_drop"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be 0 to 1. Received: {getattr(self, name)}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1. Received: {self.batch_size}")


_SLICES: dict[str, Callable[[dict[str, Any]], str]] = {
    "brightness": lambda r: "dark" if r["brightness"] < 0.3 else "bright" if r["brightness"] > 0.6 else "medium",
    "contrast": lambda r: "low" if r["contrast"] < 0.15 else "normal",
    "shape": lambda r: "square" if r["width"] == r["height"] else "wide" if r["width"] > r["height"] else "tall",
    "size": lambda r: "small" if r["width"] * r["height"] < 224 * 224 else "large",
    "format": lambda r: r["format"],
}


def evaluate(
    *,
    examples_dir: Path,
    export_dir: Path,
    out_dir: Path,
    options: EvaluatorOptions,
    baseline_dir: Path | None = None,
) -> dict[str, Any]:
    """Measure the model and decide whether it is blessed; without a baseline it is compared with no other.

    Raises:
        EvaluationError: there is nothing to evaluate on, or the model cannot be called.
    """
    lines = (examples_dir / "index.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == "test"]
    if not rows:
        raise EvaluationError("A model is evaluated on the test split, and it has no examples. Add photos to it.")
    labels = np.array([row["label"] for row in rows])
    spec = read_spec(export_dir)
    probabilities = _predict(export_dir, examples_dir, options.batch_size)
    measured = metrics.summarize(probabilities, labels, spec["class_names"])
    if not np.isfinite(measured["loss"]):
        measured["loss"] = None
    measured |= {"data": spec["data"], "weights": spec["weights"], "slices": _slice(rows, probabilities, labels)}
    measured["baseline"] = _measure_baseline(baseline_dir, spec, examples_dir, labels, options)
    checks = _check(probabilities, measured, options)
    blessed = all(check["passed"] for check in checks)
    write_json(out_dir / "metrics.json", measured)
    write_json(out_dir / "blessing.json", {"blessed": blessed, "checks": checks})
    with (out_dir / "predictions.jsonl").open("w") as file:
        for row, p in zip(rows, probabilities, strict=True):
            prediction = {"filename": row["filename"], "label": row["label"], "predicted": int(p.argmax())}
            file.write(json.dumps({**prediction, "probabilities": [round(float(v), 6) for v in p]}) + "\n")
    for check in checks:
        if not check["passed"]:
            log.warning("evaluator: not blessed: %s", check["message"])
    low, high = measured["accuracy_interval"]
    return {
        "accuracy": round(measured["accuracy"], 4),
        "interval": f"{low:.3f}–{high:.3f}",
        "loss": round(measured["loss"], 4) if measured["loss"] is not None else "none",
        "blessed": blessed,
    }


def _predict(model_dir: Path, examples_dir: Path, batch_size: int) -> NDArray[np.float32]:
    """Send the encoded test photos through a SavedModel's `serving_default`: `float32 [N, C]`."""
    import tensorflow as tf
    from tqdm import tqdm

    features = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
    photos = transform.records(examples.shards(examples_dir, "test")).map(
        lambda record: tf.io.parse_single_example(record, features)["image/encoded"]
    )
    try:
        serve = tf.saved_model.load(str(model_dir)).signatures["serving_default"]
        batches = tqdm(photos.batch(batch_size), desc="evaluating", unit="batch", delay=2, leave=False, disable=None)
        return np.concatenate([serve(image_bytes=batch)["probabilities"].numpy() for batch in batches])
    except (OSError, KeyError, TypeError, tf.errors.OpError) as exc:
        raise EvaluationError(
            f"The SavedModel must load and answer encoded photos on serving_default: {model_dir} does not ({exc})."
        ) from exc


def _slice(
    rows: list[dict[str, Any]], probabilities: NDArray[np.float32], labels: NDArray[np.int64]
) -> dict[str, dict[str, Any]]:
    """Measure accuracy on parts of the test photos; a property that all of them share is left out."""
    right = probabilities.argmax(axis=1) == labels
    found = {}
    for name, value_of in _SLICES.items():
        values = np.array([value_of(row) for row in rows])
        if len(set(values)) > 1:
            found[name] = {value: metrics.accuracy(right[values == value]) for value in sorted(set(values.tolist()))}
    return found


def _measure_baseline(
    baseline_dir: Path | None,
    spec: ModelSpec,
    examples_dir: Path,
    labels: NDArray[np.int64],
    options: EvaluatorOptions,
) -> dict[str, Any] | None:
    """Measure the last pushed model on the same photos; no accuracy where its classes are others."""
    baseline = read_json(baseline_dir / "baseline.json") if baseline_dir else None
    if baseline is None or baseline["version"] is None:
        return None
    path = fetch_folder(baseline["path"], marker=MARKER) if is_url(baseline["path"]) else Path(baseline["path"])
    pushed = read_spec(path)
    measured: dict[str, Any] = {"version": baseline["version"], "accuracy": None, "num_examples": len(labels)}
    if pushed["class_names"] == spec["class_names"]:
        predicted = _predict(path, examples_dir, options.batch_size).argmax(axis=1)
        measured["accuracy"] = float((predicted == labels).mean())
    return measured


def _check(
    probabilities: NDArray[np.float32], measured: dict[str, Any], options: EvaluatorOptions
) -> list[dict[str, Any]]:
    finite = bool(np.isfinite(probabilities).all() and measured["loss"] is not None)
    enough = measured["accuracy"] >= options.min_accuracy
    checks = [
        _result("finite", finite, f"every probability and the loss are {'' if finite else 'not '}finite numbers"),
        _result(
            "min_accuracy",
            enough,
            f"accuracy {measured['accuracy']:.4f} is {'at least' if enough else 'below'} evaluator.min_accuracy "
            f"({options.min_accuracy})",
        ),
    ]
    baseline = measured["baseline"]
    if baseline is None:
        checks.append(_result("baseline", True, "no other model has been pushed: nothing to compare with"))
    elif baseline["accuracy"] is None:
        message = (
            f"the pushed version {baseline['version']} has other classes: push this model under a name of its own, "
            "export.model_name"
        )
        checks.append(_result("baseline", False, message))
    else:
        limit = baseline["accuracy"] - options.max_accuracy_drop
        good = measured["accuracy"] >= limit
        message = (
            f"accuracy {measured['accuracy']:.4f} is {'at least' if good else 'below'} that of the pushed version "
            f"{baseline['version']} on the same photos ({baseline['accuracy']:.4f}), less evaluator.max_accuracy_drop "
            f"({options.max_accuracy_drop})"
        )
        checks.append(_result("baseline", good, message))
    return checks


def _result(name: str, passed: bool, message: str) -> dict[str, Any]:
    return {"name": name, "passed": passed, "message": message}
