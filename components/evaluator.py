"""Judge the exported SavedModel, as it will be served, on photos it has never seen.

Reads the test examples, the SavedModel and the baseline (the last pushed model); sends the encoded photos through
`serving_default`. Writes `metrics.json`, `predictions.jsonl` and `blessing.json`: whether the model may be pushed, and
every reason for or against. A gate that compares refuses what is shown to be too bad, at `confidence`; where the photos
are too few to tell, its message says so, and the other gates decide.
"""

import logging
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
    Uncalibrated,
    write_metrics,
    write_predictions,
)
from components.artifacts.examples import ENCODED, IndexRow, read_index, shards
from components.artifacts.learned_photos import read_learned_photos, to_id
from components.artifacts.summary import Summary
from components.errors import EvaluationError
from components.options import check_at_least, check_range
from components.progress import Progress
from components.reporting import metrics
from components.storage.cache import fetch_folder
from components.storage.models import MARKER
from components.training.calibration import temper
from export.spec import ModelSpec, read_spec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluatorOptions:
    """What a model must reach.

    Attributes:
        min_accuracy: share of right predictions on the test photos below which no model is blessed.
        min_recall: of every class, 0–1; a model is not blessed where one is shown to be below.
        must_beat_majority: whether the model must be right more often than one that always names the most frequent
            class of the test photos.
        max_accuracy_drop: how much less accurate than the last pushed model it may be, on the photos that neither has
            learned from; a model that is shown to be worse is not blessed.
        require_baseline: whether a pushed model that the candidate cannot be compared with speaks against it.
        confidence: how sure it must be that a recall is too low, or a drop too large, 0.5–0.9999.
        batch_size: photos a call.
    """

    min_accuracy: float = 0.6
    min_recall: float = 0.25
    must_beat_majority: bool = True
    max_accuracy_drop: float = 0.0
    require_baseline: bool = False
    confidence: float = 0.95
    batch_size: int = 32

    def __post_init__(self) -> None:
        check_range(self, 0, 1, "min_accuracy", "min_recall", "max_accuracy_drop")
        check_range(self, 0.5, 0.9999, "confidence")
        check_at_least(self, 1, "batch_size")


OTHER_CLASSES = "its classes are others"

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
    right = probabilities.argmax(axis=1) == labels
    measured: Metrics = {
        **metrics.summarize(probabilities, labels, spec["class_names"]),
        "uncalibrated": _undo_calibration(probabilities, labels, spec),
        "data": spec["data"],
        "weights": spec["weights"],
        "slices": _slice(rows, right),
        "baseline": _measure_baseline(baseline_dir, spec["class_names"], examples_dir, rows, right, options),
    }
    write_metrics(out_dir, measured)
    write_predictions(out_dir, map(_describe, rows, probabilities))
    checks = [
        _check_finite(probabilities, measured),
        _check_accuracy(measured, options),
        _check_majority(measured, options),
        _check_recall(measured, options),
        _check_baseline(measured, options),
    ]
    blessed = write_blessing(out_dir, checks, validator="evaluator")
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

    features = {ENCODED: tf.io.FixedLenFeature([], tf.string)}
    records = tf.data.TFRecordDataset([str(shard) for shard in shards(examples_dir, "test")])
    photos = records.map(lambda record: tf.io.parse_single_example(record, features)[ENCODED])
    try:
        serve = tf.saved_model.load(str(model_dir)).signatures["serving_default"]
        batches = Progress(photos.batch(batch_size), desc="evaluating", unit="batch")
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


def _undo_calibration(probabilities: NDArray[np.float32], labels: NDArray[np.int64], spec: ModelSpec) -> Uncalibrated:
    """Measure the model as it was before its logits were divided by a temperature."""
    before = temper(probabilities, 1 / spec["temperature"]).astype(np.float32)
    measured = metrics.summarize(before, labels, spec["class_names"])
    return {
        "temperature": spec["temperature"],
        "loss": measured["loss"],
        "brier": measured["brier"],
        "calibration": measured["calibration"],
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
    rows: Sequence[IndexRow],
    right: NDArray[np.bool_],
    options: EvaluatorOptions,
) -> BaselineMetrics | None:
    """Compare with the last pushed model on the photos that neither has learned from; say why where that cannot be."""
    baseline = read_baseline(baseline_dir) if baseline_dir else None
    if baseline is None or baseline["version"] is None or baseline["path"] is None:
        return None
    path = fetch_folder(baseline["path"], marker=MARKER)
    learned = read_learned_photos(path)
    unseen = np.array([learned is not None and to_id(row["sha256"]) not in learned for row in rows])
    measured = BaselineMetrics(
        version=baseline["version"],
        accuracy=None,
        candidate_accuracy=None,
        num_examples=int(unseen.sum()),
        num_only_baseline_right=0,
        num_only_candidate_right=0,
        p_value=None,
        reason=None,
    )
    if read_spec(path)["class_names"] != class_names:
        return {**measured, "reason": OTHER_CLASSES}
    if learned is None:
        return {**measured, "reason": "it carries no list of the photos that it learned from"}
    if not unseen.any():
        return {**measured, "reason": "it has learned from every test photo"}
    labels = np.array([row["label"] for row in rows])
    others = (_predict(path, examples_dir, options.batch_size).argmax(axis=1) == labels)[unseen]
    ours = right[unseen]
    num_lost, num_won = int((others & ~ours).sum()), int((ours & ~others).sum())
    return {
        **measured,
        "accuracy": float(others.mean()),
        "candidate_accuracy": float(ours.mean()),
        "num_only_baseline_right": num_lost,
        "num_only_candidate_right": num_won,
        "p_value": metrics.drop_p_value(num_lost, num_won, len(ours), max_drop=options.max_accuracy_drop),
    }


