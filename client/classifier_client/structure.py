"""Refuse an image whose structure is absurd, before Pillow reads it: it would take minutes, or gigabytes.

The blocks that a file is made of are walked, a bounded number of them, and nothing is decoded. Every limit is far
beyond what cameras and programs write, and stands with what the decoder does without it. Metadata is not left out
instead: what is sent and kept is the file as it came.
"""

import re
import struct
from collections.abc import Callable

from . import directories, jpeg2000, segments
from .errors import ImageError

MAX_CHUNKS = 100_000
"""Chunks of a PNG's pixels. 80 MB in 8 KB each, as is usual, are 10,000; each costs Pillow 1 µs."""

MAX_METADATA_CHUNKS = 256
"""All other chunks of a PNG. Each may unpack to a megabyte, in 2 ms: 8,000 colour profiles took 15 s."""

MAX_METADATA_BYTES = 32_000_000
"""Of those chunks together: Pillow holds them twice."""

MAX_COMMENT_BLOCKS = 1_000
"""Blocks of a GIF's comments, of up to 255 bytes. Pillow copies all before at each: 10 MB took 40 s."""

MAX_BLOCKS = 100_000
"""Blocks before a GIF's first frame, or bytes that are in none. A megabyte of XMP is 13,000 of them."""

MAX_HEAD_BYTES = 64_000
"""Of a PPM's head, whose comments and blanks are read one by one: 20 MB took 4 s."""

MAX_PPM_COMMENTS = 1_000
"""In a PPM as text. Pillow copies a megabyte at each."""

MAX_EXIF = 16
"""Of an AVIF, which has one; four bytes look like its begin by chance."""

MAX_RLE_BYTES = 3
"""Bytes a pixel of a run-length encoded BMP: it needs 2 at most. Pillow decodes it in Python, at 0.2 µs a byte."""

_GIF_FRAME_PIXELS = 2_500
"""What a frame costs besides its pixels, in pixels: 0.1 ms."""

_GIF_BLOCKS = 500_000
"""Of all frames: 80 MB in blocks of 255 bytes are 300,000."""

_Check = Callable[[bytes], str | None]


def check(encoded: bytes, name: str) -> None:
    """Check that an encoded image is not made to be slow, in far less time than it takes to decode.

    Raises:
        ImageError: its structure is absurd; the code is `too_complex`.
    """
    for begin, kind, find_excess in _KINDS:
        if begin.match(encoded):
            if rule := find_excess(encoded):
                reason = f"too complex: a {kind} may have {rule}, and this one has more; save it anew as a JPEG or PNG"
                raise ImageError(name, reason, code="too_complex")
            return


def _check_png(png: bytes) -> str | None:
    position, num_data, num_others, num_bytes = 8, 0, 0, 0
    while position + 8 <= len(png):
        length, name = struct.unpack_from(">I4s", png, position)
        if name == b"IEND":
            return None
        if name in (b"IDAT", b"fdAT", b"fcTL"):
            num_data += 1
            if num_data > MAX_CHUNKS:
                return f"at most {MAX_CHUNKS:,} chunks"
        else:
            num_others += 1
            num_bytes += length
            if num_others > MAX_METADATA_CHUNKS:
                return f"at most {MAX_METADATA_CHUNKS} chunks besides its pixels"
            if MAX_METADATA_BYTES < num_bytes <= len(png):
                return f"at most {MAX_METADATA_BYTES / 1e6:.0f} MB besides its pixels"
        position += 12 + length
    return None


_GIF_BLOCK = re.compile(rb"[!,;]")


def _check_gif(gif: bytes) -> str | None:
    """Walk a GIF to its first frame: what comes after is not read."""
    num_blocks, num_comment_blocks, position = 0, 0, _first_gif_block(gif)
    while found := _GIF_BLOCK.search(gif, position):
        num_blocks += 1 + found.start() - position
        if num_blocks > MAX_BLOCKS:
            return f"at most {MAX_BLOCKS:,} blocks before its first frame"
        if found.group() != b"!":
            return None
        label, position = gif[found.end() : found.end() + 1], found.end() + 1
        while size := gif[position] if position < len(gif) else 0:
            position += 1 + size
            num_blocks += 1
            num_comment_blocks += label == b"\xfe"
            if num_comment_blocks > MAX_COMMENT_BLOCKS:
                return f"at most {MAX_COMMENT_BLOCKS:,} blocks of comments"
            if num_blocks > MAX_BLOCKS:
                return f"at most {MAX_BLOCKS:,} blocks before its first frame"
        position += 1
    return None


