"""Decode and resize an image to the pixels that the model sees, with Pillow: the same as the model was trained with.

An image is turned upright by its EXIF orientation, transparency is laid over white (in a GIF over black), 16-bit
samples keep their high byte, of an animation the first frame counts, and the whole image is resized (bilinear,
antialiased, aspect ratio not kept) to a square. The definition is TensorFlow's, in `export/preprocessing.py`; a test
holds this one against it, to two grey levels.
"""

import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image, UnidentifiedImageError

from .errors import ImageError
from .sources import File, Source, is_array, is_file

MAX_PIXELS = 25_000_000
"""Larger images are refused before they are decoded: a 17 KB PNG can claim 12000 × 12000 pixels."""

MAX_BYTES = 80_000_000
"""Larger files are refused unread: 25 megapixels without any compression are 75 MB."""

_DRAFT = 6
"""A JPEG is decoded at a half, a quarter or an eighth of its size while that is this many times what is needed: a
quarter of the memory, in half the time, and one grey level of difference."""

_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    struct.error,
    zlib.error,
)
_EXIF_ORIENTATION = 0x0112  # Exif 2.3, 4.6.4 A
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load(source: Source, *, name: str, size_px: int) -> Image.Image:
    """Read, decode and resize one image.

    Args:
        source: an image in any form.
        name: for an error's message.
        size_px: the side of the result.

    Returns:
        An RGB image of `size_px` by `size_px`.

    Raises:
        ImageError: there is no such file, it is no image, is damaged, or is too large.

    Example:
        >>> load(Image.new("RGB", (400, 300), "red"), name="red", size_px=224).size
        (224, 224)
    """
    try:
        with warnings.catch_warnings():
            # What Pillow warns of is either refused here or harmless.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with _open(source, name) as image:
                if not image.width * image.height:
                    raise ImageError(name, "it has no pixels; send an image", code="empty")
                if image.width * image.height > MAX_PIXELS:
                    raise _too_many_pixels(name, f"{image.width} × {image.height}")
                draft = None if image is source else image.draft(None, (_DRAFT * size_px, _DRAFT * size_px))
                box = draft[1] if draft else None  # Half a pixel less than all, where a side was odd.
                # Turning the small image gives the same as turning the large one, and costs nothing.
                small = _to_rgb(image, name).resize((size_px, size_px), Image.Resampling.BILINEAR, box)
                turn = _TURNS.get(_orientation(image))
                return small if turn is None else small.transpose(turn)
    except Image.DecompressionBombError as exc:
        raise _too_many_pixels(name, "many times that") from exc
    except _DAMAGED as exc:
        raise ImageError(name, f"damaged or cut short ({exc}); send a sound copy", code="damaged") from exc


@contextmanager
def _open(source: Any, name: str) -> Iterator[Image.Image]:
    """Read the header of an image, and no pixels yet."""
    if isinstance(source, Image.Image):
        yield source
    elif is_array(source):
        yield _from_array(source, name)
    else:
        encoded = _read(source, name)
        try:
            image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
        except UnidentifiedImageError as exc:
            begin = encoded[:16].decode("ascii", "replace").replace("\ufffd", "?")
            raise ImageError(
                name,
                f"not a JPEG, PNG, GIF, BMP or WebP image, or damaged: it begins with {begin!r}",
                code="not_an_image",
            ) from exc
        with image:
            yield image


def _from_array(array: Any, name: str) -> Image.Image:
    interface = array.__array_interface__
    shape = tuple(interface["shape"])
    is_image = len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))
    if interface["typestr"] != "|u1" or not is_image:
        raise ImageError(
            name,
            "an array must be uint8 [height, width, 3], RGB, 0–255 (or [height, width], or with an alpha as a fourth); "
            f"received {interface['typestr']} {list(shape)}",
        )
    return Image.fromarray(array)


def _read(source: Any, name: str) -> bytes:
    """Read an encoded image, no more of it than is allowed."""
    if isinstance(source, str | os.PathLike):
        try:
            with open(source, "rb") as file:  # noqa: PTH123
                return _read(file, name)
        except OSError as exc:
            raise ImageError(name, f"cannot be read ({exc.strerror}); check the path") from exc
    encoded = _read_file(source, name) if is_file(source) else bytes(source)
    if not encoded:
        raise ImageError(name, "empty; send an image", code="empty")
    if len(encoded) > MAX_BYTES:
        raise ImageError(name, f"larger than {MAX_BYTES / 1e6:.0f} MB; send a smaller copy")
    return encoded


def _read_file(file: File, name: str) -> bytes:
    encoded = file.read(MAX_BYTES + 1)
    if not isinstance(encoded, bytes):
        raise ImageError(name, "the file gives text; open it for reading bytes")
    return encoded


def _too_many_pixels(name: str, received: str) -> ImageError:
    reason = f"an image may have at most {MAX_PIXELS:,} pixels, and it claims {received}; send a smaller copy"
    return ImageError(name, reason, code="too_many_pixels")


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        # The high bytes. Pillow's own conversion takes every value above 255 for white.
        image = Image.frombytes("L", image.size, image.tobytes("raw", "I;16B")[::2])
    if image.mode in ("I", "F"):
        raise ImageError(name, f"nothing says which value of mode {image.mode} is white; convert it to RGB yourself")
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, "black" if image.format == "GIF" else "white")
        ground.alpha_composite(image.convert("RGBA"))
        image = ground
    return image if image.mode == "RGB" else image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation, 1–8; 1 where there is none or it is invalid (Exif 2.3, 4.5.2 and 4.6.2)."""
    # The model was trained on PNGs as they lie.
    exif = b"" if image.format == "PNG" else image.info.get("exif", b"").removeprefix(b"Exif\0\0")
    order = "<" if exif.startswith(b"II") else ">"
    try:
        (directory,) = struct.unpack_from(order + "I", exif, 4)
        (num_entries,) = struct.unpack_from(order + "H", exif, directory)
        for position in range(directory + 2, directory + 2 + 12 * num_entries, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, position)
            if tag == _EXIF_ORIENTATION and 1 <= value <= 8:
                return int(value)
    except struct.error:
        return 1
    return 1
