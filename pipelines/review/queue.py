"""Which photo is next for whom.

A photo that was handed out is held for its browser for some minutes, in `.<labels>.leases` beside the decisions, so
that two people, also of two servers, get different photos while there are some.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from components.artifacts.labels import LABEL, Decision
from components.storage.files import read_json, write_json
from pipelines.review.items import Item
from pipelines.review.ledger import Ledger

LEASE_S = 300.0


@dataclass(frozen=True)
class Progress:
    """How far the work is.

    Attributes:
        left: photos without a decision.
        done: photos of the queue with one.
        people: of those, how many are whose.
        classes: of the run, and those that were decided beyond it.
    """

    left: int
    done: int
    people: dict[str, int]
    classes: list[str]


class Queue:
    """The items of all sources, in their order.

    Args:
        ledger: the decisions.
        clock: returns seconds, the same in all processes.
    """

    def __init__(self, ledger: Ledger, *, clock: Callable[[], float] = time.time) -> None:
        self._ledger = ledger
        self._leases = ledger.path.with_name(f".{ledger.path.name}.leases")
        self._clock = clock
        self._mutex = threading.Lock()
        self._items: dict[str, Item] = {}
        self._gone: set[str] = set()
        self._class_names: list[str] = []

    def load(self, *sources: Sequence[Item], class_names: Sequence[str]) -> None:
        """Replace the items; a photo that several sources have counts once, where it comes first."""
        items: dict[str, Item] = {}
        for source in sources:
            for item in source:
                items.setdefault(item.sha256, item)
        with self._mutex:
            self._items, self._gone, self._class_names = items, set(), list(class_names)

    def find(self, sha256: str) -> Item | None:
        """Return the item of a photo."""
        return self._items.get(sha256)

    def pass_over(self, sha256: str) -> None:
        """Hand a photo out no more: it cannot be shown."""
        self._gone.add(sha256)

    def take(self, client: str, held: Collection[str] = ()) -> tuple[Item | None, Progress]:
        """Hand the next photo to a browser, `None` where there is no other than it has.

        Args:
            client: the browser's id.
            held: photos that it has already.

        Raises:
            DataError: a line of the decisions is not one.
            OSError: the lock or the leases cannot be written.
        """
        with self._ledger.turn() as current, self._mutex:
            now_s = self._clock()
            leases = {
                sha256: (holder, until_s)
                for sha256, (holder, until_s) in self._read_leases().items()
                if until_s > now_s and holder != client
            }
            waiting = [item for item in self._find_open(current) if item.sha256 not in held]
            # Where all that is left is with others, one of theirs: they may have gone.
            item = next((item for item in waiting if item.sha256 not in leases), next(iter(waiting), None))
            mine = {*held, *([item.sha256] if item else [])} & self._items.keys()
            write_json(self._leases, {**leases, **dict.fromkeys(mine, (client, now_s + LEASE_S))})
            return item, self._measure(current)

    def measure(self) -> Progress:
        """Return how far the work is.

        Raises:
            DataError: a line of the decisions is not one.
            OSError: the lock cannot be opened.
        """
        with self._ledger.turn() as current, self._mutex:
            return self._measure(current)

    def _find_open(self, current: dict[str, Decision]) -> list[Item]:
        return [item for sha256, item in self._items.items() if sha256 not in current and sha256 not in self._gone]

    def _measure(self, current: dict[str, Decision]) -> Progress:
        people = Counter(current[sha256]["who"] for sha256 in self._items if sha256 in current)
        known = dict.fromkeys(self._class_names)
        decided = {str(each["label"]) for each in current.values() if each["decision"] == LABEL}
        return Progress(
            left=len(self._find_open(current)),
            done=people.total(),
            people=dict(people.most_common()),
            classes=[*known, *sorted(decided - known.keys())],
        )

    def _read_leases(self) -> dict[str, Any]:
        try:
            leases: dict[str, Any] = read_json(self._leases)
        except (FileNotFoundError, ValueError):
            return {}  # a loss is small: two people may see one photo
        return leases
