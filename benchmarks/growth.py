"""Ten times the photos: seconds and memory of examples, statistics and features, beside those of the few.

Each step runs in a process of its own, which begins with importing what it needs; few and many photos take turns. The
photos are noise, so no two are alike and each takes 50 KB. A small backbone with random weights computes the features:
how they grow is the same with any.
"""

import io
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from components import examples, features, model
from components import statistics as examples_statistics
from components.data.transform import TransformOptions
from components.examples import ExamplesOptions
from components.features import FeaturesOptions
from components.model import ModelOptions
from export.measure import peak_memory_bytes

NUM_PHOTOS = 700
FACTOR = 10
NUM_ROUNDS = 3
BACKBONE = ModelOptions(backbone="mobilenet_v2", weights="none", image_size_px=96)

_NUM_CLASSES = 5
_PHOTO_SIZE_PX = 224


def measure(options: ModelOptions = BACKBONE) -> None:
    """Print seconds and peak memory of each step for few and for many photos, medians of all rounds."""
    with tempfile.TemporaryDirectory() as temporary:
        sides = {count: Path(temporary) / str(count) for count in (NUM_PHOTOS, FACTOR * NUM_PHOTOS)}
        for count, work in sides.items():
            _draw(work / "photos", count)
            (work / "model").mkdir()
            model.fetch(out_dir=work / "model", options=options)
        found: dict[tuple[str, int], list[tuple[float, int]]] = {}
        for number in range(NUM_ROUNDS):
            for name, step in STEPS.items():
                for count, work in sides.items():
                    measured = in_own_process(step, work, work / str(number) / name)
                    found.setdefault((name, count), []).append(measured)
        for name in STEPS:
            few, many = (tuple(map(statistics.median, zip(*found[name, count], strict=True))) for count in sides)
            _report(name, few, many)


def _draw(folder: Path, count: int) -> None:
    """Write photos of noise, the same ones each time, as `<class>/<number>.jpg`."""
    rng = np.random.default_rng(0)
    for label in range(_NUM_CLASSES):
        (folder / f"class_{label}").mkdir(parents=True)
    for number in range(count):
        pixels = rng.integers(0, 256, (_PHOTO_SIZE_PX, _PHOTO_SIZE_PX, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG")
        (folder / f"class_{number % _NUM_CLASSES}" / f"{number:07d}.jpg").write_bytes(buffer.getvalue())


def in_own_process(
    step: Callable[[Path, Path], None],
    work: Path,
    out_dir: Path,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, int]:
    """Run one step in a process of its own; return its seconds and the peak memory of that process in bytes."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_run, step, work, out_dir, clock).result()


def _run(
    step: Callable[[Path, Path], None], work: Path, out_dir: Path, clock: Callable[[], float]
) -> tuple[float, int]:
    out_dir.mkdir(parents=True)
    started = clock()
    step(work, out_dir)
    return clock() - started, peak_memory_bytes()


def _run_examples(work: Path, out_dir: Path) -> None:
    examples.build(out_dir=out_dir, options=ExamplesOptions(source=str(work / "photos")))


def _run_statistics(work: Path, out_dir: Path) -> None:
    examples_statistics.compute(examples_dir=out_dir.with_name("examples"), out_dir=out_dir)


def _run_features(work: Path, out_dir: Path) -> None:
    features.extract(
        examples_dir=out_dir.with_name("examples"),
        validation_dir=work,
        model_dir=work / "model",
        out_dir=out_dir,
        options=FeaturesOptions(),
        transform=TransformOptions(),
    )


STEPS: dict[str, Callable[[Path, Path], None]] = {
    "examples": _run_examples,
    "statistics": _run_statistics,
    "features": _run_features,
}


def _report(step: str, few: tuple[float, ...], many: tuple[float, ...]) -> None:
    (few_s, few_bytes), (many_s, many_bytes) = few, many
    more = FACTOR * NUM_PHOTOS - NUM_PHOTOS
    print(
        f"growth, {step}: {NUM_PHOTOS:,} photos {few_s:.1f} s and {few_bytes / 1e6:.0f} MB, {FACTOR} times as many "
        f"{many_s:.1f} s and {many_bytes / 1e6:.0f} MB: ratio {many_s / few_s:.2f} in time, "
        f"{many_bytes / few_bytes:.3f} in memory ({(many_bytes - few_bytes) / more / 1e3:+.2f} KB a photo, "
        f"{(many_s - few_s) / more * 1e3:.1f} s a thousand)",
        flush=True,
    )
