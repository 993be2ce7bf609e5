"""Images that cost far more than they should, each made by code: small files that keep a decoder busy, or fill memory.

`CORPUS` has a function for each; what an entrance does with them is tested beside that entrance.
"""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

from PIL import Image

_SIDE_PX = 5000
"""Of the large ones: 25 megapixels, the most that is allowed."""


def _encode(mode: str, kind: str, *, side_px: int = _SIDE_PX, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (side_px, side_px)).save(buffer, kind, **options)
    return buffer.getvalue()


def _after_start(jpeg: bytes, segments: bytes) -> bytes:
    return jpeg[:2] + segments + jpeg[2:]


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def jpeg_of_scans(num_scans: int = 1500, *, side_px: int = _SIDE_PX) -> bytes:
    """Return a progressive JPEG whose last scan comes again and again: each goes over all coefficients."""
    jpeg = _encode("L", "JPEG", side_px=side_px, progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * num_scans + jpeg[-2:]


def jpeg_of_exif(num_bytes: int = 10_000_000) -> bytes:
    """Return a JPEG that begins with nothing but tiny Exif segments."""
    segment = _segment(0xE1, b"Exif\0\0II")
    return _after_start(_encode("RGB", "JPEG", side_px=64), segment * (num_bytes // len(segment)))


def jpeg_of_comments(num_bytes: int = 10_000_000) -> bytes:
    """Return a JPEG that begins with nothing but empty comments."""
    segment = _segment(0xFE, b"")
    return _after_start(_encode("RGB", "JPEG", side_px=64), segment * (num_bytes // len(segment)))


def jpeg_of_profiles(num_bytes: int = 10_000_000) -> bytes:
    """Return a JPEG that begins with nothing but parts of colour profiles."""
    segment = _segment(0xE2, b"ICC_PROFILE\0\1\1")
    return _after_start(_encode("RGB", "JPEG", side_px=64), segment * (num_bytes // len(segment)))


def jpeg_of_padding(num_bytes: int = 10_000_000) -> bytes:
    """Return a JPEG that begins with fill bytes, which may stand before any marker."""
    return _after_start(_encode("RGB", "JPEG", side_px=64), b"\xff" * num_bytes)


def jpeg_of_tables(num_bytes: int = 10_000_000) -> bytes:
    """Return a JPEG that defines the same table again and again."""
    segment = _segment(0xDB, bytes([0, *[1] * 64]))
    return _after_start(_encode("RGB", "JPEG", side_px=64), segment * (num_bytes // len(segment)))


def _chunk(name: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))


def _png_of_chunks(chunk: bytes, num_chunks: int, *, at: bytes = b"IDAT") -> bytes:
    """Return a small PNG with a chunk many times before its first chunk of another name."""
    png = _encode("RGB", "PNG", side_px=64)
    position = png.index(at) - 4
    return png[:position] + chunk * num_chunks + png[position:]


def png_of_profiles(num_chunks: int = 8000) -> bytes:
    """Return a PNG with thousands of colour profiles, each of a megabyte once it is unpacked."""
    return _png_of_chunks(_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(900_000), 9)), num_chunks)


def png_of_texts(num_chunks: int = 100_000) -> bytes:
    """Return a PNG with very many texts."""
    return _png_of_chunks(_chunk(b"tEXt", b"Comment\0x"), num_chunks)


def png_of_packed_texts(num_chunks: int = 1000) -> bytes:
    """Return a PNG with texts that are long once they are unpacked."""
    return _png_of_chunks(_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(900_000), 9)), num_chunks)


def png_of_nothing(num_chunks: int = 800_000) -> bytes:
    """Return a PNG of very many empty chunks of data."""
    return _png_of_chunks(_chunk(b"IDAT", b""), num_chunks)


def png_of_unknown(num_chunks: int = 800_000) -> bytes:
    """Return a PNG of very many empty chunks that nobody knows."""
    return _png_of_chunks(_chunk(b"paDd", b""), num_chunks)


def png_of_frames(num_frames: int = 2000) -> bytes:
    """Return an animated PNG of very many frames."""
    buffer = io.BytesIO()
    frames = [Image.new("L", (8, 8), position % 251) for position in range(num_frames)]
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def png_transparent() -> bytes:
    """Return 25 megapixels with transparency."""
    return _encode("RGBA", "PNG")


def png_of_palette() -> bytes:
    """Return 25 megapixels of a palette with a transparent entry."""
    return _encode("P", "PNG", transparency=0)


def png_of_16_bits() -> bytes:
    """Return 25 megapixels of 16-bit grey."""
    return _encode("I;16", "PNG")


def png_bomb(side_px: int = 30_000) -> bytes:
    """Return a PNG that claims far more pixels than are allowed."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", side_px, side_px, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", zlib.compress(bytes(1_000_000), 9)) + _chunk(b"IEND", b"")


def _gif(blocks: bytes) -> bytes:
    """Return a GIF with blocks before its image."""
    gif = _encode("P", "GIF", side_px=64)
    position = gif.index(b"\x2c\0\0\0\0")
    return gif[:position] + blocks + gif[position:]


def gif_of_comments(num_bytes: int = 10_000_000) -> bytes:
    """Return a GIF with one comment in parts of a byte each."""
    return _gif(b"\x21\xfe" + b"\1x" * (num_bytes // 2) + b"\0")


def gif_of_extensions(num_bytes: int = 10_000_000) -> bytes:
    """Return a GIF with very many extensions, each of an application."""
    block = b"\x21\xff\x0bNETSCAPE2.0\3\1\0\0\0"
    return _gif(block * (num_bytes // len(block)))


def gif_of_frames(num_frames: int = 5000) -> bytes:
    """Return a GIF of very many tiny frames."""
    gif = _encode("P", "GIF", side_px=8)
    position = gif.index(b"\x2c\0\0\0\0")
    return gif[:position] + gif[position:-1] * num_frames + gif[-1:]


def gif_of_large_frames(num_frames: int = 20) -> bytes:
    """Return a GIF of several frames of 25 megapixels."""
    gif = _encode("P", "GIF")
    position = gif.index(b"\x2c\0\0\0\0")
    return gif[:position] + gif[position:-1] * num_frames + gif[-1:]


def gif_transparent() -> bytes:
    """Return 25 megapixels with a transparent ground."""
    return _encode("P", "GIF", transparency=0)


def bmp_of_nothing() -> bytes:
    """Return a BMP of 25 megapixels that holds none of them."""
    return _encode("RGB", "BMP", side_px=1)[:18] + struct.pack("<ii", _SIDE_PX, _SIDE_PX) + bytes(100)


def jpeg_progressive() -> bytes:
    """Return a progressive JPEG of 25 megapixels, whose coefficients are all held in memory."""
    return _encode("RGB", "JPEG", progressive=True, subsampling="4:4:4")


def jpeg_of_four_colours() -> bytes:
    """Return a progressive JPEG of 25 megapixels in CMYK."""
    return _encode("CMYK", "JPEG", progressive=True)


def webp_transparent() -> bytes:
    """Return a WebP of 25 megapixels with transparency, in a few hundred bytes."""
    return _encode("RGBA", "WEBP", lossless=True)


CORPUS: dict[str, Callable[[], bytes]] = {
    make.__name__: make
    for make in (
        *(jpeg_of_scans, jpeg_of_exif, jpeg_of_comments, jpeg_of_profiles, jpeg_of_padding, jpeg_of_tables),
        *(jpeg_progressive, jpeg_of_four_colours),
        *(png_of_profiles, png_of_texts, png_of_packed_texts, png_of_nothing, png_of_unknown, png_of_frames),
        *(png_transparent, png_of_palette, png_of_16_bits, png_bomb),
        *(gif_of_comments, gif_of_extensions, gif_of_frames, gif_of_large_frames, gif_transparent),
        *(bmp_of_nothing, webp_transparent),
    )
}
