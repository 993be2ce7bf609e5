"""Judge the exported SavedModel, as it will be served, on photos it has never seen.

Reads the test examples, the SavedModel and the baseline (the last pushed model), and further photos where options name
them; sends the encoded photos through `serving_default`. Writes `metrics.json`, `predictions.jsonl`, `outputs.npz` and
`blessing.json`: whether the model may be pushed, and every reason for or against. A gate that compares refuses what is
shown to be too bad, at `confidence`; where the photos are too few to tell, its message says so, and the other gates
decide.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.artifacts.blessing import Check, write_blessing
from components.artifacts.evaluation import (
    Accuracy,
    Metrics,
    Prediction,
    Uncalibrated,
    write_metrics,
    write_predictions,
)
from components.artifacts.examples import IndexRow, read_index, shards
from components.artifacts.outputs import write_outputs
from components.artifacts.summary import Summary
from components.data.sources.source import Description
from components.errors import EvaluationError
from components.evaluation import gates, photo_folders
from components.evaluation.baseline import measure_baseline
from components.evaluation.corruption import measure_corruptions
from components.evaluation.limits import measure_elsewhere, measure_limits
from components.evaluation.served_model import Outputs, ServedModel, read_encoded
from components.options import check_at_least, check_range
from components.reporting import metrics
from components.training.calibration import temper
from export.spec import ModelSpec, read_spec


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
        max_loss_rise: how much higher than the last pushed model's its mean cross-entropy may be, likewise.
        max_refused_rise: how much larger than with the last pushed model the share of refused test photos may be.
        max_foreign_rise: and the share of foreign photos that are let through.
        confidence: how sure it must be that a recall is too low, or a drop or rise too large, 0.5–0.9999.
        foreign_photos: a folder of photos of other things than the classes, in any depth; empty for none.
        other_photos: a folder `<class>/*.jpg` of the same classes from another collection; empty for none.
        corruptions: whether the validation photos are judged blurred, noisy, darkened and so on, too.
        batch_size: photos a call.
    """

    min_accuracy: float = 0.6
    min_recall: float = 0.25
    must_beat_majority: bool = True
    max_accuracy_drop: float = 0.0
    require_baseline: bool = False
    max_loss_rise: float = 0.05
    max_refused_rise: float = 0.05
    max_foreign_rise: float = 0.05
    confidence: float = 0.95
    foreign_photos: str = ""
    other_photos: str = ""
    corruptions: bool = False
    batch_size: int = 32

    def __post_init__(self) -> None:
        check_range(
            self, 0, 1, "min_accuracy", "min_recall", "max_accuracy_drop", "max_refused_rise", "max_foreign_rise"
        )
        check_at_least(self, 0, "max_loss_rise")
        check_range(self, 0.5, 0.9999, "confidence")
        check_at_least(self, 1, "batch_size")


_SLICES: dict[str, Callable[[IndexRow], str]] = {
    "brightness": lambda r: "dark" if r["brightness"] < 0.3 else "bright" if r["brightness"] > 0.6 else "medium",
    "contrast": lambda r: "low" if r["contrast"] < 0.15 else "normal",
    "shape": lambda r: "square" if r["width"] == r["height"] else "wide" if r["width"] > r["height"] else "tall",
    "size": lambda r: "small" if r["width"] * r["height"] < 224 * 224 else "large",
    "format": lambda r: r["format"],
}


def describe_source(options: EvaluatorOptions) -> dict[str, Description]:
    """Describe the folders of further photos, before anything runs: where their files change, a model is judged again.

    Raises:
        EvaluationError: a folder does not exist.
        DataError: a folder holds no files, or cannot be read.
    """
    found: dict[str, Description] = {}
    if options.foreign_photos:
        found["foreign_photos"] = photo_folders.describe_foreign(options.foreign_photos)
    if options.other_photos:
        found["other_photos"] = photo_folders.describe_other(options.other_photos)
    return found


