"""`statistics.json`: the examples of each split in numbers."""

from pathlib import Path
from typing import TypedDict

from components.artifacts.examples import DataOrigin, Exclusion
from components.storage.files import read_json, write_json


class Range(TypedDict):
    """Of numbers; null where there are none."""

    min: float | None
    median: float | None
    mean: float | None
    max: float | None


class Distribution(TypedDict):
    """Mean, standard deviation (null without values) and histogram of numbers 0–1, in bins of equal width."""

    mean: float | None
    std: float | None
    histogram: list[int]


class SplitStatistics(TypedDict):
    """Of one split: widths and heights in pixels, aspect ratios as width / height, the number of each format."""

    num_examples: int
    per_class: dict[str, int]
    width: Range
    height: Range
    aspect_ratio: Range
    brightness: Distribution
    contrast: Distribution
    formats: dict[str, int]


class Statistics(DataOrigin):
    """`statistics.json`."""

    class_names: list[str]
    splits: dict[str, SplitStatistics]
    num_excluded: int
    excluded_by_rule: dict[str, int]
    excluded: list[Exclusion]
    label_conflicts: list[Exclusion]


def read_statistics(statistics_dir: Path) -> Statistics:
    """Read `statistics.json`."""
    return read_json(statistics_dir / "statistics.json")


def write_statistics(out_dir: Path, statistics: Statistics) -> None:
    """Write `statistics.json`."""
    write_json(out_dir / "statistics.json", statistics)
