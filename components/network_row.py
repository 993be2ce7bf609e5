"""The rows of the comparison: what one model is, how good it is on the test split, and what it costs.

`describe_network` reads a training, its evaluation and that of its LiteRT files; it writes `rows.json`, a list with one
row. The steps that fit classical models write the same file. Every accuracy in it is of the same test photos.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.artifacts import manifest as lineage
from components.storage.files import read_json, write_json

ROWS = "rows.json"
_WAYS = {"head": "photos, backbone frozen", "fine_tune": "photos, fine-tuned", "scratch": "photos, from scratch"}


def make(
    *,
    model: str,
    learns_from: str,
    measured: Mapping[str, Any],
    fit_s: float,
    inputs_s: float,
    num_parameters: int,
    int8: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Give a row.

    Args:
        model: what the row is called.
        learns_from: and in which way.
        measured: `metrics.summarize` or `metrics.summarize_classes`.
        fit_s: seconds of its own training.
        inputs_s: seconds to make what it learns from, shared with other rows.
        num_parameters: numbers that the trained model keeps.
        int8: `size_bytes` and `latency_ms` (one photo, decoded) of its int8 file, where it has one.
    """
    return {
        "model": model,
        "learns_from": learns_from,
        **{name: measured[name] for name in ("accuracy", "accuracy_interval", "num_examples", "macro")},
        "fit_s": round(fit_s, 2),
        "inputs_s": round(inputs_s, 2),
        "num_parameters": num_parameters,
        "int8": {name: int8[name] for name in ("accuracy", "size_bytes", "latency_ms")} if int8 else None,
    }


def describe(
    *,
    training_dir: Path,
    evaluation_dir: Path,
    litert_evaluation_dir: Path,
    out_dir: Path,
    features_dir: Path | None = None,
) -> dict[str, Any]:
    """Write the row of a trained network; `features_dir` holds the features it began with, if any."""
    training = read_json(training_dir / "training.json")
    learns_from = _WAYS[list(training["epochs"])[-1]]
    if features_dir and training["weights"]["source"] == "none":
        learns_from += ", random weights"
    row = make(
        model=training["backbone"],
        learns_from=learns_from,
        measured=read_json(evaluation_dir / "metrics.json"),
        fit_s=seconds(training_dir),
        inputs_s=seconds(features_dir) if features_dir else 0.0,
        num_parameters=training["num_parameters"],
        int8=read_json(litert_evaluation_dir / "evaluation.json")["files"].get("int8"),
    )
    write_json(out_dir / ROWS, [row])
    return {"accuracy": round(row["accuracy"], 4)}


def seconds(artifact_dir: Path) -> float:
    """Read how long a step took."""
    return lineage.read_manifest(artifact_dir)["seconds"]
