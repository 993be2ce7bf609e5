"""Lists that wait on disk, and sorting through it, for what there may be a million of."""

import heapq
import pickle
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, islice
from typing import IO, Any, Generic, TypeVar

T = TypeVar("T")

_BLOCK = 500
_RUN = 20_000
_NUM_BYTES_IN_MEMORY = 64 * 1024


class DiskList(Generic[T]):
    """Items in a file without a name, in the folder for temporary files; it is gone with the list.

    They can be gone through as often as is needed, one iteration after the other or side by side. What takes less than
    64 KB stays in memory.

    Args:
        items: what can be pickled.

    Raises:
        OSError: the folder for temporary files, which the error names, is full.

    >>> names = DiskList(f"{number}.jpg" for number in range(1200))
    >>> len(names), list(names)[-1]
    (1200, '1199.jpg')
    """

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_NUM_BYTES_IN_MEMORY)  # noqa: SIM115 (see `_close`)
        weakref.finalize(self, _close, self._file)
        self._num_items = 0
        remaining = iter(items)
        while block := list(islice(remaining, _BLOCK)):
            with _named():
                pickle.dump(block, self._file)
            self._num_items += len(block)
        with _named():
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


@contextmanager
def _named() -> Iterator[None]:
    """Let the error of a write say where it was."""
    try:
        yield
    except OSError as exc:
        exc.filename = exc.filename or tempfile.gettempdir()
        raise


def _close(file: IO[bytes]) -> None:
    with suppress(OSError):  # of a last write: whoever made the list has had that error
        file.close()


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
