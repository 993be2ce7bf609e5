"""The boxes and the markers of a JPEG 2000 (ISO 15444-1, annexes A and I), walked without decoding anything."""

import re
import struct

MAX_BOXES = 1_000
"""Usual files have ten."""

MAX_TILES = 4_096
"""Each costs 8 KB, and there may be 65,535."""

MAX_CODE_BLOCKS = 80_000
"""12 megapixels of RGB in blocks of 32 × 32 are 50,000. Each costs 0.3 KB: those of 4 × 4 took 1.2 GB."""

MAX_MARKERS = 20_000
"""Of the codestream, its tile parts among them."""

MAX_PALETTE_BYTES = 64_000
"""Of the palette, which is read number by number."""


def find_excess(jp2: bytes) -> str | None:
    """Return what a JPEG 2000, in boxes or a bare codestream, has too much of; None of a sound one."""
    waiting = [(0, len(jp2))] if jp2.startswith(b"\0\0\0\x0c") else []
    num_boxes = 0
    while waiting:
        position, end = waiting.pop()
        while position + 8 <= end:
            length, name = struct.unpack_from(">I4s", jp2, position)
            begin = position + 8
            if length == 1:
                length, begin = int.from_bytes(jp2[position + 8 : position + 16], "big"), position + 16
            box_end = min(position + length, end) if length else end
            num_boxes += 1
            if num_boxes > MAX_BOXES:
                return f"at most {MAX_BOXES:,} boxes"
            if name == b"pclr" and box_end - begin > MAX_PALETTE_BYTES:
                return f"at most {MAX_PALETTE_BYTES:,} bytes of a palette"
            if name in (b"jp2h", b"res "):
                waiting.append((begin, box_end))
            position = max(box_end, begin)
    return _check_codestream(jp2)


_SIZ = re.compile(rb"\xff\x4f\xff\x51.{36}", re.DOTALL)
_COD, _COC, _SOT, _SOD = 0xFF52, 0xFF53, 0xFF90, 0xFF93


def _check_codestream(jp2: bytes) -> str | None:
    found = _SIZ.search(jp2)
    if not found:
        return None
    length, _, right, bottom, left, top, width, height, _, _, num_components = struct.unpack_from(
        ">HH8IH", jp2, found.start() + 4
    )
    image_width, image_height = right - left, bottom - top
    num_tiles = -(-image_width // max(width, 1)) * -(-image_height // max(height, 1))
    if num_tiles > MAX_TILES:
        return f"at most {MAX_TILES:,} tiles"
    position, tile_end = found.start() + 4 + length, 0
    for _ in range(MAX_MARKERS):
        if position + 4 > len(jp2):
            return None
        marker, length = struct.unpack_from(">HH", jp2, position)
        if marker == _SOT:
            part = int.from_bytes(jp2[position + 6 : position + 10], "big")
            tile_end = position + part if part else len(jp2)
        elif marker == _SOD:
            position = max(tile_end, position + 2)
            continue
        elif marker in (_COD, _COC):
            # What stands before the levels: a style and four bytes of order and layers, or a component and a style.
            num_before = 5 if marker == _COD else 2 if num_components < 257 else 3
            style = jp2[position + 4 + (0 if marker == _COD else num_before - 1)]
            block = jp2[position + 4 + num_before : position + 2 + length]
            num_blocks = _count_blocks(block, image_width, image_height, has_precincts=bool(style & 1))
            if num_blocks * num_components > MAX_CODE_BLOCKS:
                return f"at most {MAX_CODE_BLOCKS:,} code-blocks"
        elif marker < 0xFF00:
            return None
        position += 2 + length
    return f"at most {MAX_MARKERS:,} markers"


def _count_blocks(style: bytes, width: int, height: int, *, has_precincts: bool) -> int:
    """Return about how many code-blocks an image is coded in (ISO 15444-1, A.6.1 and B.7)."""
    if len(style) < 5:
        return 0
    num_levels, *exponents = style[:3]
    num_blocks = 0
    for level in range(min(num_levels, 32) + 1):
        precinct = style[5 + level] if has_precincts and 5 + level < len(style) else 0xFF
        across, down = (
            1 << min((exponent & 0xF) + 2, max(limit - (level > 0), 0))
            for exponent, limit in zip(exponents, (precinct & 0xF, precinct >> 4), strict=True)
        )
        shift = num_levels - level
        num_blocks += ((width >> shift) // across + 1) * ((height >> shift) // down + 1)
    return num_blocks
