"""Which candidates become examples, and in which split: none that is there twice, and each split has some.

Splits that judge come last in `SPLITS`: of two copies the one that judges more is kept.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.artifacts.examples import SPLITS, Exclusion
from components.data import duplicates
from components.data.candidates import Candidates
from components.data.examination import Candidate

Rows = NDArray[np.intp]
"""Row numbers in a table of candidates."""


def drop_exact_duplicates(candidates: Candidates, rows: Rows) -> tuple[Rows, list[Exclusion]]:
    """Keep one of each file, in the split that judges most; drop every copy of a file that has two labels.

    Args:
        candidates: the table. Of a copy that was added and one of the source the latter is kept.
        rows: ascending.

    Returns:
        The rows that are kept, each where the first copy of its file was.
    """
    ordered = candidates.order(rows)
    are_same = np.concatenate([[False], candidates.are_same_file(ordered), [False]])
    starts, ends = np.flatnonzero(are_same[1:] & ~are_same[:-1]), np.flatnonzero(are_same[:-1] & ~are_same[1:])
    kept, is_kept = rows.copy(), np.ones(len(rows), bool)
    excluded: list[Exclusion] = []
    for start, end in sorted(zip(starts.tolist(), ends.tolist(), strict=True), key=lambda run: ordered[run[0]]):
        group = [(row, candidates.read(row)) for row in ordered[start : end + 1].tolist()]
        positions = np.searchsorted(rows, ordered[start : end + 1])
        is_kept[positions] = False
        if len({c.label for _, c in group}) > 1:
            names = ", ".join(c.name for _, c in group)
            reason = f"the same file under two labels: {names}"
            excluded += [_exclude(c, "conflicting_label", reason) for _, c in group]
            continue
        group.sort(key=lambda each: (-SPLITS.index(each[1].split), candidates.are_added[each[0]], each[1].name))
        (first_row, first), *others = group
        kept[positions[0]], is_kept[positions[0]] = first_row, True
        excluded += [_exclude(c, "duplicate", f"the same file as {first.name}") for _, c in others]
    return kept[is_kept], excluded


def carve_splits(candidates: Candidates, rows: Rows, fractions: Mapping[str, float]) -> None:
    """Take splits out of `train`, class by class, by the hash of the content.

    Each class gives at least one photo to each split. A photo keeps its split when others are added, but in a class so
    small that a split has the one photo it must have: that one may be replaced by a new photo. Then it goes on to
    validation or train, so no photo that was ever trained on comes to validate or to test. Photos that were added stay
    in `train`: they were chosen, and would judge a model by others than it gets.

    Args:
        candidates: the table, whose splits are changed.
        rows: no file twice.
        fractions: the splits to take, each with its share of the photos.
    """
    splits, labels = candidates.splits, candidates.labels
    movable = rows[(splits[rows] == SPLITS.index("train")) & ~candidates.are_added[rows]]
    ordered = candidates.order(movable, labels)
    for group in np.split(ordered, np.flatnonzero(np.diff(labels[ordered])) + 1):
        shares, is_left, limit = candidates.shares(group), np.ones(len(group), bool), 0.0
        for split, fraction in fractions.items():
            limit += fraction
            below = np.flatnonzero(is_left & (shares < limit))
            taken = below if len(below) else np.flatnonzero(is_left)[:1]
            is_left[taken] = False
            splits[group[taken]] = SPLITS.index(split)


class NearDuplicates(NamedTuple):
    """The rows left without look-alikes; `conflicts` are photos of train that stay, and look like another class."""

    kept: Rows
    excluded: list[Exclusion]
    conflicts: list[Exclusion]


def drop_near_duplicates(candidates: Candidates, rows: Rows, *, max_bits: int) -> NearDuplicates:
    """Drop photos that look the same as others, so that no two splits share a look-alike.

    Of a pair in two splits the one is dropped that judges less: train, then validation. A pair with two labels judges
    nothing, so whichever of it is in validation or test is dropped; in train both stay.

    Args:
        candidates: the table.
        rows: at least one.
        max_bits: photos whose hashes differ in at most so many bits, 1 to 3, and of about the same colour, look the
            same; with 0 nothing is compared.
    """
    if not max_bits:
        return NearDuplicates(rows, [], [])
    looks, labels, ranks = candidates.looks(rows), candidates.labels[rows], candidates.splits[rows]

    def read(position: int) -> Candidate:
        return candidates.read(int(rows[position]))

    others = duplicates.find_conflicts(looks, labels, ranks, max_bits=max_bits)
    conflicting = {
        position: _exclude(
            read(position), "conflicting_label", f"looks the same as {read(other).name}, of another class"
        )
        for position, other in sorted(others.items())
    }
    is_left = np.ones(len(rows), bool)
    is_left[[position for position in conflicting if ranks[position] > 0]] = False
    left = np.flatnonzero(is_left)
    winners = duplicates.find_shadowed(looks.take(left), ranks[left], max_bits=max_bits)
    excluded = [exclusion for position, exclusion in conflicting.items() if ranks[position] > 0]
    for loser, winner in sorted(winners.items()):
        first = read(left[winner])
        excluded.append(
            _exclude(read(left[loser]), "near_duplicate", f"looks the same as {first.name} in {first.split}")
        )
    is_left[left[list(winners)]] = False
    conflicts = [exclusion for position, exclusion in conflicting.items() if is_left[position]]
    return NearDuplicates(rows[is_left], excluded, conflicts)


def _exclude(candidate: Candidate, rule: str, reason: str) -> Exclusion:
    return Exclusion(file=candidate.name, split=candidate.split, rule=rule, reason=reason)
