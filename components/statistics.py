"""Describe the examples of each split in numbers: counts, sizes, brightness, contrast, formats.

Reads `examples.json` and `index.jsonl` of the examples artifact; no image is decoded again. Writes
`statistics.json`, which the validator holds against its rules and the report draws.
"""

import json
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import DataError
from components.storage.files import read_json, write_json

SPLITS = ("train", "validation", "test")
NUM_BINS = 10
"""Bins of the brightness and contrast histograms, equally wide over 0–1; the last one includes 1."""


class _SplitColumns:
    """The numbers kept of one split: 32 bytes an example, whatever its images weigh."""

    def __init__(self) -> None:
        self.labels: Counter[int] = Counter()
        self.formats: Counter[str] = Counter()
        self.width, self.height = array("q"), array("q")
        self.brightness, self.contrast = array("d"), array("d")

    def add(self, row: dict[str, Any]) -> None:
        self.labels[row["label"]] += 1
        self.formats[row["format"]] += 1
        self.width.append(row["width"])
        self.height.append(row["height"])
        self.brightness.append(row["brightness"])
        self.contrast.append(row["contrast"])

    def describe(self, class_names: list[str]) -> dict[str, Any]:
        width, height = np.asarray(self.width), np.asarray(self.height)
        return {
            "num_examples": len(width),
            "per_class": {name: self.labels[label] for label, name in enumerate(class_names)},
            "width": _describe_range(width),
            "height": _describe_range(height),
            "aspect_ratio": _describe_range(width / height),
            "brightness": _describe_distribution(np.asarray(self.brightness)),
            "contrast": _describe_distribution(np.asarray(self.contrast)),
            "formats": dict(sorted(self.formats.items())),
        }


def compute(*, examples_dir: Path, out_dir: Path) -> dict[str, int | float | str]:
    """Compute the statistics of train, validation and test and write them to `statistics.json`.

    Widths and heights are in pixels, aspect ratios are width / height, brightness and contrast are the mean
    and the standard deviation of an image's grey values, 0–1. What an empty split cannot have is null.

    Args:
        examples_dir: Folder of the examples artifact, with `examples.json` and `index.jsonl`.
        out_dir: Folder to write `statistics.json` to; created if absent.

    Returns:
        The number of classes, of examples in each split, and of excluded files.

    Raises:
        DataError: A line of the index is malformed, or the index and `examples.json` count differently.
    """
    examples = read_json(examples_dir / "examples.json")
    class_names: list[str] = examples["class_names"]
    columns = {split: _SplitColumns() for split in SPLITS}
    for row in _read_index(examples_dir / "index.jsonl", splits=list(columns), num_classes=len(class_names)):
        columns[row["split"]].add(row)

    splits = {split: column.describe(class_names) for split, column in columns.items()}
    for split, described in splits.items():
        _check_counts(split, described["per_class"], examples["splits"].get(split, {}))

    excluded = examples["excluded"]
    statistics = {
        "class_names": class_names,
        "source": examples["source"],
        "resolved": examples["resolved"],
        "fallback": examples["fallback"],
        "splits": splits,
        "num_excluded": len(excluded),
        "excluded_by_rule": dict(sorted(Counter(entry["rule"] for entry in excluded).items())),
        "excluded": excluded,
    }
    write_json(out_dir / "statistics.json", statistics)
    counts = {f"num_{split}": described["num_examples"] for split, described in splits.items()}
    return {"num_classes": len(class_names), **counts, "num_excluded": len(excluded)}


def _read_index(path: Path, *, splits: list[str], num_classes: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of the index one at a time, each checked before it is counted."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                fits = (
                    row["split"] in splits
                    and row["label"] in range(num_classes)
                    and isinstance(row["format"], str)
                    and all(isinstance(row[key], int) and row[key] > 0 for key in ("width", "height"))
                    and all(0 <= row[key] <= 1 for key in ("brightness", "contrast"))
                )
            except (ValueError, KeyError, TypeError) as exc:
                raise _malformed_line(path, number, line, splits, num_classes) from exc
            if not fits:
                raise _malformed_line(path, number, line, splits, num_classes)
            yield row


def _malformed_line(path: Path, number: int, line: str, splits: list[str], num_classes: int) -> DataError:
    return DataError(
        f"Each line of index.jsonl must be a JSON object with a split of {splits}, a label in "
        f"[0, {num_classes}), a format, a width and height above 0, a brightness and contrast in 0–1. "
        f"Received: line {number} of {path}: {line.strip()[:200]!r}. "
        "Make the examples again with --force examples."
    )


def _check_counts(split: str, per_class: dict[str, int], declared: dict[str, Any]) -> None:
    """Raise unless the index holds exactly the examples that `examples.json` declares."""
    expected = {name: declared.get("per_class", {}).get(name, 0) for name in per_class}
    num_expected = declared.get("num_examples", 0)
    if per_class != expected or sum(per_class.values()) != num_expected:
        raise DataError(
            f"index.jsonl must hold the examples that examples.json declares. Received: {per_class} for "
            f"{split} in the index, {num_expected} examples {expected} declared. "
            "Make the examples again with --force examples."
        )


def _describe_range(values: np.ndarray) -> dict[str, float | None]:
    """Return the min, median, mean and max of `values`, shape [N]."""
    if not values.size:
        return dict.fromkeys(("min", "median", "mean", "max"))
    return {
        "min": values.min().item(),
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "max": values.max().item(),
    }


def _describe_distribution(values: np.ndarray) -> dict[str, Any]:
    """Return the mean, standard deviation and histogram of `values`, float64 [N] in 0–1."""
    histogram = np.histogram(values, bins=NUM_BINS, range=(0.0, 1.0))[0].tolist()
    if not values.size:
        return {"mean": None, "std": None, "histogram": histogram}
    return {"mean": float(values.mean()), "std": float(values.std()), "histogram": histogram}
