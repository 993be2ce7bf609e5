"""Examples made by hand, without their shards: an index of chosen rows, and the description that goes with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.artifacts.examples import SPLITS, Examples, IndexRow, write_examples, write_index

CLASS_NAMES = ["daisy", "tulip"]


def make_row(split: str = "train", label: int = 0, **changes: Any) -> IndexRow:
    row: IndexRow = {
        "split": split,
        "filename": "a.jpg",
        "label": label,
        "sha256": "00",
        "format": "jpeg",
        "width": 320,
        "height": 240,
        "brightness": 0.5,
        "contrast": 0.2,
        "hash": "0" * 32,
        "colour": [0, 0, 0],
        "shard": "",
        "offset": 0,
        "length": 0,
    }
    return {**row, **changes}  # type: ignore[typeddict-item]


def write(folder: Path, rows: Sequence[IndexRow], **changes: Any) -> Path:
    """Write examples with these rows; changes are of `examples.json`."""
    class_names = changes.get("class_names", CLASS_NAMES)
    splits = {}
    for split in SPLITS:
        labels = [row["label"] for row in rows if row["split"] == split]
        per_class = {name: labels.count(label) for label, name in enumerate(class_names)}
        splits[split] = {"num_examples": len(labels), "per_class": per_class, "shards": []}
    examples: dict[str, Any] = {
        "source": "auto",
        "resolved": "synthetic",
        "fallback": "no network",
        "class_names": class_names,
        "splits": splits,
        "excluded": [],
        "label_conflicts": [],
    }
    folder.mkdir(exist_ok=True)
    write_examples(folder, Examples(**examples | changes))
    (folder / "index.jsonl").unlink(missing_ok=True)
    write_index(folder, rows)
    return folder
