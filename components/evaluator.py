"""Judge the exported SavedModel, as it will be served, on photos it has never seen.

Reads the test examples, the SavedModel and the baseline (the last pushed model); sends the encoded photos through
`serving_default`. Writes `metrics.json`, `predictions.jsonl` and `blessing.json`: whether the model may be pushed, and
every reason for or against.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.artifacts.baseline import read_baseline
from components.artifacts.blessing import Check, write_blessing
from components.artifacts.evaluation import (
    Accuracy,
    BaselineMetrics,
    Metrics,
    Prediction,
    write_metrics,
    write_predictions,
)
from components.artifacts.examples import ENCODED, IndexRow, read_index, shards
from components.artifacts.summary import Summary
from components.errors import EvaluationError
from components.options import check_at_least, check_range
from components.reporting import metrics
from components.storage.cache import fetch_folder
from components.storage.models import MARKER
from export.spec import read_spec


@dataclass(frozen=True)
class EvaluatorOptions:
    """What a model must reach.

    Attributes:
        min_accuracy: share of right predictions on the test photos below which no model is blessed.
        max_accuracy_drop: how much less accurate than the last pushed model it may be, on the same photos.
        batch_size: photos a call.
    """

    min_accuracy: float = 0.6
    max_accuracy_drop: float = 0.0
    batch_size: int = 32

    def __post_init__(self) -> None:
        check_range(self, 0, 1, "min_accuracy", "max_accuracy_drop")
        check_at_least(self, 1, "batch_size")


_SLICES: dict[str, Callable[[IndexRow], str]] = {
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
) -> Summary:
    """Measure the model and decide whether it is blessed; without a baseline it is compared with no other.

    Raises:
        EvaluationError: there is nothing to evaluate on, or the model cannot be called.
    """
    rows = [row for row in read_index(examples_dir) if row["split"] == "test"]
    if not rows:
        raise EvaluationError("A model is evaluated on the test split, and it has no examples. Add photos to it.")
    labels = np.array([row["label"] for row in rows])
    spec = read_spec(export_dir)
    probabilities = _predict(export_dir, examples_dir, options.batch_size)
    measured: Metrics = {
        **metrics.summarize(probabilities, labels, spec["class_names"]),
        "data": spec["data"],
        "weights": spec["weights"],
        "slices": _slice(rows, probabilities.argmax(axis=1) == labels),
        "baseline": _measure_baseline(baseline_dir, spec["class_names"], examples_dir, labels, options),
    }
    write_metrics(out_dir, measured)
    write_predictions(out_dir, map(_describe, rows, probabilities))
    checks = [_check_finite(probabilities, measured), _check_accuracy(measured, options)]
    blessed = write_blessing(out_dir, [*checks, _check_baseline(measured, options)], validator="evaluator")
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

    features = {ENCODED: tf.io.FixedLenFeature([], tf.string)}
    records = tf.data.TFRecordDataset([str(shard) for shard in shards(examples_dir, "test")])
    photos = records.map(lambda record: tf.io.parse_single_example(record, features)[ENCODED])
    try:
        serve = tf.saved_model.load(str(model_dir)).signatures["serving_default"]
        batches = tqdm(photos.batch(batch_size), desc="evaluating", unit="batch", delay=2, leave=False, disable=None)
        return np.concatenate([serve(image_bytes=batch)["probabilities"].numpy() for batch in batches])
    except (OSError, KeyError, TypeError, tf.errors.OpError) as exc:
        raise EvaluationError(
            f"The SavedModel must load and take encoded photos on serving_default: {model_dir} does not ({exc})."
        ) from exc


def _describe(row: IndexRow, probabilities: NDArray[np.float32]) -> Prediction:
    return {
        "filename": row["filename"],
        "label": row["label"],
        "predicted": int(probabilities.argmax()),
        "probabilities": [round(float(probability), 6) for probability in probabilities],
    }


def _slice(rows: Sequence[IndexRow], right: NDArray[np.bool_]) -> dict[str, dict[str, Accuracy]]:
    """Measure accuracy on parts of the test photos; a property that all of them share is left out."""
    found = {}
    for name, value_of in _SLICES.items():
        values = np.array([value_of(row) for row in rows])
        if len(set(values)) > 1:
            found[name] = {value: metrics.accuracy(right[values == value]) for value in sorted(set(values.tolist()))}
    return found


def _measure_baseline(
    baseline_dir: Path | None,
    class_names: Sequence[str],
    examples_dir: Path,
    labels: NDArray[np.int64],
    options: EvaluatorOptions,
) -> BaselineMetrics | None:
    """Measure the last pushed model on the same photos; no accuracy where its classes are others."""
    baseline = read_baseline(baseline_dir) if baseline_dir else None
    if baseline is None or baseline["version"] is None or baseline["path"] is None:
        return None
    path = fetch_folder(baseline["path"], marker=MARKER)
    measured = BaselineMetrics(version=baseline["version"], accuracy=None, num_examples=len(labels))
    if read_spec(path)["class_names"] == class_names:
        predicted = _predict(path, examples_dir, options.batch_size).argmax(axis=1)
        measured["accuracy"] = float((predicted == labels).mean())
    return measured


def _check_finite(probabilities: NDArray[np.float32], measured: Metrics) -> Check:
    finite = bool(np.isfinite(probabilities).all() and measured["loss"] is not None)
    message = f"every probability and the loss are {'' if finite else 'not '}finite numbers"
    return {"name": "finite", "passed": finite, "message": message}


def _check_accuracy(measured: Metrics, options: EvaluatorOptions) -> Check:
    passed = measured["accuracy"] >= options.min_accuracy
    message = (
        f"accuracy {measured['accuracy']:.4f} is {'at least' if passed else 'below'} evaluator.min_accuracy "
        f"({options.min_accuracy})"
    )
    return {"name": "min_accuracy", "passed": passed, "message": message}


def _check_baseline(measured: Metrics, options: EvaluatorOptions) -> Check:
    baseline = measured["baseline"]
    if baseline is None:
        passed, message = True, "no other model has been pushed: nothing to compare with"
    elif baseline["accuracy"] is None:
        passed = False
        message = (
            f"the pushed version {baseline['version']} has other classes: push this model under a name of its own, "
            "export.model_name"
        )
    else:
        passed = measured["accuracy"] >= baseline["accuracy"] - options.max_accuracy_drop
        message = (
            f"accuracy {measured['accuracy']:.4f} is {'at least' if passed else 'below'} that of the pushed version "
            f"{baseline['version']} on the same photos ({baseline['accuracy']:.4f}), less evaluator.max_accuracy_drop "
            f"({options.max_accuracy_drop})"
        )
    return {"name": "baseline", "passed": passed, "message": message}
