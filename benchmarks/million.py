"""Twenty times the photos, up to a million: processor time and memory of the steps that go through all of them.

Each step runs in a process of its own, which begins with importing what it needs. Photos are files of no content where
only their names matter, and what an examination finds is drawn. It takes 3 GB of disk.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np

from benchmarks.growth import in_own_process
from client.classifier_client import Prediction
from components import examples, model, statistics, trainer, validator
from components.artifacts.examples import SPLITS, Examples, Split, write_examples
from components.artifacts.features import features_path, write_features
from components.bulk_inference import runner
from components.bulk_inference.classifier import Trust
from components.bulk_inference.runner import InferOptions
from components.data import examination
from components.data.examination import Candidate, Examined
from components.data.sources import factory
from components.data.sources.source import Photo, Source
from components.data.transform import TransformOptions
from components.examples import ExamplesOptions
from components.model import ModelOptions
from components.trainer import TrainerOptions
from components.validator import ValidatorOptions

COUNTS = (50_000, 1_000_000)

_CLASS_NAMES = tuple(f"class_{label}" for label in range(5))
_MAX_LINKS = 50_000
_PHOTO_BYTES = _SHARD_SIZE = 512


def measure(counts: Sequence[int] = COUNTS) -> None:
    """Print processor seconds and peak memory of each step for few and for many photos."""
    with tempfile.TemporaryDirectory() as temporary:
        sides = {count: Path(temporary) / str(count) for count in counts}
        for count, work in sides.items():
            prepare(work, count)
            prepare_training(work, count)
        for name, step in STEPS.items():
            found = [in_own_process(step, work, work / name, clock=time.process_time) for work in sides.values()]
            print(describe(name, counts, found), flush=True)


def describe(name: str, counts: Sequence[int], found: Sequence[tuple[float, int]]) -> str:
    """Return one line: what a step took for few and for many photos, and how that grows."""
    (few_s, few_bytes), (many_s, many_bytes) = found
    return (
        f"million, {name}: {counts[0]:,} photos {few_s:.1f} s and {few_bytes / 1e6:.0f} MB, {counts[1]:,} "
        f"{many_s:.1f} s and {many_bytes / 1e6:.0f} MB: ratio {many_s / few_s / counts[1] * counts[0]:.2f} in time a "
        f"photo, {many_bytes / few_bytes:.3f} in memory"
    )


def prepare(work: Path, count: int) -> None:
    """Write the names of photos."""
    for name in _CLASS_NAMES:
        (work / "photos" / name).mkdir(parents=True)
    for number in range(count):
        if number % _MAX_LINKS == 0:
            target = work / f"{number}.jpg"
            target.touch()
        os.link(target, work / "photos" / _CLASS_NAMES[number % len(_CLASS_NAMES)] / f"{number * 7919 % count:07d}.jpg")


def prepare_training(work: Path, count: int) -> None:
    """Draw features as of a ResNet50, 2,048 wide and in one view, with every tenth photo to validate."""
    for name in ("features", "model", "classes"):
        (work / name).mkdir()
    model.fetch(out_dir=work / "model", options=ModelOptions(weights="none"))
    split = Split(num_examples=0, per_class=dict.fromkeys(_CLASS_NAMES, 0), shards=[])
    write_examples(
        work / "classes",
        Examples(
            source="drawn",
            resolved="drawn",
            fallback=None,
            class_names=list(_CLASS_NAMES),
            splits=dict.fromkeys(SPLITS, split),
            excluded=[],
            label_conflicts=[],
        ),
    )
    rng = np.random.default_rng(0)
    for name, of_split in (("train", count), ("validation", count // 10)):
        for first in range(0, of_split, _SHARD_SIZE):
            labels = np.arange(first, min(first + _SHARD_SIZE, of_split)) % len(_CLASS_NAMES)
            features = rng.standard_normal((len(labels), 2048), np.float32)
            features[np.arange(len(labels)), labels] += 2
            path = features_path(work / "features", Path(f"{name}-{first:07d}"), 0)
            write_features(path, features, labels, embeddings=features[:, :1])


def _run_trainer(work: Path, out_dir: Path) -> None:
    trainer.train(
        examples_dir=work / "classes",
        features_dir=work / "features",
        model_dir=work / "model",
        out_dir=out_dir,
        options=TrainerOptions(epochs=1, num_heads=1, max_features_mb=0),
        transform=TransformOptions(),
    )


def _list(work: Path, out_dir: Path) -> None:
    source = str(work / "photos")
    factory.describe_source(source)
    photos = factory.open_source(source, num_synthetic_per_class=1, seed=0).photos
    sum(1 for _ in photos)


def _run_examples(work: Path, out_dir: Path) -> None:
    count = int(work.name)
    photos = (Photo(f"{_CLASS_NAMES[n % 5]}/{n:07d}.bmp", n % 5, "train", b"") for n in range(count))
    source = Source("drawn", _CLASS_NAMES, ("train",), count, photos)
    with patch.object(factory, "open_source", lambda *_, **__: source), patch.object(examination, "examine", _draw):
        examples.build(out_dir=out_dir, options=ExamplesOptions(source="drawn", labels=""))


def _draw(photos: Iterable[Photo], **_: object) -> Iterator[Examined]:
    """Draw what an examination could find; every hundredth photo is a copy, every hundredth a look-alike."""
    rng = np.random.default_rng(0)
    for number, photo in enumerate(photos):
        if number % 100 != 1:
            digest = rng.bytes(32)
        if number % 100 != 3:
            looks = rng.bytes(16)
        found = Candidate(
            photo.name,
            photo.label - (number % 100 in (1, 3)),
            photo.split,
            digest.hex(),
            "bmp",
            *(16, 16),
            0.5,
            0.25,
            looks,
        )
        yield found, digest * (_PHOTO_BYTES // 32)


def _run_statistics(work: Path, out_dir: Path) -> None:
    statistics.compute(examples_dir=work / "examples", out_dir=out_dir)


def _run_validator(work: Path, out_dir: Path) -> None:
    validator.validate(
        statistics_dir=work / "statistics", out_dir=out_dir, state_dir=out_dir / "schemas", options=ValidatorOptions()
    )


@dataclass(frozen=True)
class _StubModel:
    """A classifier that knows every image at once."""

    model: str
    num_threads: int | None
    trust: Trust

    def open(self) -> "_StubModel":
        return self

    def close(self) -> None: ...

    def __enter__(self) -> "_StubModel":
        return self

    def __exit__(self, *_: object) -> None: ...

    def identify(self) -> dict[str, str]:
        return {"sha256": "stub"}

    def classify(self, images: Sequence[str]) -> Iterator[Prediction]:
        probabilities = dict.fromkeys(_CLASS_NAMES, 0.2)
        return (Prediction(image, _CLASS_NAMES[0], 0.2, probabilities, "1", 0.0) for image in images)


def _run_infer(work: Path, out_dir: Path) -> None:
    with patch.object(runner, "Classifier", _StubModel):
        options = InferOptions(engine="local", num_workers=1)
        runner.infer(str(work / "photos"), "rest://stub/stub", str(out_dir), models_dir=work, options=options)


STEPS: dict[str, Callable[[Path, Path], None]] = {
    "listing": _list,
    "examples": _run_examples,
    "statistics": _run_statistics,
    "validator": _run_validator,
    "infer": _run_infer,
    "trainer": _run_trainer,
}
