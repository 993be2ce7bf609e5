"""Open an encoded image and decode it to upright RGB with Pillow, in bounded memory, or say why it cannot be read.

The client decodes with it what it sends, and the training pipeline what TensorFlow does not decode: TIFF, WebP, AVIF
and so on, and JPEGs of more than `MAX_PIXELS`. So both see the same pixels.

HEIC is not among them: pi-heif 1.4, which would read it, crashes the process on a damaged file.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from . import directories, segments, structure
from .errors import ImageError

MAX_PIXELS = 25_000_000
"""Larger images are refused before they are decoded: a 17 KB PNG can claim 12000 × 12000 pixels."""

MAX_JPEG_PIXELS = 210_000_000
"""A JPEG in one scan, such as a phone's 200 megapixels, is decoded row by row at a half, a quarter or an eighth."""

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff"),
    *(".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".heic", ".heif", ".hif", ".jxl", ".svg", ".psd", ".ico", ".tga"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"),
)
"""Files of these names are meant as images. Those of the last two lines cannot be read: each gets an error."""

READABLE = "JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF, JPEG 2000 or PPM"

_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF", "JPEG2000")
_AVIF = {b"avif", b"avis"}
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_RAW = "a camera's RAW file"
_UNREADABLE = (
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"\0\0\1\0", "an icon"),
    (0, b"FUJIFILMCCD-RAW", _RAW),
    (0, b"IIU\0", _RAW),
    (0, b"IIRO", _RAW),
    (8, b"CR\2\0", _RAW),
    (8, b"AVI ", "a video"),
    (0, b"\x1aE\xdf\xa3", "a video"),
)
"""Position, bytes and name of formats that are often taken for photos."""

# TIFF 6.0, sections 8 and 15; DNG 1.4, 4.
_SUBFILE_TYPE, _BITS_PER_SAMPLE, _PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH, _DNG_VERSION = 254, 258, 262, 322, 323, 50706
_DAMAGED = (
    OSError,
    RuntimeError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    struct.error,
    zlib.error,
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@contextmanager
def failures(name: str) -> Iterator[None]:
    """Turn what Pillow raises on a damaged or oversized image into an `ImageError`."""
    try:
        with warnings.catch_warnings():
            # What Pillow warns of is either refused here or harmless.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise _too_many_pixels(name, "many times that") from exc
    except _DAMAGED as exc:
        reason = " ".join(str(exc).split()) or type(exc).__name__
        raise ImageError(name, f"damaged or cut short ({reason}); use a sound copy", code="damaged") from exc


def open_encoded(encoded: bytes, name: str) -> Image.Image:
    """Read the header of an encoded image, and no pixels yet.

    Raises:
        ImageError: it is no image, one in a format that is not read, or it claims too many pixels.
    """
    structure.check(encoded, name)
    with failures(name):
        image = _open(encoded, name)
        is_reducible = image.format == "JPEG" and segments.is_in_one_scan(encoded)
        check_size(image, name, is_reducible=is_reducible)
        tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
        if _DNG_VERSION in tags:
            raise _not_readable(name, _RAW)
        if tags.get(_SUBFILE_TYPE, 0) & 1:
            raise _not_readable(name, "a TIFF whose first image is a small preview, as in a camera's RAW file")
        if tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_LENGTH, 0) > MAX_PIXELS:
            raise _too_many_pixels(name, "more in a tile")
    return image


def check_size(image: Image.Image, name: str, *, is_reducible: bool = False) -> None:
    """Check the size that an image claims, before it is decoded.

    Raises:
        ImageError: it has no pixels, or too many.
    """
    if not image.width * image.height:
        raise ImageError(name, "it has no pixels; send an image", code="empty")
    if image.width * image.height > (MAX_JPEG_PIXELS if is_reducible else MAX_PIXELS):
        raise _too_many_pixels(name, f"{image.width} × {image.height}")


