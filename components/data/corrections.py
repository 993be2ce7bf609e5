"""What people decided about photos, laid over the labels of a source."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.artifacts.examples import Exclusion
from components.artifacts.labels import (
    LABEL,
    LABELS_FILE,
    NONE,
    AppliedDecision,
    Decision,
    count_applied,
    find_current,
    read_decisions,
)
from components.data.candidates import Candidates
from components.data.sources.unlabelled import UNLABELLED
from components.errors import DataError

log = logging.getLogger(__name__)

NONE_OF_THESE = "none_of_these"
"""The exclusion rule of a photo that somebody found to be none of the classes."""


class Corrected(NamedTuple):
    """The rows that are kept; `applied` are the decisions that they bear, and those that excluded some."""

    rows: NDArray[np.intp]
    class_names: tuple[str, ...]
    excluded: list[Exclusion]
    applied: list[AppliedDecision]


def read_labels(path: str) -> dict[str, Decision]:
    """Read the decisions that say something of a label, by the photo's SHA-256; see `read_current`."""
    return {sha256: each for sha256, each in read_current(path).items() if each["decision"] in (LABEL, NONE)}


def read_current(path: str) -> dict[str, Decision]:
    """Read the decision that counts for each photo, by the photo's SHA-256.

    Args:
        path: of the file; empty for none. Only the file that is read unasked, `LABELS_FILE`, need not be there.

    Raises:
        DataError: the file is not there, or a line of it is not a decision.
    """
    if not path:
        return {}
    file = Path(path).expanduser()
    if path != LABELS_FILE and not file.is_file():
        raise DataError(f"examples.labels must be a file of decisions. Received: {path} ({file.absolute()}).")
    return find_current(read_decisions(file))


def digest(labels: Mapping[str, Decision]) -> str:
    """Return a digest of the labels that were decided, whoever decided them and when."""
    lines = sorted(f"{sha256} {decision['label']}" for sha256, decision in labels.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def correct(candidates: Candidates, class_names: Sequence[str], labels: Mapping[str, Decision]) -> Corrected:
    """Give photos the labels that were decided, and exclude those that were found to be none of the classes.

    Args:
        candidates: with the labels of their source, or `UNLABELLED` where somebody decided; their labels are changed.
        class_names: of the source. Decided labels that it does not have come after them.
        labels: see `read_labels`.

    Raises:
        DataError: there is no class at all.
    """
    found = {row: labels[sha256] for row, sha256 in candidates.find(labels).items()}
    new = sorted({d["label"] for d in found.values() if d["label"] is not None} - set(class_names))
    names = (*class_names, *new)
    if not names:
        raise DataError(
            f"No photo has a label, and {len(labels)} decisions are read. Label photos: make review, or "
            "python -m pipelines labels import"
        )
    are_kept = np.ones(len(candidates), bool)
    excluded: list[Exclusion] = []
    applied: list[AppliedDecision] = []
    for row, decision in found.items():
        candidate = candidates.read(row)
        given = None if candidate.label == UNLABELLED else names[candidate.label]
        applied.append({**decision, "photo": candidate.name, "given_label": given})
        if decision["label"] is not None:
            candidates.labels[row] = names.index(decision["label"])
        else:
            are_kept[row] = False
            reason = f"{decision['who'] or 'somebody'} found it to be none of the classes on {decision['when'][:10]}"
            excluded.append(Exclusion(file=candidate.name, split=candidate.split, rule=NONE_OF_THESE, reason=reason))
    if labels:
        num_elsewhere = len(labels) - len({decision["sha256"] for decision in found.values()})
        _log(applied, num_elsewhere=num_elsewhere, new=new)
    return Corrected(np.flatnonzero(are_kept), names, excluded, sorted(applied, key=lambda each: each["photo"]))


def _log(applied: Sequence[AppliedDecision], *, num_elsewhere: int, new: Sequence[str]) -> None:
    counts = count_applied(applied)
    log.info(
        "examples: decisions of people: %d labels changed, %d confirmed, %d photos added, %d none of the classes%s%s",
        counts["changed"],
        counts["confirmed"],
        counts["added"],
        counts["none_of_these"],
        f"; {num_elsewhere} are on photos that are not here" if num_elsewhere else "",
        f"; classes that the source does not have: {', '.join(new)}" if new else "",
    )
