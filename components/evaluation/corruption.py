"""How well a model bears photos that are worse than those it learned from: one fixed strength of each corruption.

They are applied to the pixels that the model sees, so they are as strong for every size of photo; kinds after D.
Hendrycks and T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions", 2019.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from components.artifacts.evaluation import Corrupted
from components.data import transform
from components.evaluation.served_model import Outputs, ServedModel, join
from components.progress import Progress
from components.reporting import metrics

Pixels = NDArray[np.uint8]
"""`uint8 [size, size, 3]`, RGB, 0–255."""

_SEED = 0
_BLUR_RADIUS = 1 / 100  # of a side: 2.2 px of 224
_NOISE_STD = 25.0  # of 255
_JPEG_QUALITY = 15
_DARK, _BRIGHT = 0.5, 1.5  # times each value
_CROP = 0.6  # of each side, from the middle


def measure_corruptions(
    model: ServedModel, shards: Sequence[Path], *, image_size_px: int, batch_size: int
) -> dict[str, Corrupted]:
    """Judge a model on the examples of some shards, as they are and after each corruption."""
    batches: dict[str, list[Outputs]] = {name: [] for name in CORRUPTIONS}
    labels: list[NDArray[np.int64]] = []
    photos = transform.read(shards, image_size_px=image_size_px).batch(batch_size).as_numpy_iterator()
    for images, labels_of_batch in Progress(photos, desc="corrupted photos", unit="batch"):
        first = sum(map(len, labels))
        for name, corrupt in CORRUPTIONS.items():
            changed = [corrupt(image, first + number) for number, image in enumerate(images)]
            batches[name].append(model.classify_images(np.stack(changed)))
        labels.append(labels_of_batch)
    return {name: _summarize(join(found), np.concatenate(labels)) for name, found in batches.items()}


def _summarize(outputs: Outputs, labels: NDArray[np.int64]) -> Corrupted:
    refused = metrics.share(~outputs.limits.is_known) if outputs.limits else None
    return {**metrics.judge(outputs.probabilities, labels), "refused": refused}


def _blur(image: Pixels, position: int) -> Pixels:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(image.shape[0] * _BLUR_RADIUS)))


def _add_noise(image: Pixels, position: int) -> Pixels:
    # By the photo's position, whatever the size of a batch.
    noise = np.random.default_rng([_SEED, position]).normal(0, _NOISE_STD, image.shape)
    return _to_pixels(image + noise)


def _compress(image: Pixels, position: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return np.asarray(Image.open(buffer))


def _crop(image: Pixels, position: int) -> Pixels:
    size_px = image.shape[0]
    margin = size_px * (1 - _CROP) / 2
    box = (margin, margin, size_px - margin, size_px - margin)
    return np.asarray(Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BILINEAR, box=box))


def _to_pixels(values: NDArray[Any]) -> Pixels:
    return values.round().clip(0, 255).astype(np.uint8)


CORRUPTIONS: Mapping[str, Callable[[Pixels, int], Pixels]] = {
    "as they are": lambda image, _: image,
    "blurred": _blur,
    "noisy": _add_noise,
    "JPEG": _compress,
    "darkened": lambda image, _: _to_pixels(image * _DARK),
    "brightened": lambda image, _: _to_pixels(image * _BRIGHT),
    "cropped": _crop,
}
"""Each returns a photo's pixels, given them and its position, from which what is random is drawn."""
