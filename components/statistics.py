"""Describe the examples of each split in numbers: counts, sizes, brightness, contrast, formats.

Reads `examples.json` and `index.jsonl` of the examples artifact; no image is decoded again. Writes
`statistics.json`, which the validator holds against its rules and the report draws.
"""

import tempfile
import weakref
from array import array
from collections import Counter
from pathlib import Path
from typing import IO

import numpy as np

from components.artifacts.examples import SPLITS, IndexRow, Split, read_examples, read_index
from components.artifacts.statistics import Distribution, Range, SplitStatistics, Statistics, write_statistics
from components.artifacts.summary import Summary
from components.errors import DataError

NUM_BINS = 10
"""Bins of the brightness and contrast histograms, equally wide over 0–1; the last one includes 1."""

_BUFFERED = 4096


class _Column:
    """The numbers of one split in a file without a name; memory holds one column at a time, 8 bytes an example."""

    def __init__(self, kind: str) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the column)
        weakref.finalize(self, self._file.close)
        self._recent: array[int | float] = array(kind)  # type: ignore[type-var]

    def append(self, value: float) -> None:
        self._recent.append(value)
        if len(self._recent) == _BUFFERED:
            self._flush()

    def read(self) -> np.ndarray:
        """Return all numbers, shape [N]."""
        self._flush()
        self._file.seek(0)
        return np.fromfile(self._file, self._recent.typecode)

    def _flush(self) -> None:
        self._recent.tofile(self._file)
        self._file.flush()
        del self._recent[:]


class _SplitColumns:
    """The numbers kept of one split, on disk."""

    def __init__(self) -> None:
        self.labels: Counter[int] = Counter()
        self.formats: Counter[str] = Counter()
        self.width, self.height = _Column("q"), _Column("q")
        self.aspect_ratio, self.brightness, self.contrast = _Column("d"), _Column("d"), _Column("d")

    def add(self, row: IndexRow) -> None:
        self.labels[row["label"]] += 1
        self.formats[row["format"]] += 1
        self.width.append(row["width"])
        self.height.append(row["height"])
        self.aspect_ratio.append(row["width"] / row["height"])
        self.brightness.append(row["brightness"])
        self.contrast.append(row["contrast"])

    def describe(self, class_names: list[str]) -> SplitStatistics:
        return {
            "num_examples": self.labels.total(),
            "per_class": {name: self.labels[label] for label, name in enumerate(class_names)},
            "width": _describe_range(self.width.read()),
            "height": _describe_range(self.height.read()),
            "aspect_ratio": _describe_range(self.aspect_ratio.read()),
            "brightness": _describe_distribution(self.brightness.read()),
            "contrast": _describe_distribution(self.contrast.read()),
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
    class_names = read_examples(examples_dir)["class_names"]
    columns = {split: _SplitColumns() for split in SPLITS}
    for row in read_index(examples_dir):
        columns[row["split"]].add(row)
    splits = {split: column.describe(class_names) for split, column in columns.items()}
    examples = read_examples(examples_dir)  # what it lists is in memory after the columns, not beside them
    excluded = examples["excluded"]
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
    """Describe numbers, shape [N], whose order is lost."""
    if not values.size:
        return {"min": None, "median": None, "mean": None, "max": None}
    mean = float(values.mean())  # before the order changes, on which its last digit depends
    median = float(np.median(values, overwrite_input=True))
    return {"min": values.min().item(), "median": median, "mean": mean, "max": values.max().item()}


def _describe_distribution(values: np.ndarray) -> Distribution:
    """Describe numbers, float64 [N] in 0–1, which are lost."""
    histogram = np.histogram(values, bins=NUM_BINS, range=(0.0, 1.0))[0].tolist()
    if not values.size:
        return {"mean": None, "std": None, "histogram": histogram}
    mean = values.mean()
    values -= mean  # as `values.std()` does, without a second array
    values *= values
    return {"mean": float(mean), "std": float(np.sqrt(values.mean())), "histogram": histogram}
