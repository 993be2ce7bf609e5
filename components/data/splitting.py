"""Which candidates become examples, and in which split: none that is there twice, and each split has some.

Splits that judge come last in `SPLITS`: of two copies the one that judges more is kept.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from components.artifacts.examples import SPLITS, Exclusion
from components.data import duplicates
from components.data.examination import Candidate


def drop_exact_duplicates(candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[Exclusion]]:
    """Keep one of each file, in the split that judges most; drop every copy of a file that has two labels."""
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
        first, *others = sorted(group, key=lambda c: (-SPLITS.index(c.split), c.name))
        kept.append(first)
        excluded += [_exclude(c, "duplicate", f"the same file as {first.name}") for c in others]
    return kept, excluded


def carve_splits(candidates: Sequence[Candidate], fractions: Mapping[str, float]) -> list[Candidate]:
    """Take splits out of `train`, class by class, by the hash of the content.

    A photo keeps its split when others are added. Each class gives at least one photo to each split.

    Args:
        candidates: no file twice.
        fractions: the splits to take, each with its share of the photos.
    """
    by_class: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in sorted(candidates, key=lambda c: c.sha256):
        if candidate.split == "train":
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


def drop_near_duplicates(candidates: Sequence[Candidate], *, max_bits: int) -> tuple[list[Candidate], list[Exclusion]]:
    """Of photos that look the same in two splits, drop the one in the split that judges less: train, then validation.

    Args:
        candidates: at least one.
        max_bits: photos whose hashes differ in at most so many bits, 0 to 3, look the same.
    """
    hashes = np.frombuffer(b"".join(c.hash for c in candidates), np.uint32).reshape(-1, 4)
    ranks = np.array([SPLITS.index(c.split) for c in candidates])
    winners = duplicates.find_shadowed(hashes, ranks, max_bits=max_bits)
    kept = [candidate for row, candidate in enumerate(candidates) if row not in winners]
    excluded = []
    for row, winner in sorted(winners.items()):
        reason = f"looks the same as {candidates[winner].name} in {candidates[winner].split}"
        excluded.append(_exclude(candidates[row], "near_duplicate", reason))
    return kept, excluded


def _exclude(candidate: Candidate, rule: str, reason: str) -> Exclusion:
    return Exclusion(file=candidate.name, split=candidate.split, rule=rule, reason=reason)