def reduce_jpeg(image: Image.Image, *, least_px: int | None = None) -> tuple[float, float, float, float] | None:
    """Let a JPEG be decoded at a half, a quarter or an eighth: as large as is allowed, or with sides of `least_px`.

    Returns:
        The box of the decoded pixels that is the whole image: half a pixel less than all, where a side was odd.
    """
    scale = next((s for s in (1, 2, 4) if image.width * image.height <= MAX_PIXELS * s * s), 8)
    if least_px:
        scale = max(scale, min(image.width, image.height) // least_px)
    draft = image.draft(None, (max(image.width // scale, 1), max(image.height // scale, 1)))
    return draft[1] if draft else None


def decode(encoded: bytes, name: str) -> Image.Image:
    """Decode an image of any format to upright RGB, of at most `MAX_PIXELS`.

    Raises:
        ImageError: it cannot be read.
    """
    with open_encoded(encoded, name) as image, failures(name):
        reduce_jpeg(image)
        turn = find_turn(image)
        rgb = to_rgb(image, name)
        rgb.load()  # Pillow reads the pixels of an image that is RGB already only when they are needed.
        return rgb if turn is None else rgb.transpose(turn)


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Convert an image of any mode to RGB: 16 bits keep the high byte, transparency is laid over white (GIF: black).

    Raises:
        ImageError: nothing says which of its values is white.
    """
    if image.mode.startswith("I;16"):
        image = _high_bytes(image)
    elif image.mode == "I" and image.format == "PPM":
        image = image.point(lambda value: value * (1 / 256)).convert("L")  # Pillow has scaled it to 0–65535.
    if image.mode in ("I", "F"):
        raise ImageError(
            name,
            f"nothing says which value of mode {image.mode} (32 bits, floats or signed) is white; "
            "convert it to RGB yourself",
        )
    if image.mode == "La":
        image = image.convert("LA")
    # The graph takes no transparent colour of an image of black and white.
    if image.has_transparency_data and image.mode != "1":
        ground = Image.new("RGBA", image.size, "black" if image.format == "GIF" else "white")
        ground.alpha_composite(image.convert("RGBA"))
        image = ground
    return image if image.mode == "RGB" else image.convert("RGB")


def find_turn(image: Image.Image) -> Image.Transpose | None:
    """Return what turns an image upright by its EXIF orientation; none where there is none or it is invalid.

    Call it before the pixels are read: of a PNG only what stands before them counts, as in the graph and in browsers.
    Pillow itself turns a TIFF (Exif 2.3, 4.5.2 and 4.6.2).
    """
    orientation = directories.find_orientation(image.info.get("exif", b""))
    return _TURNS.get(orientation) if orientation else None


def _open(encoded: bytes, name: str) -> Image.Image:
    """Read the header with Pillow."""
    what = _name_unreadable(encoded)
    if what:
        raise _not_readable(name, what)
    try:
        if encoded.startswith(b"\xff\xd8\xff"):
            # Image.open refuses 179 megapixels and more, before they can be reduced.
            return JpegImageFile(io.BytesIO(encoded))
        return Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except (UnidentifiedImageError, SyntaxError, IndexError, TypeError, struct.error) as exc:
        begin = encoded[:16].decode("ascii", "replace").replace("\ufffd", "?")
        reason = f"not an image that can be read ({READABLE}), or damaged: it begins with {begin!r}"
        raise ImageError(name, reason, code="not_an_image") from exc


def _read_brands(encoded: bytes) -> set[bytes]:
    """Return the brands of a file of the ISO base media format (ISO 14496-12, 4.3); none of any other."""
    if encoded[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(encoded[:4], "big"), len(encoded), 256)
    return {encoded[position : position + 4] for position in (8, *range(16, end, 4))}


def _name_unreadable(encoded: bytes) -> str | None:
    """Return what a file is that people take for an image and that is not read; None of any other."""
    for position, magic, what in _UNREADABLE:
        if encoded.startswith(magic, position):
            return what
    brands = _read_brands(encoded)
    if brands and not brands & _AVIF:
        return "a HEIC photo" if brands & _HEIC else _RAW if b"crx " in brands else "a video"
    begin = encoded[:1000].lstrip().lower()
    if begin.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    return "an SVG drawing" if begin.startswith(b"<") and b"<svg" in begin else None


def _not_readable(name: str, what: str) -> ImageError:
    reason = f"{what}, not an image that can be read ({READABLE}); convert it to JPEG"
    return ImageError(name, reason, code="not_an_image")


def _too_many_pixels(name: str, received: str) -> ImageError:
    reason = (
        f"an image may have at most {MAX_PIXELS:,} pixels, and it claims {received}; make a smaller copy "
        f"(or a JPEG that is not progressive: it may have {MAX_JPEG_PIXELS:,})"
    )
    return ImageError(name, reason, code="too_many_pixels")


def _high_bytes(image: Image.Image) -> Image.Image:
    """Return the high bytes of 16-bit grey. Pillow's own conversion takes every value above 255 for white."""
    tags = getattr(image, "tag_v2", {})
    is_white_zero = tags.get(_PHOTOMETRIC) == 0
    if tags.get(_BITS_PER_SAMPLE) == (12,):
        image = image.point(lambda value: value * 16)
    grey = Image.frombytes("L", image.size, image.tobytes("raw", "I;16B")[::2])
    return grey.point(lambda value: 255 - value) if is_white_zero else grey
