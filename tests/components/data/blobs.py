"""Small images to examine."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Encode = Callable[..., bytes]


def draw(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Draw smooth noise: images of different seeds are far apart, rescaled copies near."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def fill(folder: Path, counts: dict[str, int], encode: Encode, *, first_seed: int = 0) -> Path:
    """Write JPEGs: {folder of a class: how many}."""
    seed = first_seed
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            (folder / name / f"{seed:04d}.jpg").write_bytes(encode(draw(seed), "JPEG"))
            seed += 1
    return folder
