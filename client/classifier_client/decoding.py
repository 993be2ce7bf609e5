"""Open an encoded image and decode it to upright RGB with Pillow, in bounded memory, or say why it cannot be read.

The client decodes with it what it sends, and the training pipeline what TensorFlow does not decode: TIFF, AVIF and
so on, and JPEGs of more than `MAX_PIXELS`. So both see the same pixels.

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
from .colours import to_rgb
from .errors import ImageError

MAX_PIXELS = 25_000_000
"""Larger images are refused before they are decoded: a 17 KB PNG can claim 12000 × 12000 pixels."""

MAX_JPEG_PIXELS = 210_000_000
"""A JPEG in one scan, such as a phone's 200 megapixels, is decoded row by row at a half, a quarter or an eighth."""

FORMAT_PIXELS = {
    "WEBP": ("a WebP", 16_000_000),  # 16 bytes a pixel: its decoder holds two canvases, and Pillow copies one.
    "AVIF": ("an AVIF", 12_500_000),  # 11 bytes a pixel, and 20 where it has 10 bits.
    "JPEG2000": ("a JPEG 2000", 12_500_000),  # 20 bytes a pixel: its planes have 32 bits; and 0.1 s a megapixel.
    # Decoded in Python.
    "bmp_rle": ("a run-length encoded BMP", 2_500_000),
    "ppm": ("a PPM of 16-bit colours, or whose largest value is unusual,", 800_000),
    "ppm_plain": ("a PPM as text", 800_000),
}
"""Fewer pixels than `MAX_PIXELS`, by format or by Pillow's decoder: these cost more, 300 MB or 2 s at these sizes."""

MAX_TILE_PIXELS = 2 * MAX_PIXELS
"""Of all of a TIFF's tiles, which may reach beyond the image: decoding one costs the same wherever it lies."""

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
_SUBFILE_TYPE, _TILE_WIDTH, _TILE_LENGTH, _DNG_VERSION = 254, 322, 323, 50706
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
        _check_encoded_size(image, name, is_reducible=is_reducible)
        tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
        if _DNG_VERSION in tags:
            raise _not_readable(name, _RAW)
        if tags.get(_SUBFILE_TYPE, 0) & 1:
            raise _not_readable(name, "a TIFF whose first image is a small preview, as in a camera's RAW file")
        width, height = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
        if width and height:
            num_tiles = -(-image.width // width) * -(-image.height // height)
            if num_tiles * width * height > MAX_TILE_PIXELS:
                raise _too_many_pixels(name, "more in its tiles")
    return image


def check_size(image: Image.Image, name: str, *, max_pixels: int | None = None) -> None:
    """Check the size that an image claims, before it is decoded.

    Raises:
        ImageError: it has no pixels, or too many.
    """
    if not image.width * image.height:
        raise ImageError(name, "it has no pixels; send an image", code="empty")
    if image.width * image.height > (max_pixels or MAX_PIXELS):
        raise _too_many_pixels(name, f"{image.width} × {image.height}")


def _check_encoded_size(image: Image.Image, name: str, *, is_reducible: bool) -> None:
    check_size(image, name, max_pixels=MAX_JPEG_PIXELS if is_reducible else None)
    codec = image.tile[0][0] if getattr(image, "tile", None) else ""  # type: ignore[attr-defined]
    for kind in (image.format, codec):
        what, max_pixels = FORMAT_PIXELS.get(kind or "", ("", MAX_JPEG_PIXELS))
        if image.width * image.height > max_pixels:
            raise _too_many_pixels(name, f"{image.width} × {image.height}", what=what, max_pixels=max_pixels)


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
        return rgb if turn is None else rgb.transpose(turn)


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


def _too_many_pixels(name: str, received: str, *, what: str = "an image", max_pixels: int | None = None) -> ImageError:
    reason = (
        f"{what} may have at most {max_pixels or MAX_PIXELS:,} pixels, and it claims {received}; make a smaller copy "
        f"(or a JPEG that is not progressive: it may have {MAX_JPEG_PIXELS:,})"
    )
    return ImageError(name, reason, code="too_many_pixels")
