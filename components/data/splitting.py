"""Which candidates become examples, and in which split: none that is there twice, and each split has some.

Splits that judge come last in `SPLITS`: of two copies the one that judges more is kept.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from components.artifacts.examples import SPLITS, Exclusion
from components.data import duplicates
from components.data.examination import Candidate, describe_looks


def drop_exact_duplicates(
    candidates: Sequence[Candidate], *, added: Collection[str] = ()
) -> tuple[list[Candidate], list[Exclusion]]:
    """Keep one of each file, in the split that judges most; drop every copy of a file that has two labels.

    Args:
        candidates: in any order.
        added: names of photos that are not of the source; of a copy in both the source's is kept.
    """
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        groups[candidate.sha256].append(candidate)
    kept: list[Candidate] = []
    excluded: list[Exclusion] = []
    for group in groups.values():
        if len({c.label for c in group}) > 1:
            names = ", ".join(c.name for c in group)
            excluded += [_exclude(c, "conflicting_label", f"the same file under two labels: {names}") for c in group]
            continue
        first, *others = sorted(group, key=lambda c: (-SPLITS.index(c.split), c.name in added, c.name))
        kept.append(first)
        excluded += [_exclude(c, "duplicate", f"the same file as {first.name}") for c in others]
    return kept, excluded


def carve_splits(
    candidates: Sequence[Candidate], fractions: Mapping[str, float], *, added: Collection[str] = ()
) -> list[Candidate]:
    """Take splits out of `train`, class by class, by the hash of the content.

    Each class gives at least one photo to each split. A photo keeps its split when others are added, but in a class so
    small that a split has the one photo it must have: that one may be replaced by a new photo. Then it goes on to
    validation or train, so no photo that was ever trained on comes to validate or to test.

    Args:
        candidates: no file twice.
        fractions: the splits to take, each with its share of the photos.
        added: names of photos that stay in `train`: they were chosen, and would judge a model by others than it gets.
    """
    by_class: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in sorted(candidates, key=lambda c: c.sha256):
        if candidate.split == "train" and candidate.name not in added:
            by_class[candidate.label].append(candidate)
    moved: dict[str, str] = {}
    for group in by_class.values():
        limit = 0.0
        for split, fraction in fractions.items():
            limit += fraction
            rest = [c for c in group if c.sha256 not in moved]
            below = [c for c in rest if int(c.sha256[:13], 16) / 16**13 < limit]
            moved |= {c.sha256: split for c in below or rest[:1]}
    return [replace(c, split=moved[c.sha256]) if c.sha256 in moved else c for c in candidates]


class NearDuplicates(NamedTuple):
    """What is left without look-alikes; `conflicts` are photos of train that stay, and look like another class."""

    kept: list[Candidate]
    excluded: list[Exclusion]
    conflicts: list[Exclusion]


def drop_near_duplicates(candidates: Sequence[Candidate], *, max_bits: int) -> NearDuplicates:
    """Drop photos that look the same as others, so that no two splits share a look-alike.

    Of a pair in two splits the one is dropped that judges less: train, then validation. A pair with two labels judges
    nothing, so whichever of it is in validation or test is dropped; in train both stay.

    Args:
        candidates: at least one.
        max_bits: photos whose hashes differ in at most so many bits, 1 to 3, and of about the same colour, look the
            same; with 0 nothing is compared.
    """
    if not max_bits:
        return NearDuplicates(list(candidates), [], [])
    looks = describe_looks(candidates)
    labels = np.array([c.label for c in candidates])
    ranks = np.array([SPLITS.index(c.split) for c in candidates])
    others = duplicates.find_conflicts(looks, labels, ranks, max_bits=max_bits)
    conflicting = {
        row: _exclude(
            candidates[row], "conflicting_label", f"looks the same as {candidates[other].name}, of another class"
        )
        for row, other in sorted(others.items())
    }
    left = [row for row in range(len(candidates)) if row not in conflicting or ranks[row] == 0]
    winners = duplicates.find_shadowed(looks.take(left), ranks[left], max_bits=max_bits)
    kept = [candidates[row] for position, row in enumerate(left) if position not in winners]
    excluded = [exclusion for row, exclusion in conflicting.items() if ranks[row] > 0]
    for position, winner in sorted(winners.items()):
        first = candidates[left[winner]]
        excluded.append(
            _exclude(candidates[left[position]], "near_duplicate", f"looks the same as {first.name} in {first.split}")
        )
    names = {candidate.name for candidate in kept}
    conflicts = [exclusion for row, exclusion in conflicting.items() if ranks[row] == 0 and exclusion["file"] in names]
    return NearDuplicates(kept, excluded, conflicts)


def _exclude(candidate: Candidate, rule: str, reason: str) -> Exclusion:
    return Exclusion(file=candidate.name, split=candidate.split, rule=rule, reason=reason)
