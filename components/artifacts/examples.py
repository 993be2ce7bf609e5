"""Labelled photos of each split: TFRecord shards of `tf.train.Example`, `examples.json` and `index.jsonl`.

examples.json                       classes, counts, what was left out and why
index.jsonl                         a line for each example, in the order of the shards
<split>-00000-of-0000n.tfrecord     the examples, with the feature names of TensorFlow's image data sets
"""

import json
import os
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from components.errors import DataError
from components.storage.files import read_json, write_json, write_jsonl

if TYPE_CHECKING:
    import tensorflow as tf

SPLITS = ("train", "validation", "test")
EXAMPLES_PER_SHARD = 512
ENCODED, LABEL = "image/encoded", "image/class/label"
_FILENAME = "image/filename"
_INDEX = "index.jsonl"
_DIGEST_BYTES = 32
_HEADER_BYTES, _FOOTER_BYTES = 12, 4  # of a TFRecord: its length and checksums


class DataOrigin(TypedDict):
    """Where the data came from: the source as it was named, what it resolved to, why it is a fallback (or null)."""

    source: str
    resolved: str
    fallback: str | None


class Split(TypedDict):
    """The number of a split's examples, in all and of each class, and the names of its shards."""

    num_examples: int
    per_class: dict[str, int]
    shards: list[str]


class Exclusion(TypedDict):
    """A photo that is left out: its path below the source, its split, and the rule that it broke."""

    file: str
    split: str
    rule: str
    reason: str


class Examples(DataOrigin):
    """`examples.json`; a label is an index into `class_names`.

    `label_conflicts` are photos of train that are kept, and look the same as one with another label.
    """

    class_names: list[str]
    splits: dict[str, Split]
    excluded: list[Exclusion]
    label_conflicts: list[Exclusion]


class PhotoRow(TypedDict):
    """What is known of one photo.

    Attributes:
        filename: its path below the source.
        split: one of `SPLITS`.
        label: index into the class names.
        sha256: of its file as it was found.
        format: of its image in the examples: `jpeg`, `png`, `gif`, `bmp` or `webp`.
        width: in pixels, upright.
        height: in pixels, upright.
        brightness: mean of the grey values, 0–1.
        contrast: standard deviation of the grey values, 0–1.
        hash: difference hash, 32 hexadecimal digits.
        colour: mean RGB, 0–255.
    """

    filename: str
    split: str
    label: int
    sha256: str
    format: str
    width: int
    height: int
    brightness: float
    contrast: float
    hash: str
    colour: list[int]


class IndexRow(PhotoRow):
    """One example: the encoded image is `length` bytes at `offset` of the file `shard`."""

    shard: str
    offset: int
    length: int


def read_examples(examples_dir: Path) -> Examples:
    """Read `examples.json`."""
    return read_json(examples_dir / "examples.json")


def write_examples(out_dir: Path, examples: Examples) -> None:
    """Write `examples.json`."""
    write_json(out_dir / "examples.json", examples)


def read_origin(examples_dir: Path) -> DataOrigin:
    """Read where the data came from."""
    examples = read_examples(examples_dir)
    return {"source": examples["source"], "resolved": examples["resolved"], "fallback": examples["fallback"]}


def write_index(out_dir: Path, rows: Iterable[IndexRow]) -> None:
    """Write rows at the end of `index.jsonl`."""
    write_jsonl(out_dir / _INDEX, rows, append=True)


def read_index(examples_dir: Path) -> Iterator[IndexRow]:
    """Read the rows of the index one at a time.

    Raises:
        DataError: a line is not a row.
    """
    num_classes = len(read_examples(examples_dir)["class_names"])
    with (examples_dir / _INDEX).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            yield _parse(line, num_classes, f"line {number} of {examples_dir / _INDEX}")


def make_finder(examples_dir: Path) -> Callable[[str], IndexRow | None]:
    """Return a function that finds the row of a photo by its SHA-256; memory holds 40 bytes a row.

    Raises:
        DataError: a line of the index is not a row.
    """
    num_classes, path = len(read_examples(examples_dir)["class_names"]), examples_dir / _INDEX
    digests, offsets = bytearray(), array("q")
    with path.open("rb") as lines:
        while line := lines.readline():
            offsets.append(lines.tell() - len(line))
            digests += bytes.fromhex(_parse(line.decode(), num_classes, f"row {len(offsets)} of {path}")["sha256"])
    known = np.frombuffer(digests, f"S{_DIGEST_BYTES}")
    order = np.argsort(known, kind="stable")

    def find(sha256: str) -> IndexRow | None:
        wanted = bytes.fromhex(sha256)
        position = int(np.searchsorted(known, np.bytes_(wanted), side="right", sorter=order)) - 1
        row = order[position] if position >= 0 else None
        if row is None or digests[row * _DIGEST_BYTES : (row + 1) * _DIGEST_BYTES] != wanted:
            return None
        with path.open("rb") as lines:
            lines.seek(offsets[row])
            return _parse(lines.readline().decode(), num_classes, str(path))

    return find


