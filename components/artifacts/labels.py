"""`labels.jsonl`: what people decided about photos. A line is a JSON object; lines are added, never changed.

A photo is known by its content, so it may be renamed, moved or copied. The last decision on it counts; `undo` takes
that back, and the one before it counts again. Several processes may add lines at once. `decisions.jsonl` in a folder of
examples is a copy of the decisions that its photos bear.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, TypedDict

from components.errors import DataError
from components.storage.files import read_jsonl, write_jsonl

log = logging.getLogger(__name__)

LABELS_FILE = "labels.jsonl"
_APPLIED_FILE = "decisions.jsonl"

LABEL, NONE, SKIP, UNDO = "label", "none", "skip", "undo"
DECISIONS = (LABEL, NONE, SKIP, UNDO)
"""The photo has this label; it is none of the classes; nobody can tell; the last decision on it does not count."""


class Decision(TypedDict):
    """What somebody decided about a photo.

    Attributes:
        sha256: of the photo's file, 64 hexadecimal digits.
        photo: its path when it was seen, for people.
        decision: one of `DECISIONS`.
        label: the name of a class where the decision is `label`, else `None`.
        who: decided.
        when: UTC, ISO 8601, such as `2026-11-26T20:15:00+00:00`.
        why: such as `suspect`; may be empty.
    """

    sha256: str
    photo: str
    decision: str
    label: str | None
    who: str
    when: str
    why: str


class AppliedDecision(Decision):
    """A decision that a photo bears; `given_label` is the label of the source, `None` where it has none."""

    given_label: str | None


class AppliedCounts(TypedDict):
    """How many labels were changed, or confirmed; how many photos without one got one, and how many are no class."""

    changed: int
    confirmed: int
    added: int
    none_of_these: int


def add_decisions(path: Path, decisions: Sequence[Decision]) -> None:
    """Add decisions at the end of a file, which is made where there is none.

    They are on the disk when this returns. A line that a killed writer left without its end is cut off first: nobody
    was told that it is kept.

    Raises:
        ValueError: a decision is not one.
        OSError: the file cannot be written; it is as it was.
    """
    for decision in decisions:
        _check(decision)
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    content = "".join(json.dumps(decision, ensure_ascii=False) + "\n" for decision in decisions)
    # What is no UTF-8 in a file's name is written as JSON's escape of it.
    encoded = content.encode(errors="backslashreplace")
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = _cut_torn_line(file, path)
        try:
            file.write(encoded)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise
    if is_new:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_decisions(path: Path) -> list[Decision]:
    """Read all decisions; none where there is no file.

    Raises:
        DataError: a line is not a decision.
    """
    return read_decisions_from(path, 0)[0]


def read_decisions_from(path: Path, offset: int) -> tuple[list[Decision], int]:
    """Read the decisions that were added after an offset in bytes; return them and the offset to go on from.

    Raises:
        DataError: a line is not a decision.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read()
    except FileNotFoundError:
        return [], 0
    content = content[: content.rfind(b"\n") + 1]  # the last line may be being written
    return [_parse(line, path) for line in content.splitlines() if line.strip()], offset + len(content)


def find_current(decisions: Iterable[Decision]) -> dict[str, Decision]:
    """Return the decision that counts for each photo, by SHA-256, in the order in which they were made.

    >>> rose = Decision(sha256="a" * 64, photo="1.jpg", decision="label", label="rose", who="", when="", why="")
    >>> find_current([rose, {**rose, "label": "tulip"}, {**rose, "decision": "undo", "label": None}])["a" * 64]["label"]
    'rose'
    """
    stacks: dict[str, list[Decision]] = {}
    for decision in decisions:
        before = stacks.pop(decision["sha256"], [])
        after = before[:-1] if decision["decision"] == UNDO else [*before, decision]
        if after:
            stacks[decision["sha256"]] = after
    return {sha256: stack[-1] for sha256, stack in stacks.items()}


def read_applied(examples_dir: Path) -> list[AppliedDecision]:
    """Read which decisions a folder of examples bears."""
    return read_jsonl(examples_dir / _APPLIED_FILE)


def write_applied(out_dir: Path, applied: Iterable[AppliedDecision]) -> None:
    """Write which decisions a folder of examples bears."""
    write_jsonl(out_dir / _APPLIED_FILE, applied)


def count_applied(applied: Iterable[AppliedDecision]) -> AppliedCounts:
    """Count what decisions did to the labels of the source."""
    counts = AppliedCounts(changed=0, confirmed=0, added=0, none_of_these=0)
    for decision in applied:
        if decision["label"] is None:
            counts["none_of_these"] += 1
        elif decision["given_label"] is None:
            counts["added"] += 1
        elif decision["label"] == decision["given_label"]:
            counts["confirmed"] += 1
        else:
            counts["changed"] += 1
    return counts


def is_class_name(name: str) -> bool:
    """Return whether a text can name a class: printable, without a space at either end."""
    return bool(name) and name == name.strip() and name.isprintable()


def _parse(line: bytes, path: Path) -> Decision:
    try:
        decision: Decision = json.loads(line)
        _check(decision)
    except (ValueError, TypeError) as exc:
        raise DataError(
            f"Each line of {path} must be a decision on a photo. Received: {line.decode(errors='replace')[:200]!r} "
            f"({exc}). Correct or remove the line."
        ) from exc
    return decision


def _check(decision: Mapping[str, object]) -> None:
    """Raise `ValueError` for what is not a decision."""
    keys = Decision.__annotations__
    if not isinstance(decision, dict) or not keys.keys() <= decision.keys():
        raise ValueError(f"A decision has the keys {', '.join(keys)}. Received: {decision!r}")
    sha256, kind, label = (decision[name] for name in ("sha256", "decision", "label"))
    if not (isinstance(sha256, str) and len(sha256) == 64 and set(sha256) <= set("0123456789abcdef")):
        raise ValueError(f"sha256 must be 64 hexadecimal digits in lower case. Received: {sha256!r}")
    if kind not in DECISIONS:
        raise ValueError(f"decision must be one of {', '.join(DECISIONS)}. Received: {kind!r}")
    if kind == LABEL and not (isinstance(label, str) and is_class_name(label)):
        raise ValueError(f"label must be printable text without a space at either end. Received: {label!r}")
    if kind != LABEL and label is not None:
        raise ValueError(f"label must be null where decision is {kind}. Received: {label!r}")
    for name in ("photo", "who", "when", "why"):
        if not isinstance(decision[name], str):
            raise ValueError(f"{name} must be text. Received: {decision[name]!r}")


def _cut_torn_line(file: BinaryIO, path: Path) -> int:
    """Cut off what stands after the last end of a line, and return the file's size."""
    size = file.seek(0, os.SEEK_END)
    end = size
    while end:
        start = max(end - 4096, 0)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        end = start + found + 1 if found >= 0 else start
        if found >= 0:
            break
    if end < size:
        file.seek(end)
        log.warning("%s: a line that was not written to its end is removed: %r", path, file.read(200))
        file.truncate(end)
    file.seek(0, os.SEEK_END)
    return end
