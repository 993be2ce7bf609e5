"""Labelled photos of any source as TFRecord shards of `tf.train.Example`, checked, freed of duplicates and split.

Reads a source (`components.data.sources`); writes the examples (`components.artifacts.examples`). Within a split
examples are in the order of their content's SHA-256: mixed, and the same on every machine.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np

from components.artifacts.examples import (
    SPLITS,
    Examples,
    Exclusion,
    Split,
    make_finder,
    read_image,
    write_examples,
    write_split,
)
from components.artifacts.labels import LABELS_FILE, write_applied
from components.artifacts.summary import Summary
from components.data import examination
from components.data.candidates import Candidates
from components.data.corrections import correct, digest, read_labels
from components.data.examination import Candidate, Examined
from components.data.sources import factory
from components.data.sources.source import NOTHING, Description, Photo, Source
from components.data.sources.unlabelled import UNLABELLED, describe_unlabelled, open_unlabelled
from components.data.splitting import Rows, carve_splits, drop_exact_duplicates, drop_near_duplicates
from components.errors import DataError
from components.options import check_above, check_at_least, check_choice, check_range, check_seed
from components.progress import Progress

log = logging.getLogger(__name__)

LOCAL, BEAM = "local", "beam"
UNLABELLED_CLASS = "unlabelled"
_OUTPUTS = ("pool.bin", "examined", "*.tfrecord", "examples.json", "index.jsonl", "decisions.jsonl")


@dataclass(frozen=True)
class ExamplesOptions:
    """What to learn from, and how it is divided where the source brings no splits of its own.

    Attributes:
        source: a folder or its URL, a TensorFlow Datasets name, `synthetic`, `auto`, or `none`: decisions alone.
        labels: a file of decisions on photos (`components.artifacts.labels`), which count more than the source's own
            labels; where there is no such file there are no decisions. Empty reads none.
        unlabelled: a folder, or its URL, of more photos in any depth: those are learned from that have a label by a
            decision. Where the source has photos they are all to train on.
        validation_fraction: share of the photos held back to watch training.
        test_fraction: share of the photos held back to judge the model.
        near_duplicate_bits: photos of about the same colour whose 128-bit hashes differ in at most this many bits (1–3)
            look the same; 0 compares whole files alone, as for photos of one fixed camera.
        num_synthetic_per_class: drawn flowers of each kind.
        seed: of the drawn flowers.
        engine: what checks the photos: this machine (`local`), or a Beam pipeline (`beam`), which reads a folder.
        beam_options: options of Beam as on a command line, such as `--runner=FlinkRunner --flink_master=host:8081`.
    """

    source: str = factory.AUTO
    labels: str = LABELS_FILE
    unlabelled: str = ""
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    near_duplicate_bits: int = 2
    num_synthetic_per_class: int = 300
    seed: int = 0
    engine: str = LOCAL
    beam_options: str = ""

    def __post_init__(self) -> None:
        if not self.source.strip():
            raise ValueError(
                f"source must be a folder, a URL, a data set, synthetic, auto or none. Received: {self.source!r}"
            )
        if self.source == NOTHING and not (self.labels and self.unlabelled):
            raise ValueError("source=none takes photos from examples.unlabelled, and their labels from examples.labels")
        check_choice(self, (LOCAL, BEAM), "engine")
        check_above(self, 0, "validation_fraction", "test_fraction")
        if self.validation_fraction + self.test_fraction > 0.9:
            raise ValueError(
                "validation_fraction and test_fraction must leave a tenth to train on. "
                f"Received: {self.validation_fraction} and {self.test_fraction}"
            )
        check_range(self, 0, 3, "near_duplicate_bits")
        check_at_least(self, 10, "num_synthetic_per_class")
        check_seed(self)


@dataclass(frozen=True)
class UnlabelledOptions:
    """Photos to select from.

    Attributes:
        folder: or its URL, with photos in any depth.
    """

    folder: str = ""


def describe_unlabelled_source(options: UnlabelledOptions) -> Description:
    """Describe what the folder holds without reading its photos.

    Raises:
        DataError: there is no such folder, or it holds no files.
        StorageError: the URL cannot be read.
    """
    return describe_unlabelled(options.folder)


def describe_source(options: ExamplesOptions) -> Description:
    """Describe what the source holds without reading its photos, and what was decided about them.

    Raises:
        DataError: see `factory.describe_source`, `open_unlabelled` and `read_labels`.
        StorageError: a URL cannot be read.
    """
    description = factory.describe_source(options.source)
    if labels := read_labels(options.labels):
        description["decisions"] = digest(labels)
    if options.unlabelled:
        description["unlabelled"] = describe_unlabelled(options.unlabelled)["digest"]
    return description


def find_fallback(options: ExamplesOptions) -> str | None:
    """Return why drawn flowers would stand for the source now, or `None`; a data set that can be had is downloaded.

    Raises:
        DataError: a named source cannot be had.
    """
    return factory.open_source(
        options.source, num_synthetic_per_class=options.num_synthetic_per_class, seed=options.seed
    ).fallback


def build(*, out_dir: Path, options: ExamplesOptions, earlier_dir: Path | None = None) -> Summary:
    """Read a source, leave out what cannot or must not be learned from, and write the rest as examples.

    Photos that `earlier_dir`, an output of this step, has are not examined again. Of what a killed attempt left in
    `out_dir`, the step goes on from the photos that a Beam pipeline has examined.

    Raises:
        DataError: the source cannot be had, or nothing in it can be read.
    """
    examined_dir = out_dir / "examined"
    _clear(out_dir, but=examined_dir if options.engine == BEAM else None)
    source = factory.open_source(
        options.source, num_synthetic_per_class=options.num_synthetic_per_class, seed=options.seed
    )
    labels = read_labels(options.labels)
    pool = out_dir / "pool.bin"
    recall = _Recall(earlier_dir)
    examined = _examine(source, options, examined_dir, recall)
    num_photos = source.num_photos
    if options.unlabelled:
        more = open_unlabelled(options.unlabelled)
        examined = chain(examined, examination.examine((p for p in more if p.sha256 in labels), recall=recall))
        num_photos += min(len(labels), len(more.names))
    with Candidates(pool) as candidates:
        unusable = _collect(examined, num_photos, candidates, has_source=source.num_photos > 0)
        _check_any(candidates, unusable, source.resolved)
        rows, class_names, set_aside, applied = correct(candidates, source.class_names, labels)
        rows, copies = drop_exact_duplicates(candidates, rows)
        fractions = {"test": options.test_fraction, "validation": options.validation_fraction}
        carve_splits(candidates, rows, {s: f for s, f in fractions.items() if s not in source.splits})
        rows, look_alikes, conflicts = drop_near_duplicates(candidates, rows, max_bits=options.near_duplicate_bits)
        splits = _write_splits(candidates, rows, class_names, out_dir)
    pool.unlink()
    unlabelled = [
        Exclusion(file=file, split="train", rule="unlabelled", reason="it lies in no class folder")
        for file in source.unlabelled
    ]
    excluded = [*unusable, *unlabelled, *set_aside, *copies, *look_alikes]
    excluded.sort(key=lambda e: (e["split"], e["file"], e["rule"]))

    examples = Examples(
        source=options.source,
        resolved=options.unlabelled if source.resolved == NOTHING else source.resolved,
        fallback=source.fallback,
        class_names=list(class_names),
        splits=splits,
        excluded=excluded,
        label_conflicts=conflicts,
    )
    write_examples(out_dir, examples)
    write_applied(out_dir, applied)
    for rule, count in Counter(e["rule"] for e in excluded).items():
        log.warning("examples: %d left out as %s; examples.json lists them", count, rule)
    counts = {f"num_{split}": examples["splits"][split]["num_examples"] for split in SPLITS}
    fallback = {"fallback": source.fallback} if source.fallback else {}
    numbers = {"num_classes": len(class_names), **counts, "num_excluded": len(excluded)}
    if applied:
        numbers["num_decisions"] = len(applied)
    if recall.num_photos:
        numbers["num_reused"] = recall.num_photos
    return {"data": examples["resolved"], **numbers, **fallback}


def build_unlabelled(*, out_dir: Path, options: UnlabelledOptions, earlier_dir: Path | None = None) -> Summary:
    """Read all photos of a folder, whatever was decided about them, and write each file once.

    They are examples of one class, `UNLABELLED_CLASS`, in the train split. Photos of `earlier_dir` are not examined
    again.

    Raises:
        DataError: there is no such folder, or nothing in it can be read.
        StorageError: the URL cannot be read.
    """
    photos = open_unlabelled(options.folder)
    pool = out_dir / "pool.bin"
    names = (UNLABELLED_CLASS,)
    with Candidates(pool) as candidates:
        unusable = _collect(examination.examine(photos, recall=_Recall(earlier_dir)), len(photos.names), candidates)
        _check_any(candidates, unusable, photos.folder)
        candidates.labels[:] = 0
        rows, copies = drop_exact_duplicates(candidates, np.arange(len(candidates)))
        splits = _write_splits(candidates, rows, names, out_dir)
    pool.unlink()
    examples = Examples(
        source=options.folder,
        resolved=photos.folder,
        fallback=None,
        class_names=list(names),
        splits=splits,
        excluded=[*unusable, *copies],
        label_conflicts=[],
    )
    write_examples(out_dir, examples)
    return {"data": photos.folder, "num_photos": len(rows), "num_excluded": len(examples["excluded"])}


def _check_any(candidates: Candidates, unusable: Sequence[Exclusion], folder: str) -> None:
    if unusable and not len(candidates):
        raise DataError(
            f"None of the {len(unusable)} files of {folder} is an image that can be read. "
            f"The first: {unusable[0]['file']}: {unusable[0]['reason']}"
        )


def _clear(out_dir: Path, *, but: Path | None) -> None:
    """Remove what a killed attempt left."""
    for path in (path for pattern in _OUTPUTS for path in out_dir.glob(pattern) if path != but):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


class _Recall:
    """What an earlier examination found, by the content of a photo."""

    def __init__(self, examples_dir: Path | None) -> None:
        self._find = make_finder(examples_dir) if examples_dir else lambda sha256: None
        self._dir = examples_dir
        self.num_photos = 0

    def __call__(self, photo: Photo) -> Examined | None:
        row = self._find(photo.sha256)
        if row is None or self._dir is None:
            return None
        self.num_photos += 1
        found = replace(Candidate.from_row(row), name=photo.name, label=photo.label, split=photo.split)
        return found, read_image(self._dir, row)


def _examine(source: Source, options: ExamplesOptions, work_dir: Path, recall: _Recall) -> Iterator[Examined]:
    if options.engine == BEAM:
        from components.data import examination_beam

        return examination_beam.examine(source, work_dir, beam_options=options.beam_options)
    return examination.examine(source.photos, recall=recall)


def _collect(
    examined: Iterable[Examined], num_photos: int, candidates: Candidates, *, has_source: bool = False
) -> list[Exclusion]:
    """Part the candidates from the exclusions, which are returned; beside a source, what has no label is added."""
    excluded: list[Exclusion] = []
    with Progress(total=num_photos, desc="reading photos", unit="photo") as progress:
        for found, encoded in examined:
            progress.update()
            if isinstance(found, Candidate):
                candidates.add(found, encoded, is_added=has_source and found.label == UNLABELLED)
            else:
                excluded.append(found)
    return excluded


def _write_splits(candidates: Candidates, rows: Rows, class_names: Sequence[str], out_dir: Path) -> dict[str, Split]:
    ordered = candidates.order(rows, candidates.splits)
    counts = np.bincount(candidates.splits[rows], minlength=len(SPLITS)).tolist()
    with Progress(ordered, total=len(rows), desc="writing examples", unit="photo") as progress:
        examples = ((candidate.to_row(), encoded) for candidate, encoded in map(candidates.read_encoded, progress))
        return {
            split: write_split(out_dir, split, islice(examples, count), num_examples=count, class_names=class_names)
            for split, count in zip(SPLITS, counts, strict=True)
        }
