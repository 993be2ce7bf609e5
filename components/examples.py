"""Labelled photos of any source as TFRecord shards of `tf.train.Example`, checked, freed of duplicates and split.

Reads a source (`data.sources`); writes `<split>-00000-of-0000n.tfrecord`, `examples.json` (classes, counts, what
was left out and why) and `index.jsonl` (a line for each example, in the order of the shards). Within a split examples
stand in the order of their content's SHA-256: mixed, and the same on every machine.
"""

import hashlib
import io
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from components.data import duplicates, sources
from components.data.sources import SPLITS, Photo, Source
from components.errors import DataError
from components.storage.files import read_json, write_json

log = logging.getLogger(__name__)

LOCAL, BEAM = "local", "beam"
EXAMPLES_PER_SHARD = 512
_SERVED_FORMATS = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "GIF": "gif", "BMP": "bmp"}


@dataclass(frozen=True)
class ExamplesOptions:
    """What to learn from, and how it is divided where the source brings no splits of its own.

    Attributes:
        source: a folder or its URL, a TensorFlow Datasets name, `synthetic`, or `auto`.
        validation_fraction: share of the photos held back to watch training.
        test_fraction: share of the photos held back to judge the model.
        near_duplicate_bits: pictures whose 128-bit hashes differ in at most this many bits (0–3) count as the same.
        num_synthetic_per_class: drawn flowers of each kind.
        seed: of the drawn flowers.
        engine: what checks the photos: this machine (`local`), or a Beam pipeline (`beam`), which reads a folder.
        beam_options: options of Beam as on a command line, such as `--runner=FlinkRunner --flink_master=host:8081`.
    """

    source: str = sources.AUTO
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    near_duplicate_bits: int = 2
    num_synthetic_per_class: int = 300
    seed: int = 0
    engine: str = LOCAL
    beam_options: str = ""

    def __post_init__(self) -> None:
        if self.engine not in (LOCAL, BEAM):
            raise ValueError(f"engine must be {LOCAL} or {BEAM}. Received: {self.engine!r}")
        if not (self.validation_fraction > 0 and self.test_fraction > 0):
            raise ValueError(
                "validation_fraction and test_fraction must be above 0. "
                f"Received: {self.validation_fraction} and {self.test_fraction}"
            )
        if self.validation_fraction + self.test_fraction > 0.9:
            raise ValueError(
                "validation_fraction and test_fraction must leave a tenth to train on. "
                f"Received: {self.validation_fraction} and {self.test_fraction}"
            )
        if not 0 <= self.near_duplicate_bits <= 3:
            raise ValueError(f"near_duplicate_bits must be 0 to 3. Received: {self.near_duplicate_bits}")
        if self.num_synthetic_per_class < 10:
            raise ValueError(f"num_synthetic_per_class must be at least 10. Received: {self.num_synthetic_per_class}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0. Received: {self.seed}")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A readable photo on its way into a split; `offset` and `length` say where its bytes wait."""

    name: str
    label: int
    split: str
    sha256: str
    format: str
    width: int
    height: int
    brightness: float
    contrast: float
    hash: bytes
    offset: int = 0
    length: int = 0


@dataclass(frozen=True)
class Exclusion:
    """A photo that is left out."""

    file: str
    split: str
    rule: str
    reason: str


def describe_source(options: ExamplesOptions) -> dict[str, str | int]:
    return sources.describe(options.source)


def build(*, out_dir: Path, options: ExamplesOptions) -> dict[str, int | str]:
    """Read a source, leave out what cannot or must not be learned from, and write the rest as examples.

    Raises:
        DataError: the source cannot be had, or nothing in it can be read.
    """
    source = sources.open_source(
        options.source, num_synthetic_per_class=options.num_synthetic_per_class, seed=options.seed
    )
    pool = out_dir / "pool.bin"
    if options.engine == BEAM:
        from components.data import examination_beam as examples_beam

        examined = examples_beam.examine(source, out_dir / "examined", beam_options=options.beam_options)
    else:
        examined = _examine(source)
    candidates, excluded = _read_all(examined, source.num_photos, pool)
    if not candidates:
        raise DataError(
            f"None of the {len(excluded)} files of {source.resolved} is an image that can be read. "
            f"The first: {excluded[0].file}: {excluded[0].reason}"
        )
    candidates, more = _drop_exact_duplicates(candidates)
    excluded += more
    candidates = _carve_missing_splits(candidates, source, options)
    candidates, more = _drop_near_duplicates(candidates, max_bits=options.near_duplicate_bits)
    excluded += more
    candidates.sort(key=lambda c: c.sha256)
    splits = {
        split: _write_split(split, [c for c in candidates if c.split == split], pool, source.class_names, out_dir)
        for split in SPLITS
    }
    pool.unlink()
    with (out_dir / "index.jsonl").open("w") as index:
        for candidate in (c for split in SPLITS for c in candidates if c.split == split):
            index.write(json.dumps(_index_row(candidate)) + "\n")
    description = {
        "source": options.source,
        "resolved": source.resolved,
        "fallback": source.fallback,
        "class_names": source.class_names,
        "splits": splits,
        "excluded": [asdict(e) for e in sorted(excluded, key=lambda e: (e.split, e.file, e.rule))],
    }
    write_json(out_dir / "examples.json", description)
    for rule, count in Counter(e.rule for e in excluded).items():
        log.warning("examples: %d left out as %s; examples.json lists them", count, rule)
    counts = {f"num_{split}": splits[split]["num_examples"] for split in SPLITS}
    return {"data": source.resolved, "num_classes": len(source.class_names), **counts, "num_excluded": len(excluded)}


def describe(examples_dir: Path) -> dict[str, Any]:
    """Read the description that `build` wrote."""
    return read_json(examples_dir / "examples.json")


def shards(examples_dir: Path, split: str) -> list[Path]:
    return [examples_dir / name for name in describe(examples_dir)["splits"][split]["shards"]]


def _read_all(
    examined: Iterable[tuple[Candidate | Exclusion, bytes]], num_photos: int, pool: Path
) -> tuple[list[Candidate], list[Exclusion]]:
    """Part the good photos from the others, and keep their bytes in one file on disk."""
    candidates: list[Candidate] = []
    excluded: list[Exclusion] = []
    progress = tqdm(total=num_photos, desc="reading photos", unit="photo", delay=2, leave=False, disable=None)
    with pool.open("wb") as file, progress:
        for found, encoded in examined:
            progress.update()
            if isinstance(found, Exclusion):
                excluded.append(found)
            else:
                candidates.append(replace(found, offset=file.tell(), length=len(encoded)))
                file.write(encoded)
    return candidates, excluded


def _examine(source: Source) -> Iterator[tuple[Candidate | Exclusion, bytes]]:
    """Check every photo, with all processors."""
    examine = make_examiner()
    with ThreadPoolExecutor() as threads:
        for batch in _batches(source.photos, 64):
            yield from threads.map(examine, batch)


def _batches(photos: Iterable[Photo], size: int) -> Iterator[list[Photo]]:
    iterator = iter(photos)
    while batch := list(islice(iterator, size)):
        yield batch


def make_examiner() -> Callable[[Photo], tuple[Candidate | Exclusion, bytes]]:
    """Make the check of one photo: its header first, then the very decoding that training and serving use."""
    import tensorflow as tf

    from export import preprocessing

    side = duplicates.GRID + 1

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def trace(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image = preprocessing.decode(encoded)
        grey = tf.image.rgb_to_grayscale(preprocessing.resize(image, 32))
        return tf.shape(image), grey[..., 0], preprocessing.resize(grey, side)[..., 0]

    look = trace.get_concrete_function()

    def examine(photo: Photo) -> tuple[Candidate | Exclusion, bytes]:
        def exclude(rule: str, reason: str) -> tuple[Exclusion, bytes]:
            return Exclusion(photo.name, photo.split, rule, reason), b""

        try:
            with Image.open(io.BytesIO(photo.encoded)) as image:
                width, height = image.size
                if width * height > preprocessing.MAX_PIXELS:
                    return exclude("too_large", f"{width}×{height} is over {preprocessing.MAX_PIXELS:,} pixels")
                kind = _SERVED_FORMATS.get(image.format or "")
                encoded = photo.encoded if kind else _as_png(image)
            shape, grey, tiny = look(tf.constant(encoded))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
            return exclude("too_large", str(exc))
        except UnidentifiedImageError:
            return exclude("unreadable", "empty" if not photo.encoded else "not an image")
        except tf.errors.InvalidArgumentError as exc:
            # Around the message stand a traceback and the node's name.
            return exclude("unreadable", exc.message.split("\n\t [[")[0].splitlines()[-1][:200])
        except (OSError, SyntaxError, ValueError) as exc:
            return exclude("unreadable", str(exc).splitlines()[0][:200])
        height, width, _ = shape.numpy().tolist()
        candidate = Candidate(
            name=photo.name,
            label=photo.label,
            split=photo.split,
            sha256=hashlib.sha256(encoded).hexdigest(),
            format=kind or "png",
            width=width,
            height=height,
            brightness=round(float(grey.numpy().mean()) / 255, 4),
            contrast=round(float(grey.numpy().std()) / 255, 4),
            hash=duplicates.difference_hash(tiny.numpy()).tobytes(),
        )
        return candidate, encoded

    return examine


def _as_png(image: Image.Image) -> bytes:
    """Re-encode a format that is not served (WebP, TIFF, AVIF), upright and without loss."""
    buffer = io.BytesIO()
    upright = ImageOps.exif_transpose(image)
    upright.convert("RGBA" if upright.has_transparency_data else "RGB").save(buffer, "PNG")
    return buffer.getvalue()


def _drop_exact_duplicates(candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[Exclusion]]:
    """Keep one of each file, in the split that judges most; drop all of a file that stands under two labels."""
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        groups[candidate.sha256].append(candidate)
    kept, excluded = [], []
    for group in groups.values():
        first, *others = sorted(group, key=lambda c: (-SPLITS.index(c.split), c.name))
        if len({c.label for c in group}) > 1:
            names = ", ".join(c.name for c in group)
            excluded += [
                Exclusion(c.name, c.split, "conflicting_label", f"the same file under two labels: {names}")
                for c in group
            ]
            continue
        kept.append(first)
        excluded += [Exclusion(c.name, c.split, "duplicate", f"the same file as {first.name}") for c in others]
    return kept, excluded


def _carve_missing_splits(candidates: Sequence[Candidate], source: Source, options: ExamplesOptions) -> list[Candidate]:
    """Take the splits that the source lacks out of its `train`, class by class, by the hash of the content.

    A photo keeps its split when others are added. Each class gives at least one photo to each split.
    """
    fractions = {"test": options.test_fraction, "validation": options.validation_fraction}
    missing = {split: fraction for split, fraction in fractions.items() if split not in source.splits}
    by_class: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        if candidate.split == "train":
            by_class[candidate.label].append(candidate)
    moved: dict[str, str] = {}
    for group in by_class.values():
        group.sort(key=lambda c: c.sha256)
        limit = 0.0
        for split, fraction in missing.items():
            limit += fraction
            rest = [c for c in group if c.sha256 not in moved]
            below = [c for c in rest if int(c.sha256[:13], 16) / 16**13 < limit]
            moved |= {c.sha256: split for c in below or rest[:1]}
    return [replace(c, split=moved[c.sha256]) if c.sha256 in moved else c for c in candidates]


def _drop_near_duplicates(candidates: Sequence[Candidate], *, max_bits: int) -> tuple[list[Candidate], list[Exclusion]]:
    """Of a picture that stands in two splits, drop the one in the split that judges less: train, then validation."""
    hashes = np.frombuffer(b"".join(c.hash for c in candidates), np.uint32).reshape(-1, 4)
    ranks = np.array([SPLITS.index(c.split) for c in candidates])
    winners = duplicates.shadowed(hashes, ranks, max_bits=max_bits)
    kept, excluded = [], []
    for row, candidate in enumerate(candidates):
        if row in winners:
            winner = candidates[winners[row]]
            reason = f"looks the same as {winner.name} in {winner.split}"
            excluded.append(Exclusion(candidate.name, candidate.split, "near_duplicate", reason))
        else:
            kept.append(candidate)
    return kept, excluded


def _write_split(
    split: str, candidates: Sequence[Candidate], pool: Path, class_names: Sequence[str], out_dir: Path
) -> dict[str, Any]:
    import tensorflow as tf

    num_shards = -(-len(candidates) // EXAMPLES_PER_SHARD)
    names = [f"{split}-{n:05d}-of-{num_shards:05d}.tfrecord" for n in range(num_shards)]
    with pool.open("rb") as file:
        for number, name in enumerate(names):
            with tf.io.TFRecordWriter(str(out_dir / name)) as writer:
                for c in candidates[number * EXAMPLES_PER_SHARD : (number + 1) * EXAMPLES_PER_SHARD]:
                    file.seek(c.offset)
                    writer.write(_to_example(c, file.read(c.length), class_names).SerializeToString(deterministic=True))
    labels = Counter(c.label for c in candidates)
    per_class = {name: labels[label] for label, name in enumerate(class_names)}
    return {"num_examples": len(candidates), "per_class": per_class, "shards": names}


def _to_example(candidate: Candidate, encoded: bytes, class_names: Sequence[str]) -> Any:
    """Make a `tf.train.Example` with the feature names that TensorFlow's image data sets use."""
    import tensorflow as tf

    def strings(value: str | bytes) -> tf.train.Feature:
        return tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[value.encode() if isinstance(value, str) else value])
        )

    def integers(value: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    feature = {
        "image/encoded": strings(encoded),
        "image/format": strings(candidate.format),
        "image/filename": strings(candidate.name),
        "image/key/sha256": strings(candidate.sha256),
        "image/height": integers(candidate.height),
        "image/width": integers(candidate.width),
        "image/class/label": integers(candidate.label),
        "image/class/text": strings(class_names[candidate.label]),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature))


def _index_row(candidate: Candidate) -> dict[str, Any]:
    names = ("split", "label", "sha256", "format", "width", "height", "brightness", "contrast")
    return {"filename": candidate.name, **{name: getattr(candidate, name) for name in names}}
