"""Describe the examples of each split in numbers: counts, sizes, brightness, contrast, formats.

Reads `examples.json` and `index.jsonl` of the examples artifact; no image is decoded again. Writes
`statistics.json`, which the validator holds against its rules and the report draws.
"""

from array import array
from collections import Counter
from pathlib import Path

import numpy as np

from components.artifacts.examples import SPLITS, IndexRow, Split, read_examples, read_index
from components.artifacts.statistics import Distribution, Range, SplitStatistics, Statistics, write_statistics
from components.artifacts.summary import Summary
from components.errors import DataError

NUM_BINS = 10
"""Bins of the brightness and contrast histograms, equally wide over 0–1; the last one includes 1."""


class _SplitColumns:
    """The numbers kept of one split: 32 bytes an example, however large its images are."""

    def __init__(self) -> None:
        self.labels: Counter[int] = Counter()
        self.formats: Counter[str] = Counter()
        self.width, self.height = array("q"), array("q")
        self.brightness, self.contrast = array("d"), array("d")

    def add(self, row: IndexRow) -> None:
        self.labels[row["label"]] += 1
        self.formats[row["format"]] += 1
        self.width.append(row["width"])
        self.height.append(row["height"])
        self.brightness.append(row["brightness"])
        self.contrast.append(row["contrast"])

    def describe(self, class_names: list[str]) -> SplitStatistics:
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


def compute(*, examples_dir: Path, out_dir: Path) -> Summary:
    """Compute the statistics of train, validation and test and write them.

    Args:
        examples_dir: Folder of the examples artifact.
        out_dir: Folder to write `statistics.json` to; created if absent.

    Returns:
        The number of classes, of examples in each split, and of excluded files.

    Raises:
        DataError: A line of the index is malformed, or the index and `examples.json` count differently.
    """
    examples = read_examples(examples_dir)
    class_names, excluded = examples["class_names"], examples["excluded"]
    columns = {split: _SplitColumns() for split in SPLITS}
    for row in read_index(examples_dir):
        columns[row["split"]].add(row)
    splits = {split: column.describe(class_names) for split, column in columns.items()}
    for split, described in splits.items():
        _check_counts(split, described["per_class"], examples["splits"].get(split))

    statistics = Statistics(
        class_names=class_names,
        source=examples["source"],
        resolved=examples["resolved"],
        fallback=examples["fallback"],
        splits=splits,
        num_excluded=len(excluded),
        excluded_by_rule=dict(sorted(Counter(exclusion["rule"] for exclusion in excluded).items())),
        excluded=excluded,
        label_conflicts=examples["label_conflicts"],
    )
    write_statistics(out_dir, statistics)
    counts = {f"num_{split}": described["num_examples"] for split, described in splits.items()}
    return {"num_classes": len(class_names), **counts, "num_excluded": len(excluded)}


def _check_counts(split: str, per_class: dict[str, int], declared: Split | None) -> None:
    """Raise unless the index holds exactly the examples that `examples.json` declares; a split left out has none."""
    num_expected = declared["num_examples"] if declared else 0
    expected = {name: declared["per_class"].get(name, 0) if declared else 0 for name in per_class}
    if per_class != expected or sum(per_class.values()) != num_expected:
        raise DataError(
            f"index.jsonl must hold the examples that examples.json declares. Received: {per_class} for "
            f"{split} in the index, {num_expected} examples {expected} declared. "
            "Make the examples again with --force examples."
        )


def _describe_range(values: np.ndarray) -> Range:
    """Describe numbers, shape [N]."""
    if not values.size:
        return {"min": None, "median": None, "mean": None, "max": None}
    return {
        "min": values.min().item(),
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "max": values.max().item(),
    }


def _describe_distribution(values: np.ndarray) -> Distribution:
    """Describe numbers, float64 [N] in 0–1."""
    histogram = np.histogram(values, bins=NUM_BINS, range=(0.0, 1.0))[0].tolist()
    if not values.size:
        return {"mean": None, "std": None, "histogram": histogram}
    return {"mean": float(values.mean()), "std": float(values.std()), "histogram": histogram}
