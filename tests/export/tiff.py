"""TIFFs that Pillow cannot write: of any depth and photometric interpretation, without compression."""

import struct
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

_SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}


def write_tiff(
    samples: NDArray[Any],
    *,
    photometric: int = 1,
    bits: int | None = None,
    width: int | None = None,
    extra_sample: int | None = None,
    order: str = "<",
    more: Mapping[int, int] | None = None,
) -> bytes:
    """Write `[height, width]` or `[height, width, channels]` (TIFF 6.0, section 2).

    Args:
        samples: their values, or packed bytes where `bits` and `width` are given.
        photometric: 0 is grey whose white is zero, 1 grey whose black is zero, 2 RGB.
        bits: of a sample.
        width: in pixels.
        extra_sample: 1 is alpha that the others are multiplied by, 2 is alpha on its own.
        order: of the bytes, `<` or `>`.
        more: further tags.
    """
    channels = samples.shape[2] if samples.ndim == 3 else 1
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    depth = bits or samples.dtype.itemsize * 8
    tags: dict[int, list[int]] = {
        256: [width or samples.shape[1]],
        257: [samples.shape[0]],
        258: [depth] * channels,
        259: [1],
        262: [photometric],
        273: [8],
        277: [channels],
        278: [samples.shape[0]],
        279: [len(data)],
        339: [_SAMPLE_FORMATS[samples.dtype.kind]] * channels,
        **({338: [extra_sample]} if extra_sample is not None else {}),
        **{tag: [value] for tag, value in (more or {}).items()},
    }
    data += bytes(len(data) % 2)
    directory, overflow = b"", b""
    overflow_start = 8 + len(data) + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        kind, layout = (3, "H") if len(values) > 1 or values[0] < 65536 else (4, "I")
        packed = struct.pack(order + layout * len(values), *values)
        if len(packed) > 4:
            packed, overflow = struct.pack(order + "I", overflow_start + len(overflow)), overflow + packed
        directory += struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    return head + data + struct.pack(order + "H", len(tags)) + directory + bytes(4) + overflow
