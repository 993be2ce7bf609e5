"""A run as the pipeline leaves it, of tiny drawn photos whose labels are doubted; written without TensorFlow."""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

CLASS_NAMES = ("daisy", "roses", "tulips")


@dataclass(frozen=True)
class DrawnRun:
    """A run, and the SHA-256 of its photos in the order in which they are to be looked at."""

    runs_dir: Path
    photos: list[str]

    @property
    def run_dir(self) -> Path:
        return self.runs_dir / "latest"


def draw(number: int, kind: str = "JPEG", size_px: int = 64) -> bytes:
    """Encode a photo that no other number has."""
    image = Image.new("RGB", (size_px, size_px), (number % 256, number // 256 % 256, 90))
    ImageDraw.Draw(image).ellipse((8, 8, size_px - 8, size_px - 8), fill=(240, 200, number % 200))
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"comment": str(number)} if kind == "JPEG" else {}))
    return buffer.getvalue()


def write_run(runs_dir: Path, num_photos: int, *, name: str = "20260101-000000-0000", size_px: int = 64) -> DrawnRun:
    """Write a run, half of whose photos are suspects, and let `latest` point to it."""
    run_dir, examples_dir = runs_dir / name, runs_dir / "artifacts" / "examples" / name
    examples_dir.mkdir(parents=True)
    (run_dir / "steps").mkdir(parents=True)
    (run_dir / "steps" / "examples").symlink_to(examples_dir)
    rows: list[dict[str, Any]] = []
    suspects: list[dict[str, Any]] = []
    offset = 0
    with (examples_dir / "train.tfrecord").open("wb") as shard:
        for number in range(num_photos):
            encoded = draw(number, size_px=size_px)
            offset += shard.write(b"\0" * 12)
            rows.append(_make_row(number, encoded, offset))
            offset += shard.write(encoded)
            suspects.append(_make_suspect(number, num_photos))
    split = {"num_examples": num_photos, "per_class": {}, "shards": ["train.tfrecord"]}
    examples = {"class_names": CLASS_NAMES, "splits": {"train": split}, "excluded": [], "label_conflicts": []}
    (examples_dir / "examples.json").write_text(json.dumps(examples))
    _write_lines(examples_dir / "index.jsonl", rows)
    _write_lines(run_dir / "suspects.jsonl", suspects)
    (run_dir / "run.json").write_text(json.dumps({"run": name, "status": "finished"}))
    (run_dir / "report.html").write_text(
        "<!doctype html><title>Report</title><style>p{color:#050}</style><p>A report.</p>"
    )
    latest = runs_dir / "latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(name)
    return DrawnRun(runs_dir, [row["sha256"] for row in rows])


def _make_row(number: int, encoded: bytes, offset: int) -> dict[str, Any]:
    return {
        "filename": _name(number),
        "split": "train",
        "label": number % len(CLASS_NAMES),
        "sha256": hashlib.sha256(encoded).hexdigest(),
        "format": "jpeg",
        "width": 64,
        "height": 64,
        "brightness": 0.5,
        "contrast": 0.2,
        "shard": "train.tfrecord",
        "offset": offset,
        "length": len(encoded),
    }


def _make_suspect(number: int, num_photos: int) -> dict[str, Any]:
    return {
        "photo": _name(number),
        "label": CLASS_NAMES[number % len(CLASS_NAMES)],
        "suggested_label": CLASS_NAMES[(number + 1) % len(CLASS_NAMES)],
        "score": 1 - number / (num_photos + 1),
        "is_suspect": number < num_photos / 2,
    }


def _name(number: int) -> str:
    return f"train/{CLASS_NAMES[number % len(CLASS_NAMES)]}/{number:05d}.jpg"


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
