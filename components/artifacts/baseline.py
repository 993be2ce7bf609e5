"""`baseline.json`: the pushed model that a candidate must not be worse than."""

from pathlib import Path
from typing import TypedDict

from components.storage.files import read_json, write_json


class Baseline(TypedDict):
    """The version of the model and its path or URL; null where no other model has been pushed."""

    version: int | None
    path: str | None


def read_baseline(baseline_dir: Path) -> Baseline:
    """Read `baseline.json`."""
    return read_json(baseline_dir / "baseline.json")


def write_baseline(out_dir: Path, baseline: Baseline) -> None:
    """Write `baseline.json`."""
    write_json(out_dir / "baseline.json", baseline)
