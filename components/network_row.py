"""Describe a trained network as a row of the comparison.

Reads a training, its evaluation and that of its LiteRT files; writes `rows.json` with one row.
"""

from pathlib import Path

from components.artifacts.comparison_rows import make_row, write_rows
from components.artifacts.evaluation import read_metrics
from components.artifacts.litert_evaluation import read_litert_evaluation
from components.artifacts.manifest import read_manifest
from components.artifacts.summary import Summary
from components.artifacts.training import read_training

_LEARNS_FROM = {"head": "photos, backbone frozen", "fine_tune": "photos, fine-tuned", "scratch": "photos, from scratch"}
"""By the last phase of the training."""


def describe(
    *,
    training_dir: Path,
    evaluation_dir: Path,
    litert_evaluation_dir: Path,
    out_dir: Path,
    features_dir: Path | None = None,
) -> Summary:
    """Write the row of a trained network; `features_dir` holds the features it began with, if any."""
    training = read_training(training_dir)
    learns_from = _LEARNS_FROM[list(training["epochs"])[-1]]
    if training["teacher"]:
        learns_from = f"predictions of {training['teacher']}, fine-tuned"
    if training["best_epoch"] == 0:
        learns_from += " (did not help)"
    if features_dir and training["weights"]["source"] == "none":
        learns_from += ", random weights"
    measured = read_metrics(evaluation_dir)
    row = make_row(
        model=training["backbone"],
        learns_from=learns_from,
        measured=measured,
        fit_s=read_manifest(training_dir)["seconds"],
        inputs_s=read_manifest(features_dir)["seconds"] if features_dir else 0.0,
        num_parameters=training["num_parameters"],
        int8=read_litert_evaluation(litert_evaluation_dir)["files"].get("int8"),
        elsewhere=measured["elsewhere"] and measured["elsewhere"]["accuracy"],
    )
    write_rows(out_dir, [row])
    return {"accuracy": round(row["accuracy"], 4)}
