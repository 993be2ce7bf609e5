"""A folder on a disk: what is published is renamed, and one process at a time publishes."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.storage.files import TEMPORARY_FILES, FileInfo, atomic_write, file_lock, write_pieces

_LOCK, _STAGING = ".lock", ".staging"


@dataclass(frozen=True)
class Folder:
    """A `Store` on a disk; its lock file is none of its names."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> "Folder":
        return Folder(self.path / name)

    def absolute(self) -> "Folder":
        return Folder(self.path.absolute())

    def check_writable(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            # Nobody sees it: a file without a name, where the system has such.
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as exc:
            raise OSError(exc.errno, exc.strerror, str(self.path)) from exc

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock file of the folder; what killed writers left directly below it is removed."""
        with file_lock(self.path / _LOCK):
            for leftover in self.path.glob(TEMPORARY_FILES):
                leftover.unlink()
            yield

    def names(self, folder: str = "") -> list[str]:
        try:
            return sorted(path.name for path in (self.path / folder).iterdir() if path.name != _LOCK)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def files(self, folder: str = "") -> dict[str, FileInfo]:
        root = self.path / folder
        paths = (path for path in root.rglob("*") if path.is_file() and path.name != _LOCK)
        return dict(sorted((path.relative_to(root).as_posix(), _describe(path)) for path in paths))

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes | None:
        try:
            with (self.path / name).open("rb") as file:
                file.seek(start or 0)
                return file.read(-1 if end is None else end - file.tell())
        except FileNotFoundError:
            return None

    def read_each(self, names: Iterable[str]) -> Iterator[bytes | None]:
        return map(self.read, names)

    def write(self, name: str, content: bytes) -> None:
        with atomic_write(self.path / name) as temporary:
            temporary.write_bytes(content)

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> None:
        write_pieces(self.path / name, pieces)

    def claim(self, name: str, content: bytes) -> bool:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as file:
                try:
                    file.write(content)
                    file.flush()
                except OSError:
                    path.unlink()  # nobody has it
                    raise
        except FileExistsError:
            return path.read_bytes() == content
        return True

    @contextmanager
    def staged(self, name: str, *, marker: str) -> Iterator[Path]:
        """Yield an empty folder that is flushed to disk and renamed to `name` after the block."""
        root, target = self.path / _STAGING, self.path / name
        # The lock is ours: whatever lies here was left by a process that was killed.
        shutil.rmtree(root, ignore_errors=True)
        staging = root / name.replace("/", "-")
        try:
            staging.mkdir(parents=True)
            yield staging
            for path in staging.rglob("*"):
                _flush_to_disk(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            staging.rename(target)
            _flush_to_disk(target.parent)
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def move(self, source: str, target: str, *, marker: str) -> None:
        if (self.path / source).exists():
            (self.path / target).parent.mkdir(parents=True, exist_ok=True)
            (self.path / source).rename(self.path / target)

    def remove_file(self, name: str) -> None:
        (self.path / name).unlink()


def _describe(path: Path) -> FileInfo:
    status = path.stat()
    return FileInfo(status.st_size, str(status.st_ctime_ns))


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
