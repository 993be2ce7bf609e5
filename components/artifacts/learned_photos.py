"""`assets.extra/learned_photos.json`: which photos a model has learned from; it travels with the pushed model.

A later run knows by it on which of its test photos both models can be judged.
"""

from collections.abc import Iterable
from pathlib import Path

from components.artifacts.examples import IndexRow
from components.storage.files import read_json, write_json

LEARNED_PHOTOS = Path("assets.extra") / "learned_photos.json"
_NUM_DIGITS = 16
"""Of the SHA-256: 64 bits tell a million photos apart, and a file of theirs takes 20 MB."""


def to_id(sha256: str) -> str:
    """Return what stands for a photo in the list."""
    return sha256[:_NUM_DIGITS]


def write_learned_photos(model_dir: Path, rows: Iterable[IndexRow]) -> None:
    """Write the photos of train and validation: one trains the weights, the other chooses among them."""
    learned = sorted(to_id(row["sha256"]) for row in rows if row["split"] != "test")
    write_json(model_dir / LEARNED_PHOTOS, learned)


def read_learned_photos(model_dir: Path) -> frozenset[str] | None:
    """Read the ids of the photos; `None` for a model that carries no list."""
    path = model_dir / LEARNED_PHOTOS
    return frozenset(read_json(path)) if path.exists() else None
