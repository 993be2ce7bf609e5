"""Images that cost far more than they should, each made by code: small files that keep a decoder busy, or fill memory.

`CORPUS` has a function for each; what an entrance does with them is tested beside that entrance.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterable
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


def webp_large() -> bytes:
    """Return a WebP with transparency of 16 megapixels, the most that is allowed."""
    return _encode("RGBA", "WEBP", side_px=4000, lossless=True)


def webp_of_chunks(num_chunks: int = 1_000_000) -> bytes:
    """Return a WebP with very many empty chunks before its image."""
    image = _encode("RGB", "WEBP", side_px=64, lossless=True)[12:]
    head = struct.pack("<4sIB3x", b"VP8X", 10, 0) + bytes([63, 0, 0, 63, 0, 0])
    chunks = head + b"none\0\0\0\0" * num_chunks + image
    return struct.pack("<4sI4s", b"RIFF", len(chunks) + 4, b"WEBP") + chunks


def webp_of_frames(num_frames: int = 1_000_000) -> bytes:
    """Return an animation of very many frames of one pixel."""
    frame = bytes(16) + _encode("RGB", "WEBP", side_px=1, lossless=True)[12:]
    frames = struct.pack("<4sI", b"ANMF", len(frame)) + frame
    head = struct.pack("<4sIB3x", b"VP8X", 10, 2) + bytes(6) + struct.pack("<4sI6x", b"ANIM", 6)
    return (
        struct.pack("<4sI4s", b"RIFF", len(head) + len(frames) * num_frames + 4, b"WEBP") + head + frames * num_frames
    )


def jp2_large() -> bytes:
    """Return a JPEG 2000 with transparency of nearly 12.5 megapixels, the most that is allowed."""
    return _encode("RGBA", "JPEG2000", side_px=3500)


def jp2_of_blocks() -> bytes:
    """Return a JPEG 2000 in blocks of 4 × 4: each has a head of its own in memory."""
    jp2 = _encode("RGB", "JPEG2000", side_px=3500)
    exponents = jp2.index(b"\xff\x52") + 10  # Written into the head: encoding them takes half a minute.
    return jp2[:exponents] + b"\0\0" + jp2[exponents + 2 :]


def jp2_of_tiles() -> bytes:
    """Return a JPEG 2000 in tiles of 16 × 16."""
    return _encode("L", "JPEG2000", side_px=1200, tile_size=(16, 16))


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, name) + content


def jp2_of_boxes(num_boxes: int = 1_200_000) -> bytes:
    """Return a JPEG 2000 whose head holds very many empty boxes."""
    jp2 = _encode("L", "JPEG2000", side_px=64)
    start = jp2.index(b"jp2h") - 4
    end = start + int.from_bytes(jp2[start : start + 4], "big")
    return jp2[:start] + _box(b"jp2h", jp2[start + 8 : end] + _box(b"free", b"") * num_boxes) + jp2[end:]


def avif_large() -> bytes:
    """Return an AVIF with transparency of nearly 12.5 megapixels, the most that is allowed."""
    return _encode("RGBA", "AVIF", side_px=3500, speed=10, subsampling="4:4:4")


def _directory(entries: Iterable[tuple[int, int, int, int]]) -> bytes:
    packed = [struct.pack("<HHII", *entry) for entry in entries]
    return struct.pack("<H", len(packed)) + b"".join(packed) + bytes(4)


def _tiff(width: int, height: int, *more: tuple[int, int, int, int], data: bytes = b"", tiled: bool = False) -> bytes:
    """Return an uncompressed TIFF of grey with further entries; its data begins at byte 8."""
    base = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    strips = [] if tiled else [(273, 4, 1, 8), (278, 4, 1, height), (279, 4, 1, width * height)]
    entries = sorted([*base, *strips, *more])
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + _directory(entries)


def tiff_of_shared_data(num_entries: int = 500) -> bytes:
    """Return a TIFF whose entries all name the same megabyte: each has a copy of its own in memory."""
    data = bytes(1_000_000)
    return _tiff(8, 8, *((40_000 + number, 7, len(data), 8) for number in range(num_entries)), data=data)


def tiff_of_entries() -> bytes:
    """Return a TIFF with as many entries as a directory can have."""
    return _tiff(8, 8, *((40_000, 3, 1, 0) for _ in range(65_000)), data=bytes(64))


def tiff_of_tiles(num_tiles: int = 1_000_000) -> bytes:
    """Return a TIFF of tiles of one pixel."""
    data = struct.pack("<I", 8) * num_tiles
    tiles = [(322, 4, 1, 1), (323, 4, 1, 1), (324, 4, num_tiles, 8), (325, 4, num_tiles, 8)]
    return _tiff(1000, num_tiles // 1000, *tiles, data=data, tiled=True)


def tiff_of_large_tiles() -> bytes:
    """Return a narrow TIFF of tiles as large as an image may be, of which a sixteenth is seen."""
    tile = zlib.compress(bytes(4992 * 4992), 9)
    data = tile + struct.pack("<I", 8) * 320 + struct.pack("<I", len(tile)) * 320
    at = 8 + len(tile)
    tiles = [(322, 4, 1, 4992), (323, 4, 1, 4992), (324, 4, 320, at), (325, 4, 320, at + 4 * 320)]
    tiff = _tiff(16, 1_500_000, *tiles, data=data, tiled=True)
    return tiff.replace(struct.pack("<HHII", 259, 3, 1, 1), struct.pack("<HHII", 259, 3, 1, 8))  # Deflate.


def jpeg_of_exif_of_shared_data(num_entries: int = 5000) -> bytes:
    """Return a JPEG whose Exif has thousands of entries that all name the same 60 KB."""
    directory = _directory((0x9000 + number, 7, 60_000, 0) for number in range(num_entries))
    jpeg = _encode("RGB", "JPEG", side_px=64)
    # Without the JFIF segment, which holds the resolution, it is looked for in Exif.
    return _after_start(jpeg[:2] + jpeg[20:], _segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + directory))


def jpeg_of_exif_headers() -> bytes:
    """Return a JPEG whose Exif is nothing but headers of Exif, taken off one by one."""
    jpeg = _encode("RGB", "JPEG", side_px=64)
    return _after_start(jpeg[:2] + jpeg[20:], _segment(0xE1, b"Exif\0\0" * 10_000) * 30)


def jpeg_of_padding_in_its_scan(num_bytes: int = 10_000_000) -> bytes:
    """Return a JPEG with fill bytes among its pixels."""
    jpeg = _encode("RGB", "JPEG", side_px=2000)
    return jpeg[:-2000] + b"\xff" * num_bytes + jpeg[-2:]


def ppm_of_blanks(num_bytes: int = 20_000_000) -> bytes:
    """Return a PPM with very many blanks in its head."""
    return b"P6\n" + b" " * num_bytes + b"8 8\n255\n" + bytes(192)


def ppm_of_comments(num_comments: int = 1_000_000) -> bytes:
    """Return a PPM as text with very many comments among its pixels."""
    return b"P2\n800 800\n255\n" + b"#\n" * num_comments + b"0 " * 640_000


def ppm_as_text() -> bytes:
    """Return 25 megapixels as text."""
    return b"P2\n5000 5000\n255\n" + b"0 " * 25_000_000


def ppm_of_200_levels() -> bytes:
    """Return 25 megapixels of which 200 is the largest value: each is scaled on its own."""
    return b"P5\n5000 5000\n200\n" + bytes(25_000_000)


def bmp_of_runs() -> bytes:
    """Return a run-length encoded BMP of 25 megapixels in runs of one."""
    palette, data = bytes(1024), b"\1\1" * 10_000_000
    head = struct.pack("<IiiHHIIiiII", 40, _SIDE_PX, _SIDE_PX, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(data), 0, 0, 54 + 1024) + head + palette + data


CORPUS: dict[str, Callable[[], bytes]] = {
    make.__name__: make
    for make in (
        *(jpeg_of_scans, jpeg_of_exif, jpeg_of_comments, jpeg_of_profiles, jpeg_of_padding, jpeg_of_tables),
        *(jpeg_progressive, jpeg_of_four_colours),
        *(png_of_profiles, png_of_texts, png_of_packed_texts, png_of_nothing, png_of_unknown, png_of_frames),
        *(png_transparent, png_of_palette, png_of_16_bits, png_bomb),
        *(gif_of_comments, gif_of_extensions, gif_of_frames, gif_of_large_frames, gif_transparent),
        *(bmp_of_nothing, bmp_of_runs, webp_transparent, webp_large, webp_of_chunks, webp_of_frames, avif_large),
        *(jp2_large, jp2_of_blocks, jp2_of_tiles, jp2_of_boxes),
        *(tiff_of_shared_data, tiff_of_entries, tiff_of_tiles, tiff_of_large_tiles),
        *(jpeg_of_exif_of_shared_data, jpeg_of_exif_headers, jpeg_of_padding_in_its_scan),
        *(ppm_of_blanks, ppm_of_comments, ppm_as_text, ppm_of_200_levels),
    )
}