def count_gif_pixels(gif: bytes, *, most: int) -> int:
    """Return the number of pixels of all frames of a GIF, or a number above `most` as soon as it is reached.

    TensorFlow's own decoder reads them all, also where only the first is wanted.
    """
    num_pixels, num_blocks, position = 0, 0, _first_gif_block(gif)
    while (found := _GIF_BLOCK.search(gif, position)) and found.group() != b";" and num_pixels <= most:
        position = found.end() + 1
        if found.group() == b",":
            frame = gif[found.end() : found.end() + 9]
            if len(frame) < 9:
                break
            width, height = struct.unpack_from("<HH", frame, 4)
            num_pixels += width * height + _GIF_FRAME_PIXELS
            position = found.end() + 10 + _palette_bytes(frame[8])
        while size := gif[position] if position < len(gif) else 0:
            position += 1 + size
            num_blocks += 1
            if num_blocks > _GIF_BLOCKS:
                return most + 1
        position += 1
    return num_pixels


def _first_gif_block(gif: bytes) -> int:
    """Return where the blocks begin, after the screen's head and its palette (GIF89a, 15–26)."""
    return 13 + _palette_bytes(gif[10] if len(gif) > 10 else 0)


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


_PPM_COMMENT = re.compile(rb"#[^\r\n]*[\r\n]?")


def _check_ppm(ppm: bytes) -> str | None:
    num_fields = 3 if ppm[1:2] in b"14" else 4
    head = _PPM_COMMENT.sub(b"", ppm[:MAX_HEAD_BYTES])
    if len(ppm) > MAX_HEAD_BYTES and len(head.split(None, num_fields)) < num_fields:
        return f"at most {MAX_HEAD_BYTES:,} bytes in its head"
    if ppm[1:2] in b"123" and ppm.count(b"#") > MAX_PPM_COMMENTS:
        return f"at most {MAX_PPM_COMMENTS:,} comments"
    return None


def _check_bmp(bmp: bytes) -> str | None:
    if len(bmp) < 34:
        return None
    width, height, _, _, compression = struct.unpack_from("<iiHHI", bmp, 18)
    if compression in (1, 2) and len(bmp) > abs(width * height) * MAX_RLE_BYTES + MAX_HEAD_BYTES:
        return f"at most {MAX_RLE_BYTES} bytes a pixel"
    return None


_TIFF_HEADER = re.compile(rb"II\*\0|MM\0\*")


def _check_avif(avif: bytes) -> str | None:
    """Check what looks like Exif, wherever it is: Pillow parses it."""
    if b"Exif\0\0" * (directories.MAX_HEADERS + 1) in avif:
        return f"at most {directories.MAX_HEADERS} headers of Exif"
    for number, found in enumerate(_TIFF_HEADER.finditer(avif)):
        if number == MAX_EXIF:
            return f"at most {MAX_EXIF} blocks of Exif"
        if rule := directories.find_excess(avif, found.start()):
            return rule
    return None


_KINDS: tuple[tuple[re.Pattern[bytes], str, _Check], ...] = (
    (re.compile(rb"\xff\xd8\xff"), "JPEG", segments.find_excess),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG", _check_png),
    (re.compile(rb"GIF8[79]a"), "GIF", _check_gif),
    (re.compile(rb"BM"), "BMP", _check_bmp),
    (re.compile(rb"P[0-6fy]"), "PPM", _check_ppm),
    (re.compile(rb"II|MM"), "TIFF", directories.find_excess),
    (re.compile(rb"(?s:....)ftyp"), "AVIF", _check_avif),
    (re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  "), "JPEG 2000", jpeg2000.find_excess),
)