def _check_finite(probabilities: NDArray[np.float32], measured: Metrics) -> Check:
    finite = bool(np.isfinite(probabilities).all() and measured["loss"] is not None)
    message = f"every probability and the loss are {'' if finite else 'not '}finite numbers"
    return {"name": "finite", "passed": finite, "message": message}


def _check_accuracy(measured: Metrics, options: EvaluatorOptions) -> Check:
    # With room for the rounding of a quotient.
    passed = measured["accuracy"] >= options.min_accuracy - 1e-9
    message = (
        f"accuracy {measured['accuracy']:.4f} is {'at least' if passed else 'below'} evaluator.min_accuracy "
        f"({options.min_accuracy})"
    )
    return {"name": "min_accuracy", "passed": passed, "message": message}


def _check_majority(measured: Metrics, options: EvaluatorOptions) -> Check:
    """Hold the model against one that always names the most frequent class: it is worth nothing unless it is better."""
    counts = {name: of_class["num_examples"] for name, of_class in measured["per_class"].items()}
    name = max(counts, key=counts.__getitem__)
    num_right, num_examples = round(measured["accuracy"] * measured["num_examples"]), measured["num_examples"]
    is_better = num_right > counts[name]
    message = (
        f"{num_right} of {num_examples} right is {'more' if is_better else 'no more'} than always naming {name} would "
        f"be ({counts[name]}); evaluator.must_beat_majority is {str(options.must_beat_majority).lower()}"
    )
    return {"name": "majority", "passed": is_better or not options.must_beat_majority, "message": message}


def _check_recall(measured: Metrics, options: EvaluatorOptions) -> Check:
    """Find the classes whose recall is shown to be too low: below an interval that holds for all classes together."""
    classes = measured["per_class"]
    shown: list[str] = []
    unclear: list[str] = []
    tail = (1 - options.confidence) / len(classes)  # C. E. Bonferroni, 1936: one of many is low by luck
    for name, of_class in classes.items():
        num_examples = of_class["num_examples"]
        num_right = round(of_class["recall"] * num_examples)
        if num_examples and num_right < options.min_recall * num_examples - 1e-9:
            text = f"{name} ({num_right} of {num_examples})"
            high = metrics.wilson_interval(num_right, num_examples, tail=tail)[1]
            (shown if high < options.min_recall else unclear).append(text)
    bar = f"evaluator.min_recall ({options.min_recall})"
    if shown:
        message = f"recall is below {bar}: {', '.join(shown)}"
    elif unclear:
        message = f"recall below {bar} is not shown; too few photos to tell: {', '.join(unclear)}"
    else:
        message = f"the recall of every class is at least {bar}"
    return {"name": "min_recall", "passed": not shown, "message": message}


def _check_baseline(measured: Metrics, options: EvaluatorOptions) -> Check:
    baseline = measured["baseline"]
    if baseline is None:
        return {
            "name": "baseline",
            "passed": True,
            "message": "no other model has been pushed: nothing to compare with",
        }
    pushed = f"the pushed version {baseline['version']}"
    if baseline["reason"] == OTHER_CLASSES:
        message = f"{pushed} has other classes: push this model under a name of its own, export.model_name"
        return {"name": "baseline", "passed": False, "message": message}
    if baseline["p_value"] is None:
        passed = not options.require_baseline
        message = (
            f"it cannot be compared with {pushed}: {baseline['reason']}. The other checks decide; "
            f"evaluator.require_baseline is {str(options.require_baseline).lower()}"
        )
        log.warning("evaluator: %s", message)
        return {"name": "baseline", "passed": passed, "message": message}
    num_lost, num_won = baseline["num_only_baseline_right"], baseline["num_only_candidate_right"]
    passed = baseline["p_value"] >= 1 - options.confidence
    is_lower = num_lost - num_won > options.max_accuracy_drop * baseline["num_examples"] + 1e-9
    verdict = "is not shown to be" if passed else "is"
    message = (
        f"accuracy {baseline['candidate_accuracy']:.4f} {verdict} below that of {pushed} ({baseline['accuracy']:.4f}), "
        f"less evaluator.max_accuracy_drop ({options.max_accuracy_drop}): of {baseline['num_examples']} photos that "
        f"neither has learned from {num_lost} are right with the pushed one alone and {num_won} with this one alone, "
        f"p = {baseline['p_value']:.3f}"
    )
    if passed and is_lower:
        message += "; too few to tell"
        log.warning("evaluator: %s", message)
    return {"name": "baseline", "passed": passed, "message": message}
