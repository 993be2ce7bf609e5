"""Convert an image of any mode to RGB, and resize it: in bands, so that no second copy of a large image is made.

Transparency is multiplied into the colours first, and the ground comes in when the band is small: as both are linear,
the result is that of laying the whole image over its ground, within a grey level.
"""

import math
from collections.abc import Callable

from PIL import Image, ImageChops

from .errors import ImageError

_BAND_PIXELS = 2_000_000
"""Of the image, at once: 8 MB in each of the modes on the way."""

# TIFF 6.0, section 8.
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262

_Convert = Callable[[Image.Image], Image.Image]


def to_rgb(
    image: Image.Image,
    name: str,
    *,
    size: tuple[int, int] | None = None,
    box: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    """Convert an image to RGB: 16 bits keep the high byte, transparency is laid over white (GIF: black).

    Args:
        image: of any mode; its pixels are decoded.
        name: for an error's message.
        size: width and height to resize it to (bilinear, antialiased); none is its own size.
        box: the part of it that is resized; none is the whole.

    Raises:
        ImageError: nothing says which of its values is white.
    """
    image.load()
    convert = _find_conversion(image, name)
    if convert is None:
        small = image.resize(size, Image.Resampling.BILINEAR, box) if size else image
        return small if small.mode == "RGB" else small.convert("RGB")
    flatten = _over_black if image.format == "GIF" else _over_white
    result = Image.new("RGB", size or image.size)
    left, upper, right, lower = box or (0, 0, *image.size)
    scale = (lower - upper) / result.height
    reach = math.ceil(max(scale, 1)) + 1 if size else 0  # The filter's: one pixel of the larger of both.
    num_rows = max(_BAND_PIXELS * result.height // (image.width * image.height), 1)
    for first in range(0, result.height, num_rows):
        end = min(first + num_rows, result.height)
        top, bottom = upper + first * scale, upper + end * scale
        start = max(math.floor(top) - reach, 0)
        band = convert(image.crop((0, start, image.width, min(math.ceil(bottom) + reach, image.height))))
        if size:
            part = (left, top - start, right, bottom - start)
            band = band.resize((result.width, end - first), Image.Resampling.BILINEAR, part)
        result.paste(flatten(band) if band.mode == "RGBa" else band, (0, first))
    return result


def _find_conversion(image: Image.Image, name: str) -> _Convert | None:
    """Return what makes a band RGB, L or RGBa, whose values may be averaged; None where they are so already."""
    if image.mode.startswith("I;16"):
        tags = getattr(image, "tag_v2", {})
        factor = 16 if tags.get(_BITS_PER_SAMPLE) == (12,) else 1
        is_white_zero = tags.get(_PHOTOMETRIC) == 0
        return lambda band: _high_bytes(band, factor=factor, is_white_zero=is_white_zero)
    if image.mode == "I" and image.format == "PPM":
        return lambda band: band.point(lambda value: value * (1 / 256)).convert("L")  # Pillow has scaled it to 0–65535.
    if image.mode in ("I", "F"):
        raise ImageError(
            name,
            f"nothing says which value of mode {image.mode} (32 bits, floats or signed) is white; "
            "convert it to RGB yourself",
        )
    if image.mode == "RGBa":
        return lambda band: band
    if image.mode == "La":
        return lambda band: band.convert("LA").convert("RGBA").convert("RGBa")
    # The graph takes no transparent colour of an image of black and white.
    if image.has_transparency_data and image.mode != "1":
        return lambda band: band.convert("RGBA").convert("RGBa")
    return None if image.mode in ("RGB", "L") else lambda band: band.convert("RGB")


def _over_white(premultiplied: Image.Image) -> Image.Image:
    *colours, alpha = premultiplied.split()
    ground = ImageChops.invert(alpha)
    return Image.merge("RGB", [ImageChops.add(colour, ground) for colour in colours])


def _over_black(premultiplied: Image.Image) -> Image.Image:
    return Image.merge("RGB", premultiplied.split()[:3])


def _high_bytes(image: Image.Image, *, factor: int, is_white_zero: bool) -> Image.Image:
    """Return the high bytes of 16-bit grey. Pillow's own conversion takes every value above 255 for white."""
    if factor > 1:
        image = image.point(lambda value: value * factor)
    grey = Image.frombytes("L", image.size, image.tobytes("raw", "I;16B")[::2])
    return grey.point(lambda value: 255 - value) if is_white_zero else grey
