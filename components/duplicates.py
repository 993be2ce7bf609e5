"""Find photos that are the same picture, so that none is learned from and tested on.

A photo's fingerprint is its difference hash: 128 bits that say, for a tiny grey copy, where brightness rises to the
right and where it rises downwards. Scaling, recompression and small changes of tone flip few of them (N. Krawetz,
"Kind of Like That", 2013).
"""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

GRID = 8
"""The tiny copy has 9 × 9 grey values, whose neighbours are compared over 8 × 8 places in both directions."""

_NUM_BANDS = 4


def difference_hash(grey: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Hash `uint8 [9, 9]` grey values to `uint32 [4]`, 128 bits."""
    grey = grey.astype(np.int16)
    rises = np.stack([grey[:GRID, 1:] > grey[:GRID, :GRID], grey[1:, :GRID] > grey[:GRID, :GRID]])
    return np.packbits(rises).view(np.uint32)


def near_pairs(hashes: NDArray[np.uint32], *, max_bits: int) -> Iterator[tuple[int, int]]:
    """Give the pairs of rows of `uint32 [N, 4]` that differ in at most `max_bits` bits.

    Two hashes that differ in fewer bits than there are bands agree in a whole band, so only rows that share a band
    are compared: linear in N where few photos are alike. Hence `max_bits` is at most 3.
    """
    if not 0 <= max_bits < _NUM_BANDS:
        raise ValueError(f"max_bits must be 0 to {_NUM_BANDS - 1}. Received: {max_bits}")
    seen: set[tuple[int, int]] = set()
    for band in range(_NUM_BANDS):
        buckets: dict[int, list[int]] = defaultdict(list)
        for row, value in enumerate(hashes[:, band].tolist()):
            for other in buckets[value]:
                if (other, row) not in seen and _distance(hashes[other], hashes[row]) <= max_bits:
                    seen.add((other, row))
                    yield other, row
            buckets[value].append(row)


def _distance(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> int:
    return int(np.unpackbits((one ^ other).view(np.uint8)).sum())
