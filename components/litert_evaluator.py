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
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.artifacts.blessing import is_blessed
from components.artifacts.evaluation import read_predictions
from components.artifacts.examples import read_encoded
from components.artifacts.litert import find_litert_files
from components.artifacts.litert_evaluation import LiteRTEvaluation, LiteRTFile, Measured, write_litert_evaluation
from components.artifacts.summary import Summary
from components.errors import EvaluationError
from components.options import check_above, check_range
from components.reporting import metrics
from components.storage.files import sha256, size_bytes
from export.measure import Measured as Output
from export.spec import read_spec

log = logging.getLogger(__name__)

NUM_SAVED_MODEL_PHOTOS = 50
"""Enough for the SavedModel's latency; its accuracy is known."""
_MIN_SHARED_REFUSALS = 0.5
_PROGRAM = "export.measure"
_ROOT = Path(__file__).resolve().parent.parent

Labels = NDArray[np.int64]
"""`int64 [N]`, indices into the class names."""


@dataclass(frozen=True)
class LiteRTEvaluatorOptions:
    """What a file must reach.

    Attributes:
        max_accuracy_drop: how much less accurate than the SavedModel it may be; a file that is shown to be worse is not
            pushed.
        min_agreement: on which share of the photos it must name the class that the SavedModel names; a file that is
            shown to be below, and is right no more often than the SavedModel, is not pushed.
        min_refusal_agreement: on which share of the photos it must refuse, as none of the classes, what the SavedModel
            refuses, and nothing else; a file that is shown to be below is not pushed, nor is one that is shown to miss
            half of what the SavedModel refuses, which are few of all photos. With 0 neither is judged.
        confidence: how sure each of these must be, 0.5–0.9999; where the photos are too few to tell, a note says so.
        timeout_s: how long one file may take for the whole split.
    """

    max_accuracy_drop: float = 0.02
    min_agreement: float = 0.95
    min_refusal_agreement: float = 0.98
    confidence: float = 0.95
    timeout_s: float = 3600.0

    def __post_init__(self) -> None:
        check_range(self, 0, 1, "max_accuracy_drop", "min_agreement", "min_refusal_agreement")
        check_range(self, 0.5, 0.9999, "confidence")
        check_above(self, 0, "timeout_s")


def evaluate(
    *,
    examples_dir: Path,
    export_dir: Path,
    evaluation_dir: Path,
    litert_dir: Path,
    out_dir: Path,
    options: LiteRTEvaluatorOptions,
) -> Summary:
    """Measure the files of a model that the evaluator blessed, and decide which of them may be pushed.

    Raises:
        EvaluationError: a file cannot be run at all, or not in time.
    """
    spec = read_spec(export_dir)
    found = find_litert_files(litert_dir, spec["model_name"])
    files = dict(sorted(found.items(), key=lambda item: -item[1].stat().st_size))
    evaluation: LiteRTEvaluation = {"saved_model": None, "files": {}}
    if files and is_blessed(evaluation_dir):
        predictions = read_predictions(evaluation_dir)
        labels = np.array([prediction["label"] for prediction in predictions])
        expected = np.array([prediction["predicted"] for prediction in predictions])
        is_known = [prediction["is_known"] for prediction in predictions]
        if spec["weights"]["source"] == "none":
            log.warning("litert_evaluator: what a backbone with random weights refuses is chance: measured, not judged")
            options = replace(options, min_refusal_agreement=0.0)
        with tempfile.TemporaryDirectory() as folder:
            photos_dir = Path(folder)
            for position, (_, encoded) in enumerate(read_encoded(examples_dir, "test")):
                (photos_dir / f"{position:08d}").write_bytes(encoded)
            for kind, path in files.items():
                output = _measure(options, path, photos_dir)
                predicted = _to_labels(output["predictions"], spec["class_names"])
                evaluation["files"][kind] = _judge(path, output, predicted, labels, expected, is_known, options)
            output = _measure(options, export_dir, photos_dir, NUM_SAVED_MODEL_PHOTOS)
            evaluation["saved_model"] = _describe(expected == labels, size_bytes(export_dir), output)
    write_litert_evaluation(out_dir, evaluation)
    for row in evaluation["files"].values():
        for objection in row["objections"]:
            log.warning("litert_evaluator: %s will not be pushed: %s", row["name"], objection)
        for note in row["notes"]:
            log.warning("litert_evaluator: %s: %s", row["name"], note)
    return {
        "num_files": len(evaluation["files"]),
        "num_passed": sum(row["passed"] for row in evaluation["files"].values()),
        **{kind: f"{row['accuracy']:.4f} in {row['latency_ms']:.1f} ms" for kind, row in evaluation["files"].items()},
    }


