"""Labels of train that are doubted, `suspects.jsonl`, and photos unlike the others, `outliers.jsonl`.

A line is a JSON object. Suspects: every photo whose label is suspect, or for which another one is more probable, by a
classifier which has not learned from it, the most suspect first. Outliers: the strangest first.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

from components.storage.files import read_jsonl, write_jsonl

SUSPECTS_FILE = "suspects.jsonl"
_OUTLIERS_FILE = "outliers.jsonl"


class Suspect(TypedDict):
    """A doubted label: the photo's path below the source, class names, and the probability, 0–1, that it is wrong.

    `is_suspect` is one that is improbable enough to be looked at.
    """

    photo: str
    label: str
    suggested_label: str
    score: float
    is_suspect: bool


class Outlier(TypedDict):
    """A photo unlike the others, and the share of the photos of train, 0–1, that are as strange."""

    photo: str
    label: str
    p_value: float


def write_suspects(out_dir: Path, suspects: Iterable[Suspect], outliers: Iterable[Outlier]) -> None:
    """Write both files."""
    write_jsonl(out_dir / SUSPECTS_FILE, suspects)
    write_jsonl(out_dir / _OUTLIERS_FILE, outliers)


def read_suspects(suspects_dir: Path) -> list[Suspect]:
    """Read `suspects.jsonl`."""
    return read_jsonl(suspects_dir / SUSPECTS_FILE)


def read_outliers(suspects_dir: Path) -> list[Outlier]:
    """Read `outliers.jsonl`."""
    return read_jsonl(suspects_dir / _OUTLIERS_FILE)