def evaluate(
    *,
    examples_dir: Path,
    export_dir: Path,
    out_dir: Path,
    options: EvaluatorOptions,
    baseline_dir: Path | None = None,
    earlier_dir: Path | None = None,
) -> Summary:
    """Measure the model and decide whether it is blessed; without a baseline it is compared with no other.

    A baseline is not called again on photos on which an earlier evaluation, `earlier_dir`, has called it.

    Raises:
        EvaluationError: there is nothing to evaluate on, or the model cannot be called.
        DataError: a folder of further photos cannot be read.
    """
    index = list(read_index(examples_dir))
    rows = [row for row in index if row["split"] == "test"]
    if not rows:
        raise EvaluationError("A model is evaluated on the test split, and it has no examples. Add photos to it.")
    if options.corruptions and all(row["split"] != "validation" for row in index):
        raise EvaluationError("evaluator.corruptions judges on the validation split, and it has no examples.")
    labels = np.array([row["label"] for row in rows])
    spec = read_spec(export_dir)
    class_names = spec["class_names"]
    foreign_pool, other_pool = (out_dir / f".{name}.tfrecord" for name in ("foreign", "other"))
    foreign = photo_folders.open_foreign(options.foreign_photos, pool=foreign_pool) if options.foreign_photos else None
    other = (
        photo_folders.open_other(options.other_photos, class_names=class_names, pool=other_pool)
        if options.other_photos
        else None
    )
    model = ServedModel(export_dir, batch_size=options.batch_size)
    outputs = model.classify(read_encoded(shards(examples_dir, "test")))
    on_foreign = (foreign, model.classify(foreign.read(), desc="foreign photos")) if foreign else None
    measured: Metrics = {
        **metrics.summarize(outputs.probabilities, labels, class_names),
        "uncalibrated": _undo_calibration(outputs.probabilities, labels, spec),
        "data": spec["data"],
        "weights": spec["weights"],
        "slices": _slice(rows, outputs.probabilities.argmax(axis=1) == labels),
        "limits": measure_limits(outputs, labels, spec, on_foreign),
        "elsewhere": measure_elsewhere(other, model.classify(other.read(), desc="other photos")) if other else None,
        "corruptions": measure_corruptions(
            model,
            shards(examples_dir, "validation"),
            image_size_px=spec["image_size_px"],
            batch_size=options.batch_size,
        )
        if options.corruptions
        else None,
        "baseline": measure_baseline(
            baseline_dir, class_names, examples_dir, rows, outputs, on_foreign, options, earlier_dir=earlier_dir
        ),
    }
    for pool in (foreign_pool, other_pool):
        pool.unlink(missing_ok=True)
    write_metrics(out_dir, measured)
    write_outputs(out_dir, [row["sha256"] for row in rows], outputs.to_arrays())
    write_predictions(out_dir, (_describe(position, row, outputs) for position, row in enumerate(rows)))
    checks = [
        _check_finite(outputs.probabilities, measured),
        _check_accuracy(measured, options),
        _check_majority(measured, options),
        _check_recall(measured, options),
        gates.check_baseline(measured["baseline"], options),
        gates.check_calibration(measured, options),
        gates.check_refusal(measured, options),
        *([gates.check_foreign(measured, options)] if foreign else []),
    ]
    blessed = write_blessing(out_dir, checks, validator="evaluator")
    low, high = measured["accuracy_interval"]
    limits = measured["limits"]
    return {
        "accuracy": round(measured["accuracy"], 4),
        "interval": f"{low:.3f}–{high:.3f}",
        "loss": round(measured["loss"], 4) if measured["loss"] is not None else "none",
        **({"refused": round(limits["refused"]["share"], 4)} if limits else {}),
        "blessed": blessed,
    }


def _describe(position: int, row: IndexRow, outputs: Outputs) -> Prediction:
    probabilities, limits = outputs.probabilities[position], outputs.limits
    by_probability = np.argsort(-probabilities, kind="stable")
    return {
        "filename": row["filename"],
        "label": row["label"],
        "predicted": int(probabilities.argmax()),
        "probabilities": [round(float(probability), 6) for probability in probabilities],
        "p_value": round(float(limits.p_values[position]), 6) if limits else None,
        "is_known": bool(limits.is_known[position]) if limits else None,
        "prediction_set": [int(n) for n in by_probability if limits.sets[position, n]] if limits else None,
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
        tested = [name for name, of_class in classes.items() if of_class["num_examples"]]
        name = min(tested, key=lambda each: classes[each]["recall"])
        message = (
            f"the recall of every class is at least {bar}; the lowest, of {name}, is {classes[name]['recall']:.4f}"
        )
    return {"name": "min_recall", "passed": not shown, "message": message}
