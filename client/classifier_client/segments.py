"""The segments of a JPEG (ITU-T T.81, B.1), walked without decoding anything."""

import re
from collections.abc import Iterator

from . import directories

MAX_SEGMENTS = 2_000
"""Segments before the pixels, and all those after. A photo has below 50, one of 80 MB of XMP 1,250; each costs Pillow
1–2 µs, and 0.1 KB."""

MAX_EXIF_SEGMENTS = 32
"""Exif has one segment, seldom two. Pillow copies all before at each: ten thousand tiny ones took 14 s."""

MAX_PHOTOSHOP_SEGMENTS = 128
"""8 MB of Photoshop's resources. Each of them may hold 5,000, read one by one."""

MAX_METADATA_BYTES = 32_000_000
"""Of all segments before the pixels: Pillow holds them twice."""

MAX_SCANS = 80
"""Scans of one component; one of several counts as several. Encoders write 14. Every scan goes over the whole image: 16
ms at 25 megapixels, and a file of 160 KB had 1,500."""

MAX_FILL_BYTES = 64_000
"""Bytes that are in no segment, and those that fill the room between two, which are read one by one."""

# In a scan a 0xFF of the data is followed by 0, and D0–D7 are restarts. More than 15 fill bytes are a match of their
# own, so that the search takes no time that grows with the square of their number.
_MARKER = re.compile(rb"\xff(?:[^\x00\xff\xd0-\xd7]|\xff{15})", re.DOTALL)
_FILL = re.compile(rb"\xff+")
_START, _END, _SCAN, _APP1, _APP13 = 0xD8, 0xD9, 0xDA, 0xE1, 0xED
_FIRST_WITH_LENGTH = 0xC0


def find_excess(jpeg: bytes) -> str | None:
    """Return what a JPEG has too much of; None of a sound one."""
    num_segments = num_scans = num_fill = num_bytes = num_photoshop = 0
    exif: list[bytes] = []
    for marker, start, end, num_before in _walk(jpeg):
        num_segments += 1
        if marker == _SCAN:
            num_scans += max(int.from_bytes(jpeg[start + 4 : start + 5], "big"), 1)
        num_fill += num_before
        if num_segments > MAX_SEGMENTS:
            return f"at most {MAX_SEGMENTS:,} segments"
        if num_scans > MAX_SCANS:
            return f"at most {MAX_SCANS} scans of a component"
        if num_fill > MAX_FILL_BYTES:
            return f"at most {MAX_FILL_BYTES:,} bytes outside of its segments"
        if num_scans:
            continue
        num_bytes += end - start
        num_photoshop += marker == _APP13
        if marker == _APP1 and jpeg.startswith(b"Exif\0\0", start + 4):
            exif.append(jpeg[start + 10 : end])
        if num_bytes > MAX_METADATA_BYTES:
            return f"at most {MAX_METADATA_BYTES / 1e6:.0f} MB before its pixels"
        if len(exif) > MAX_EXIF_SEGMENTS:
            return f"at most {MAX_EXIF_SEGMENTS} segments of Exif"
        if num_photoshop > MAX_PHOTOSHOP_SEGMENTS:
            return f"at most {MAX_PHOTOSHOP_SEGMENTS} segments of Photoshop"
    return directories.find_excess_of_exif(b"".join(exif))


def _walk(jpeg: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield each segment's marker, where it begins and ends, and the number of bytes before it that are in none.

    Long runs of fill bytes have the marker 0xFF. It ends with the first image, as a decoder does.
    """
    position, is_data = 2, False
    while found := _MARKER.search(jpeg, position):
        start, marker = found.start(), jpeg[found.start() + 1]
        num_before = 0 if is_data else start - position
        if marker == 0xFF:
            end = _FILL.match(jpeg, start).end() - 1  # type: ignore[union-attr]
            num_before += end - start
        elif marker < _FIRST_WITH_LENGTH or marker == _START:
            end = start + 2
        elif marker == _END:
            return
        else:
            end = start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big")
            is_data = marker == _SCAN
        yield marker, start, end, num_before
        position = end


def is_in_one_scan(jpeg: bytes) -> bool:
    """Return whether a JPEG holds all of its components in its first scan (ITU-T T.81, B.2).

    Of any other, such as a progressive one, the decoder keeps every coefficient: 6 bytes a pixel at any scale.
    """
    position, num_components = 2, 0
    while position + 10 <= len(jpeg) and jpeg[position] == 0xFF:
        marker = jpeg[position + 1]
        if marker == 0xFF:  # A fill byte.
            position += 1
            continue
        if marker in (0xC0, 0xC1):
            num_components = jpeg[position + 9]
        elif marker == _SCAN:
            return jpeg[position + 4] == num_components
        position += 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
    return False
