"""Find photos that look the same, so that none is learned from and tested on.

A photo's fingerprint is its difference hash: 128 bits that say, for a tiny grey copy, where brightness rises to the
right and where it rises downwards. Scaling, recompression and small changes of tone flip few of them (N. Krawetz,
"Kind of Like That", 2013).
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

GRID = 8
"""The tiny copy has 9 × 9 grey values, whose neighbours are compared at 8 × 8 positions in both directions."""

_NUM_BANDS = 4


def difference_hash(grey: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Hash `uint8 [9, 9]` grey values to `uint32 [4]`, 128 bits.

    >>> brighter_to_the_right = np.tile(np.arange(9, dtype=np.uint8), (9, 1))
    >>> difference_hash(brighter_to_the_right)
    array([4294967295, 4294967295,          0,          0], dtype=uint32)
    """
    grey = grey.astype(np.int16)
    rises = np.stack([grey[:GRID, 1:] > grey[:GRID, :GRID], grey[1:, :GRID] > grey[:GRID, :GRID]])
    return np.packbits(rises).view(np.uint32)


def find_shadowed(hashes: NDArray[np.uint32], ranks: NDArray[np.intp], *, max_bits: int) -> dict[int, int]:
    """Find the rows that look the same as one of a higher rank.

    Args:
        hashes: `uint32 [N, 4]`.
        ranks: `[N]`.
        max_bits: hashes that differ in at most so many bits, 0 to 3, look the same.

    Returns:
        Each such row, with a row of a higher rank that it looks like.
    """
    # Rows of one hash and rank have one result, so the first stands for all: many plain images cost no more than
    # others do.
    _, firsts, groups = np.unique(
        np.column_stack([hashes, ranks.astype(np.uint32)]), axis=0, return_index=True, return_inverse=True
    )
    chosen = np.sort(firsts)
    winners: dict[int, int] = {}
    for pair in chosen[find_near_pairs(hashes[chosen], max_bits=max_bits)].tolist():
        lower, upper = sorted(pair, key=ranks.__getitem__)
        if ranks[lower] < ranks[upper]:
            winners.setdefault(lower, upper)
    return {row: winners[first] for row, first in enumerate(firsts[groups].tolist()) if first in winners}


def find_near_pairs(hashes: NDArray[np.uint32], *, max_bits: int) -> NDArray[np.intp]:
    """Find the pairs of rows of `uint32 [N, 4]` that differ in at most `max_bits` bits: `[P, 2]`, the lower row first.

    Two hashes that differ in m bits agree in all but m of their four bands, so only rows that agree in so many are
    compared: linear in N where few photos are alike. Hence `max_bits` is at most 3, and one band of four tells little:
    photos with a white sky share it. Pairs that agree in an earlier band come first.

    >>> hashes = np.array([[0b1111, 0, 0, 0], [0, 0, 0, 0], [0b0111, 0, 0, 0]], np.uint32)
    >>> find_near_pairs(hashes, max_bits=3)
    array([[0, 2],
           [1, 2]])
    """
    if not 0 <= max_bits < _NUM_BANDS:
        raise ValueError(f"max_bits must be 0 to {_NUM_BANDS - 1}. Received: {max_bits}")
    found = [np.empty((0, 2), np.intp)]
    for bands in combinations(range(_NUM_BANDS), _NUM_BANDS - max_bits):
        order = np.lexsort(hashes[:, bands].T)
        ordered = hashes[order][:, bands]
        run = np.concatenate([[0], np.cumsum((ordered[1:] != ordered[:-1]).any(axis=1))])
        positions, step = np.arange(len(run)), 0
        while len(positions):  # those of a run are compared with the next one, the one after that, and so on
            step += 1
            positions = positions[: np.searchsorted(positions, len(run) - step)]
            positions = positions[run[positions] == run[positions + step]]
            pairs = np.column_stack([order[positions], order[positions + step]])
            distances = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]).sum(axis=1)
            found.append(np.sort(pairs[distances <= max_bits], axis=1))
    unique = np.unique(np.concatenate(found), axis=0)
    first_band = (hashes[unique[:, 0]] == hashes[unique[:, 1]]).argmax(axis=1)
    return unique[np.lexsort((unique[:, 0], unique[:, 1], first_band))]
