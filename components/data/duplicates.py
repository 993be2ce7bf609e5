"""Find photos that look the same, so that none is learned from and tested on.

A photo's fingerprint is its difference hash: 128 bits that say, for a tiny grey copy, where brightness rises to the
right and where it rises downwards. Scaling, recompression and small changes of tone flip few of them (N. Krawetz,
"Kind of Like That", 2013). It knows nothing of colour, and of an image without detail nothing at all: so photos that
look the same have about the same mean colour, too, the nearer the less contrast they have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

GRID = 8
"""The tiny copy has 9 × 9 grey values, whose neighbours are compared at 8 × 8 positions in both directions."""

_NUM_BANDS = 4
_LEVELS_PER_CONTRAST = 64
"""Mean colours may differ by so many of 255 levels, times the contrast: 13 in an ordinary photo, 0 in a plain one."""


@dataclass(frozen=True)
class Looks:
    """What photos look like, a row each: `uint32 [N, 4]` hashes, `int16 [N, 3]` mean RGB, 0–255, and contrasts 0–1."""

    hashes: NDArray[np.uint32]
    colours: NDArray[np.int16]
    contrasts: NDArray[np.float64]

    def take(self, rows: Sequence[int] | NDArray[np.intp]) -> "Looks":
        """Return some of the rows."""
        return Looks(self.hashes[rows], self.colours[rows], self.contrasts[rows])

    def are_near(self, pairs: NDArray[np.intp], max_bits: int) -> NDArray[np.bool_]:
        """Return which pairs of rows `[P, 2]` look the same: `bool [P]`."""
        one, other = pairs[:, 0], pairs[:, 1]
        bits = np.bitwise_count(self.hashes[one] ^ self.hashes[other]).sum(axis=1)
        levels = np.abs(self.colours[one] - self.colours[other]).max(axis=1)
        allowed = _LEVELS_PER_CONTRAST * np.minimum(self.contrasts[one], self.contrasts[other])
        return (bits <= max_bits) & (levels <= allowed)


def difference_hash(grey: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Hash `uint8 [9, 9]` grey values to `uint32 [4]`, 128 bits.

    >>> brighter_to_the_right = np.tile(np.arange(9, dtype=np.uint8), (9, 1))
    >>> difference_hash(brighter_to_the_right)
    array([4294967295, 4294967295,          0,          0], dtype=uint32)
    """
    grey = grey.astype(np.int16)
    rises = np.stack([grey[:GRID, 1:] > grey[:GRID, :GRID], grey[1:, :GRID] > grey[:GRID, :GRID]])
    return np.packbits(rises).view(np.uint32)


def find_shadowed(looks: Looks, ranks: NDArray[np.integer], *, max_bits: int) -> dict[int, int]:
    """Find the rows that look the same as one of a higher rank.

    Args:
        looks: of N photos.
        ranks: `[N]`.
        max_bits: hashes that differ in at most so many bits, 0 to 3, look the same.

    Returns:
        Each such row, with a row of a higher rank that it looks like.
    """
    winners: dict[int, int] = {}
    firsts, groups = _group(looks, ranks)
    for pair in firsts[find_near_pairs(looks.take(firsts), max_bits=max_bits)].tolist():
        lower, upper = sorted(pair, key=ranks.__getitem__)
        if ranks[lower] < ranks[upper]:
            winners.setdefault(lower, upper)
    return _spread(winners, firsts, groups)


def find_conflicts(
    looks: Looks, labels: NDArray[np.integer], ranks: NDArray[np.integer], *, max_bits: int
) -> dict[int, int]:
    """Find the rows that look the same as one with another label: each, with one that it looks like.

    Args:
        looks: of N photos.
        labels: `[N]`.
        ranks: `[N]`.
        max_bits: see `find_shadowed`.
    """
    others: dict[int, int] = {}
    firsts, groups = _group(looks, ranks, labels)
    for one, other in firsts[find_near_pairs(looks.take(firsts), max_bits=max_bits)].tolist():
        if labels[one] != labels[other]:
            others.setdefault(one, other)
            others.setdefault(other, one)
    return _spread(others, firsts, groups)


def _group(looks: Looks, *columns: NDArray[np.integer]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first row of each group of equal rows, in order, and the group of each row.

    They have one result, so the first stands for all: many equal images cost no more than others do.
    """
    contrasts = np.rint(looks.contrasts * 1e4).astype(np.int16)
    keys = [*looks.hashes.T, *looks.colours.T, contrasts, *columns]
    order = np.lexsort(keys)  # equal rows stay in their order
    is_new = np.zeros(len(order), bool)
    is_new[:1] = True
    for key in keys:
        ordered = key[order]
        is_new[1:] |= ordered[1:] != ordered[:-1]
    firsts = order[is_new]
    ranks = np.argsort(np.argsort(firsts))
    groups = np.empty(len(order), np.intp)
    groups[order] = ranks[np.cumsum(is_new) - 1]
    return np.sort(firsts), groups


def _spread(found: dict[int, int], firsts: NDArray[np.intp], groups: NDArray[np.intp]) -> dict[int, int]:
    """Return what was found of the first row of each group for all rows of the group, in their order."""
    rows = np.flatnonzero(np.isin(firsts, list(found))[groups])
    return {row: found[first] for row, first in zip(rows.tolist(), firsts[groups[rows]].tolist(), strict=True)}


def find_near_pairs(looks: Looks, *, max_bits: int) -> NDArray[np.intp]:
    """Find the pairs of rows that look the same, with hashes of at most `max_bits` different bits: `[P, 2]`, in order.

    Two hashes that differ in m bits agree in all but m of their four bands, so only rows that agree in so many are
    compared: linear in N where few photos are alike. Hence `max_bits` is at most 3, and one band of four tells little:
    photos with a white sky share it. Pairs that agree in an earlier band come first.

    >>> hashes = np.array([[0b1111, 0, 0, 0], [0, 0, 0, 0], [0b0111, 0, 0, 0]], np.uint32)
    >>> looks = Looks(hashes, colours=np.zeros((3, 3), np.int16), contrasts=np.ones(3))
    >>> find_near_pairs(looks, max_bits=3)
    array([[0, 2],
           [1, 2]])
    """
    if not 0 <= max_bits < _NUM_BANDS:
        raise ValueError(f"max_bits must be 0 to {_NUM_BANDS - 1}. Received: {max_bits}")
    hashes = looks.hashes
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
            found.append(np.sort(pairs[looks.are_near(pairs, max_bits)], axis=1))
    unique = np.unique(np.concatenate(found), axis=0)
    first_band = (hashes[unique[:, 0]] == hashes[unique[:, 1]]).argmax(axis=1)
    return unique[np.lexsort((unique[:, 0], unique[:, 1], first_band))]