def _parse(line: str, num_classes: int, where: str) -> IndexRow:
    try:
        row: IndexRow = json.loads(line)
        fits = (
            row["split"] in SPLITS
            and row["label"] in range(num_classes)
            and isinstance(row["format"], str)
            and all(isinstance(row[key], int) and row[key] > 0 for key in ("width", "height"))  # type: ignore[literal-required]
            and all(0 <= row[key] <= 1 for key in ("brightness", "contrast"))  # type: ignore[literal-required]
            and isinstance(row["shard"], str)
            and all(isinstance(row[key], int) and row[key] >= 0 for key in ("offset", "length"))  # type: ignore[literal-required]
        )
    except (ValueError, KeyError, TypeError):
        fits = False
    if not fits:
        raise DataError(
            f"Each line of index.jsonl must be a JSON object with a split of {list(SPLITS)}, a label in "
            f"[0, {num_classes}), a format, a width and height above 0, a brightness and contrast in 0–1, "
            "and a shard, an offset and a length. "
            f"Received: {where}: {line.strip()[:200]!r}. Make the examples again with --force examples."
        )
    return row


def shards(examples_dir: Path, split: str) -> list[Path]:
    """Return the paths of a split's shards, in order."""
    return [examples_dir / name for name in read_examples(examples_dir)["splits"][split]["shards"]]


def write_split(
    out_dir: Path,
    split: str,
    examples: Iterable[tuple[PhotoRow, bytes]],
    *,
    num_examples: int,
    class_names: Sequence[str],
) -> Split:
    """Write the shards of a split, whose examples are (row, encoded image), and their rows at the end of the index.

    Returns:
        The description of the split.
    """
    import tensorflow as tf

    num_shards = -(-num_examples // EXAMPLES_PER_SHARD)
    names = [f"{split}-{number:05d}-of-{num_shards:05d}.tfrecord" for number in range(num_shards)]
    labels: Counter[int] = Counter()
    remaining = iter(examples)
    for name in names:
        rows: list[IndexRow] = []
        start = 0
        with tf.io.TFRecordWriter(str(out_dir / name)) as writer:
            for row, encoded in islice(remaining, EXAMPLES_PER_SHARD):
                labels[row["label"]] += 1
                record = _to_example(row, encoded, class_names).SerializeToString(deterministic=True)
                writer.write(record)
                offset = start + _HEADER_BYTES + record.index(encoded)
                rows.append({**row, "shard": name, "offset": offset, "length": len(encoded)})
                start += _HEADER_BYTES + len(record) + _FOOTER_BYTES
        write_index(out_dir, rows)
    per_class = {name: labels[label] for label, name in enumerate(class_names)}
    return {"num_examples": num_examples, "per_class": per_class, "shards": names}


def read_encoded(examples_dir: Path, split: str) -> Iterator[tuple[str, bytes]]:
    """Read the file name and the encoded image of each example of a split, in their stored order."""
    import tensorflow as tf

    records = tf.data.TFRecordDataset([str(shard) for shard in shards(examples_dir, split)])
    for record in records.as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        yield os.fsdecode(feature[_FILENAME].bytes_list.value[0]), feature[ENCODED].bytes_list.value[0]


def read_image(examples_dir: Path, row: IndexRow) -> bytes:
    """Read the encoded image of one example, without TensorFlow."""
    with (examples_dir / row["shard"]).open("rb") as file:
        file.seek(row["offset"])
        return file.read(row["length"])


def read_encoded_at(examples_dir: Path, split: str, positions: Collection[int]) -> dict[int, tuple[str, bytes]]:
    """Read the file name and the encoded image of the examples at some positions of a split, by position.

    What comes after the last position is not read, and without positions nothing is.
    """
    examples = islice(read_encoded(examples_dir, split), 1 + max(positions, default=-1))
    return {position: example for position, example in enumerate(examples) if position in positions}


def _to_example(row: PhotoRow, encoded: bytes, class_names: Sequence[str]) -> "tf.train.Example":
    import tensorflow as tf

    def text(value: str | bytes) -> tf.train.Feature:
        value = os.fsencode(value) if isinstance(value, str) else value
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def integer(value: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    feature = {
        ENCODED: text(encoded),
        "image/format": text(row["format"]),
        _FILENAME: text(row["filename"]),
        "image/key/sha256": text(row["sha256"]),
        "image/height": integer(row["height"]),
        "image/width": integer(row["width"]),
        LABEL: integer(row["label"]),
        "image/class/text": text(class_names[row["label"]]),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature))