def _measure(options: LiteRTEvaluatorOptions, model: Path, *arguments: Path | int) -> Output:
    """Run the program that measures a model, in a process of its own."""
    command = [sys.executable, "-m", _PROGRAM, str(model.absolute()), *map(str, arguments)]
    try:
        done = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, timeout=options.timeout_s)
    except subprocess.TimeoutExpired as exc:
        raise EvaluationError(
            f"{model} must classify every test photo within litert_evaluator.timeout_s ({options.timeout_s:g} s), and "
            "does not. Allow more, or look whether the machine has the memory."
        ) from exc
    except subprocess.CalledProcessError as exc:
        lines = exc.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {exc.returncode}"]
        raise EvaluationError(f"{model} must run in a process of its own, and does not: {lines[-1]}") from exc
    return json.loads(done.stdout)


def _to_labels(predictions: Sequence[dict[str, float] | None], class_names: Sequence[str]) -> Labels:
    """Return the label of each prediction, -1 where there is none, or one of its probabilities is no number."""
    rows = np.array([[(p or {}).get(name, np.nan) for name in class_names] for p in predictions])
    return np.where(np.isfinite(rows).all(axis=1), np.nan_to_num(rows).argmax(axis=1), -1)


def _describe(right: NDArray[np.bool_], num_bytes: int, output: Output) -> Measured:
    return {
        **metrics.accuracy(right),
        "size_bytes": num_bytes,
        "latency_ms": output["latency_ms"],
        "peak_memory_bytes": output["peak_memory_bytes"],
    }


def _judge(
    path: Path,
    output: Output,
    predicted: Labels,
    labels: Labels,
    expected: Labels,
    is_known: Sequence[bool | None],
    options: LiteRTEvaluatorOptions,
) -> LiteRTFile:
    """Compare a file's predicted labels with the true ones and with those that the SavedModel predicts.

    Likewise its refusals with what is known to the SavedModel.
    """
    right, expected_right, agrees = predicted == labels, expected == labels, predicted == expected
    num_lost, num_won = int((expected_right & ~right).sum()), int((right & ~expected_right).sum())
    num_examples = len(labels)
    drop, agreement = (num_lost - num_won) / num_examples, float(agrees.mean())
    objections: list[str] = []
    notes: list[str] = []
    # With room for the rounding of a difference.
    if drop > options.max_accuracy_drop + 1e-9:
        p_value = metrics.drop_p_value(num_lost, num_won, num_examples, max_drop=options.max_accuracy_drop)
        (objections if p_value < 1 - options.confidence else notes).append(
            f"its accuracy is {drop:.4f} below the SavedModel's, more than litert_evaluator.max_accuracy_drop "
            f"({options.max_accuracy_drop})"
        )
    if agreement < options.min_agreement - 1e-9 and num_won <= num_lost:
        high = metrics.wilson_interval(int(agrees.sum()), num_examples, tail=1 - options.confidence)[1]
        (objections if high < options.min_agreement else notes).append(
            f"it agrees with the SavedModel on {agreement:.4f} of the photos, less than litert_evaluator.min_agreement "
            f"({options.min_agreement})"
        )
    refusal_agreement = _judge_refusals(output["is_known"], is_known, options, objections, notes)
    if num_missing := int((predicted < 0).sum()):
        objections.append(f"{num_missing} of {num_examples} predictions are missing, or no numbers")
    if len(set(predicted)) == 1 and len(set(expected)) > 1:
        objections.append("it predicts one class for everything")
    return {
        "name": path.name,
        "sha256": sha256(path),
        **_describe(predicted == labels, path.stat().st_size, output),
        "agreement": agreement,
        "refusal_agreement": refusal_agreement,
        "passed": not objections,
        "objections": objections,
        "notes": [f"{note}; {num_examples} photos are too few to tell" for note in notes],
    }


def _judge_refusals(
    found: Sequence[bool | None],
    expected: Sequence[bool | None],
    options: LiteRTEvaluatorOptions,
    objections: list[str],
    notes: list[str],
) -> float | None:
    """Compare which photos are known to a file with those known to the SavedModel; add what speaks against the file."""
    if None in expected:
        return None
    tail, num_examples = 1 - options.confidence, len(expected)
    num_agreed = sum(is_known == of_model for is_known, of_model in zip(found, expected, strict=True))
    agreement = num_agreed / num_examples
    if agreement < options.min_refusal_agreement - 1e-9:
        high = metrics.wilson_interval(num_agreed, num_examples, tail=tail)[1]
        (objections if high < options.min_refusal_agreement else notes).append(
            f"it refuses what the SavedModel refuses on {agreement:.4f} of the photos, less than "
            f"litert_evaluator.min_refusal_agreement ({options.min_refusal_agreement})"
        )
    refused = [is_known for is_known, of_model in zip(found, expected, strict=True) if of_model is False]
    num_shared = refused.count(False)
    high = metrics.wilson_interval(num_shared, len(refused), tail=tail)[1]
    if options.min_refusal_agreement and high < _MIN_SHARED_REFUSALS:
        objections.append(f"it refuses {num_shared} of the {len(refused)} photos that the SavedModel refuses")
    return agreement
