"""How bright a photo is, from its file."""

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageStat

_SIDE_PX = 64
"""A photo is decoded at about this size, if its format allows it: the mean stays the same."""
_MAX_PIXELS = 50_000_000


def measure_brightness(photo: bytes | Path) -> float:
    """Return the mean of the grey values, 0–1; NaN where there is no photo, or none that can be decoded.

    >>> round(measure_brightness(Path("nowhere.jpg")), 1)
    nan
    """
    try:
        with Image.open(io.BytesIO(photo) if isinstance(photo, bytes) else photo) as image:
            if image.width * image.height > _MAX_PIXELS:
                return math.nan
            image.draft("L", (_SIDE_PX, _SIDE_PX))
            if image.mode.startswith("I"):  # 16 bits of grey, which Pillow cuts off at 255
                return float(np.asarray(image).mean()) / 65535
            return ImageStat.Stat(image.convert("L")).mean[0] / 255
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return math.nan
