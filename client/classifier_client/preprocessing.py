"""Decode and resize an image to the pixels that the model sees, with Pillow: the same as the model was trained with.

An image is turned upright by its EXIF orientation, transparency is laid over white (in a GIF over black), 16-bit
samples keep their high byte, of an animation and of several pages the first counts, and the whole image is resized
(bilinear, antialiased, aspect ratio not kept) to a square; `decoding.py` decodes. The definition is TensorFlow's, in
`export/preprocessing.py`, and tests hold this one against it: to one grey level where an image is decoded in full, of
whatever it is. A large JPEG is not (`_REDUCED`): then photos, enlarged for the test, differ by more than two on at most
one value of two hundred, and patterns of a few pixels, such as stripes, by up to 50.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from PIL import Image

from .colours import to_rgb
from .decoding import MAX_PIXELS as MAX_PIXELS
from .decoding import check_size, failures, find_turn, open_encoded, reduce_jpeg
from .errors import ImageError
from .sources import File, Source, is_array, is_file, open_path

MAX_BYTES = 80_000_000
"""Larger files are refused unread: 25 megapixels without any compression are 75 MB."""

_REDUCED = 6
"""A JPEG is decoded at a half, a quarter or an eighth of its size while that is this many times what is needed: half
the memory, in half the time (12 megapixels: 37 MB instead of 74, 36 ms instead of 70).

What that changes: colours are averaged before they are cut off at 0 and 255, and they are not smoothed where the file
has fewer of them (4:2:0, 4:2:2). In a photo that is next to nothing. In stripes or blocks of a few pixels and the
strongest colours it was 43 levels at most, and more than two on up to all values.
"""


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
    with failures(name), _open(source, name) as image:
        box = None if image is source else reduce_jpeg(image, least_px=_REDUCED * size_px)
        turn = find_turn(image)
        # Turning the small image gives the same as turning the large one, and costs nothing.
        small = to_rgb(image, name, size=(size_px, size_px), box=box)
        return small if turn is None else small.transpose(turn)


def _open(source: Any, name: str) -> AbstractContextManager[Image.Image]:
    """Open an image, and decode no pixels yet; what is the caller's stays open."""
    if isinstance(source, Image.Image):
        check_size(source, name)
        return nullcontext(source)
    if is_array(source):
        image = _from_array(source, name)
        check_size(image, name)
        return image
    return open_encoded(_read(source, name), name)


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
            with open_path(source, name) as file:
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
