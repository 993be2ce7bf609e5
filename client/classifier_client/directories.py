"""The directories of a TIFF and of Exif, which has the same form (TIFF 6.0, section 2; BigTIFF): walked unread.

Pillow copies the data of every entry, also where thousands of entries name the same data: a file of 8 MB took 3 GB.
"""

import struct

MAX_ENTRIES = 2_000
"""Entries of a directory. Photos have below a hundred; Pillow reads 65,535 of them, up to six times, in 2 s."""

MAX_VALUES = 200_000
"""Numbers in one entry. The strips and tiles of 25 megapixels are at most that many; each costs Pillow 5 µs."""

MAX_BYTES = 32_000_000
"""Of the data of all entries of a directory: Pillow holds it up to three times."""

MAX_HEADERS = 8
"""An Exif header before another. Pillow takes them off one by one, and copies the rest each time."""

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_BYTES = {1, 2, 6, 7}
_HEADER = b"Exif\0\0"
_ORIENTATION = 0x0112  # Exif 2.3, 4.6.4 A
# Exif 2.3, 4.6.3: the directories of Exif, GPS and interoperability, which Pillow reads too.
_POINTERS = {0x8769, 0x8825, 0xA005}


def find_excess_of_exif(exif: bytes) -> str | None:
    """Return what a block of Exif, with its header or without, has too much of; None of a sound one."""
    begin = 0
    while exif.startswith(_HEADER, begin):
        begin += len(_HEADER)
        if begin > MAX_HEADERS * len(_HEADER):
            return f"at most {MAX_HEADERS} headers of Exif"
    return find_excess(exif, begin)


def find_orientation(exif: bytes) -> int | None:
    """Return the orientation that a block of Exif names, 1–8; None where there is none or it is invalid."""
    begin = len(_HEADER) if exif.startswith(_HEADER) else 0
    order = "<" if exif.startswith(b"II", begin) else ">"
    directory = _unpack(order + "I", exif, begin + 4)
    if directory is None:
        return None
    count = _unpack(order + "H", exif, begin + directory) or 0
    first = begin + directory + 2
    for position in range(first, min(first + 12 * min(count, MAX_ENTRIES), len(exif) - 11), 12):
        tag, _, _, value = struct.unpack_from(order + "HHIH", exif, position)
        if tag == _ORIENTATION and 1 <= value <= 8:
            return int(value)
    return None


def find_excess(tiff: bytes, begin: int = 0) -> str | None:
    """Return what a TIFF, which starts at the byte `begin`, has too much of; None of a sound one."""
    order = "<" if tiff.startswith(b"II", begin) else ">"
    is_big = tiff[begin + 2 : begin + 3] == b"\x2b"
    offset, number, entry, inline = ("Q", "Q", "HHQ8s", 8) if is_big else ("I", "H", "HHI4s", 4)
    layout = struct.Struct(order + entry)
    waiting, seen = [_unpack(order + offset, tiff, begin + (8 if is_big else 4))], set[int]()
    while waiting:
        position = waiting.pop()
        if position is None or position in seen:
            continue
        seen.add(position)
        count = _unpack(order + number, tiff, begin + position)
        if count is None:
            continue
        # Entries may share a little data; twice as much as there is, they do not.
        left = min(2 * (len(tiff) - begin), MAX_BYTES)
        first = begin + position + struct.calcsize(order + number)
        count = min(count, max(len(tiff) - first, 0) // layout.size)
        if count > MAX_ENTRIES:
            return f"at most {MAX_ENTRIES:,} entries in a directory"
        for at in range(first, first + count * layout.size, layout.size):
            tag, kind, num_values, data = layout.unpack_from(tiff, at)
            size = num_values * _SIZES.get(kind, 0)
            if kind not in _BYTES and num_values > MAX_VALUES:
                return f"at most {MAX_VALUES:,} values in an entry, or strips or tiles"
            if size > inline:
                (start,) = struct.unpack(order + offset, data)
                if begin + start + size > len(tiff):
                    break  # Pillow reads no more of this directory either.
                left -= size
                if left < 0:
                    return f"at most {MAX_BYTES / 1e6:.0f} MB in a directory, and not the same data again and again"
            elif tag in _POINTERS:
                waiting.append(_unpack(order + offset, data.ljust(8, b"\0"), 0))
    return None


def _unpack(layout: str, data: bytes, position: int) -> int | None:
    try:
        value: int = struct.unpack_from(layout, data, position)[0]
    except struct.error:
        return None
    return value
