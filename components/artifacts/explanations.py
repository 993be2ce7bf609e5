"""`explanations.json` and a JPEG of each explained prediction."""

from pathlib import Path
from typing import TypedDict

from components.storage.files import read_json, write_json


class Explanation(TypedDict):
    """A prediction of a test example, its position in the split, and the image beside it that explains it."""

    filename: str
    label: int
    predicted: int
    probability: float
    position: int
    image: str


def read_explanations(explanation_dir: Path) -> list[Explanation]:
    """Read `explanations.json`."""
    return read_json(explanation_dir / "explanations.json")


def write_explanations(out_dir: Path, explanations: list[Explanation]) -> None:
    """Write `explanations.json`."""
    write_json(out_dir / "explanations.json", explanations)
