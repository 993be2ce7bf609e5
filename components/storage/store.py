"""One protocol for a folder on a disk and a bucket at a URL, and the function that opens either.

Names are paths below the store, with slashes. What consists of many files has a marker, the one file without which it
is not complete: a bucket, which has no rename, writes it last and removes it first.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from components.storage.bucket import Bucket, is_url
from components.storage.files import FileInfo
from components.storage.folder import Folder


class Store(Protocol):
    """A folder on a disk or in a bucket, which need not exist before it is written to.

    A `Folder` raises `OSError` where the disk cannot be used, a `Bucket` `StorageError` where the URL cannot.
    """

    def __str__(self) -> str:
        """Return the path or the URL."""

    def __truediv__(self, name: str) -> "Store":
        """Return the store below a name."""

    def absolute(self) -> "Store":
        """Return this store, by a path that does not depend on the working directory."""

    def check_writable(self) -> None:
        """Raise an error if nothing can be written here, before any work."""

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from changing what is here; a bucket has no locks, so there this does nothing."""

    def names(self, folder: str = "") -> list[str]:
        """Return the names directly below a folder, sorted; none where there is no such folder."""

    def files(self, folder: str = "") -> dict[str, FileInfo]:
        """Return every file below a folder, sorted, by its name below that folder; none without such a folder."""

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes | None:
        """Return the content of a file, or its bytes from `start` to before `end`; `None` where there is none."""

    def read_each(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """Yield the contents of many files, in order."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically."""

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> None:
        """Write a file atomically, piece by piece, so that it may be larger than memory."""

    def claim(self, name: str, content: bytes) -> bool:
        """Write a file where there is none, and return whether it has this content; of two at once one's is there."""

    def staged(self, name: str, *, marker: str) -> AbstractContextManager[Path]:
        """Yield an empty local folder whose files are below `name` after the block, all of them or none.

        One process at a time may do so: hold the lock.
        """

    def move(self, source: str, target: str, *, marker: str) -> None:
        """Move a folder, or finish a move that was interrupted; does nothing where there is no such folder."""

    def remove_file(self, name: str) -> None:
        """Remove a file."""


def open_store(path_or_url: str | Path) -> Store:
    """Open a folder by its path or a bucket by its URL; nothing goes over the network yet.

    Raises:
        StorageError: the package for this kind of URL is not installed, or there is none.
    """
    return Bucket(str(path_or_url)) if is_url(path_or_url) else Folder(Path(path_or_url))
