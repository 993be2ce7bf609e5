"""Lists that wait on disk, and sorting through it, for what there may be a million of."""

import heapq
import pickle
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import IO, Any, Generic, TypeVar

T = TypeVar("T")

_BLOCK = 500
_RUN = 20_000


class DiskList(Generic[T]):
    """Items in a file without a name, in the folder for temporary files; it is gone with the list.

    They can be gone through as often as is needed, one iteration after the other or side by side.

    Args:
        items: what can be pickled.

    >>> names = DiskList(f"{number}.jpg" for number in range(1200))
    >>> len(names), list(names)[-1]
    (1200, '1199.jpg')
    """

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the list)
        weakref.finalize(self, self._file.close)
        self._num_items = 0
        remaining = iter(items)
        while block := list(islice(remaining, _BLOCK)):
            pickle.dump(block, self._file)
            self._num_items += len(block)
        self._file.flush()

    def __len__(self) -> int:
        return self._num_items

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self.blocks())

    def blocks(self) -> Iterator[list[T]]:
        """Yield the items in lists of some hundreds."""
        position, end = 0, self._file.seek(0, 2)
        while position < end:
            self._file.seek(position)
            block: list[T] = pickle.load(self._file)
            position = self._file.tell()
            yield block


def sort(items: Iterable[T], *, key: Callable[[T], Any]) -> Iterator[T]:
    """Yield items in the order of their keys; those with equal keys stay in their order.

    Up to 20,000 are sorted in memory, and more are merged from files.

    >>> list(sort(["b", "a"], key=str))
    ['a', 'b']
    """
    remaining = iter(items)
    runs: list[Iterable[T]] = []
    while run := sorted(islice(remaining, _RUN), key=key):
        runs.append(run if len(run) < _RUN and not runs else DiskList(run))
    return heapq.merge(*runs, key=key)
