"""What a file of labels says, before it is known which photos it speaks of."""

import re
from dataclasses import dataclass, field
from datetime import datetime, timezone

from components.artifacts.labels import LABEL, NONE, is_class_name
from components.errors import DataError

NONE_OF_THESE = "none of these"
"""How a photo that is none of the classes is labelled in formats that know labels alone."""


@dataclass(frozen=True)
class Entry:
    """What a file says of one photo.

    Attributes:
        where: such as `line 3`, for people.
        photo: a path, URL or name as the file has it; may be empty where there is a `sha256`.
        decision: one of `components.artifacts.labels.DECISIONS`.
        label: of the decision.
        sha256: of the photo's content; empty where the file does not say.
        who: decided; empty where the file does not say. So are the others.
        when: UTC, ISO 8601.
        why: in the words of the file.
    """

    where: str
    photo: str
    decision: str
    label: str | None
    sha256: str = ""
    who: str = ""
    when: str = ""
    why: str = ""


@dataclass(frozen=True)
class Contents:
    """All that a file says.

    Attributes:
        entries: in the file's order.
        num_undecided: photos that the file names without a label.
        is_history: several entries on a photo follow each other in time; else they contradict each other where they
            differ.
    """

    entries: list[Entry] = field(default_factory=list)
    num_undecided: int = 0
    is_history: bool = False


def decide(label: object, where: str) -> tuple[str, str | None]:
    """Return the decision, and its label, that a file means by a label.

    >>> decide("rose", "line 3"), decide("None of these", "line 4")
    (('label', 'rose'), ('none', None))

    Raises:
        DataError: it cannot name a class.
    """
    if not isinstance(label, str) or not is_class_name(label.strip()):
        raise DataError(
            f"A label must be the name of a class, or {NONE_OF_THESE!r}. Received: {label!r} in {where}. Correct it."
        )
    label = label.strip()
    return (NONE, None) if label.casefold() == NONE_OF_THESE else (LABEL, label)


def as_utc(time: object) -> str:
    """Return a time in ISO 8601 as UTC, to the second; empty for what is not one.

    >>> as_utc("2021-03-09T22:16:08.728378Z")
    '2021-03-09T22:16:08+00:00'
    """
    try:
        moment = datetime.fromisoformat(re.sub(r"(\.\d+)?Z$", "+00:00", str(time)))
    except ValueError:
        return ""
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc).isoformat(timespec="seconds")
