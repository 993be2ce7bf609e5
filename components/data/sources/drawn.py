"""Drawn flowers as a source: photos of every class and split without a network."""

import io
from collections.abc import Iterator

from PIL import Image

from components.artifacts.examples import SPLITS
from components.data import drawn_flowers
from components.data.sources.source import SYNTHETIC, Photo, Source


def open_drawn(*, num_per_class: int, seed: int, fallback: str | None = None) -> Source:
    """Open drawn flowers; the photos are drawn as they are read.

    Args:
        num_per_class: photos of each kind of flower.
        seed: of the drawings, from 0; no two seeds share one.
        fallback: why they stand for another source.
    """
    class_names = drawn_flowers.CLASS_NAMES
    photos = _draw_photos(num_per_class, seed)
    return Source(SYNTHETIC, class_names, SPLITS, num_per_class * len(class_names), photos, fallback)


def _draw_photos(num_per_class: int, seed: int) -> Iterator[Photo]:
    for number in range(num_per_class):
        # Of ten drawings seven are for training, one for validation and two for the test.
        split = ("test", "test", "validation")[number % 10] if number % 10 < 3 else "train"
        for label, name in enumerate(drawn_flowers.CLASS_NAMES):
            buffer = io.BytesIO()
            pixels = drawn_flowers.draw(name, seed=seed * num_per_class + number)
            Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
            yield Photo(f"{split}/{name}/{number:05d}.jpg", label, split, buffer.getvalue())
