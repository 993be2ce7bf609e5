"""The decisions, followed in `labels.jsonl` as anybody adds to it, and added to it.

Servers that share the file take turns by a lock beside it, so that a decision which is sent twice is one line, and
nobody takes back what somebody else decided.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sys import intern

from components.artifacts.labels import UNDO, Decision, add_decisions, find_current, read_decisions_from
from components.storage.files import file_lock


class MadeDecision(Decision):
    """A decision that was made on the page; a repeat has the same `id`, which begins with the browser's."""

    id: str


class OvertakenError(Exception):
    """A decision cannot be taken back: another one on the photo counts. `by` is that one, or `None` for none."""

    def __init__(self, by: Decision | None) -> None:
        super().__init__("another decision on the photo counts")
        self.by = by


class Ledger:
    """The decisions of a file.

    Args:
        path: of the file, which need not be there.

    Raises:
        DataError: a line is not a decision.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mutex = threading.RLock()
        self._file: tuple[int, int] | None = None  # device and inode
        self._offset = 0
        self._by_photo: dict[str, list[MadeDecision]] = {}
        self._ids: set[str] = set()
        self._current: dict[str, Decision] = {}
        with self.turn():
            pass

    @contextmanager
    def turn(self) -> Iterator[dict[str, Decision]]:
        """Keep other servers of the file waiting for as long as the block lasts; yield what counts for each photo.

        Raises:
            DataError: a line is not a decision.
            OSError: the lock or the file cannot be opened.
        """
        with self._mutex, file_lock(self.path.with_name(f".{self.path.name}.lock")):
            self._refresh()
            yield self._current

    def add(self, decision: MadeDecision, *, undoes: str = "") -> Decision | None:
        """Add a decision, which is on the disk when this returns; a repeat is not added.

        Args:
            decision: that was made.
            undoes: the `id` of the decision that an `undo` takes back.

        Returns:
            The decision that counted until then, if any; `None` of a repeat.

        Raises:
            OvertakenError: what is to be taken back does not count.
            ValueError: the decision is not one.
            DataError: a line of the file is not a decision.
            OSError: the decision cannot be written.
        """
        with self.turn() as current:
            if decision["id"] in self._ids:
                return None
            before = current.get(decision["sha256"])
            if decision["decision"] == UNDO and (before is None or before.get("id") != undoes):
                raise OvertakenError(before)
            add_decisions(self.path, [decision])
            self._refresh()
            return before

    def _refresh(self) -> None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._forget(None)
            return
        file = status.st_dev, status.st_ino
        if file != self._file or status.st_size < self._offset:
            self._forget(file)
        if status.st_size == self._offset:
            return
        added, self._offset = read_decisions_from(self.path, self._offset)
        for decision in map(_keep, added):
            sha256 = decision["sha256"]
            self._by_photo.setdefault(sha256, []).append(decision)
            self._ids.add(decision["id"])
            counting = find_current(self._by_photo[sha256]).get(sha256)
            if counting:
                self._current[sha256] = counting
            else:
                self._current.pop(sha256, None)

    def _forget(self, file: tuple[int, int] | None) -> None:
        """Begin again with a file: it was replaced, cut or removed."""
        self._file, self._offset = file, 0
        self._by_photo, self._ids, self._current = {}, set(), {}


def is_of(decision: Decision, client: str) -> bool:
    """Return whether a decision was made in a browser of this id."""
    return str(decision.get("id", "")).startswith(f"{client}.")


def as_json(decision: Decision | None) -> dict[str, str | None] | None:
    """Return what a page says of a decision."""
    return {key: decision[key] for key in ("decision", "label", "who")} if decision else None  # type: ignore[literal-required]


def _keep(decision: Decision) -> MadeDecision:
    """Return what is kept of a decision: texts that many have are in memory once, and what nobody reads is not."""
    return MadeDecision(
        sha256=intern(decision["sha256"]),
        photo="",
        decision=intern(decision["decision"]),
        label=None if decision["label"] is None else intern(decision["label"]),
        who=intern(decision["who"]),
        when="",
        why="",
        id=str(decision.get("id", "")),
    )
