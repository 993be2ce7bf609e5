"""Photos of a folder on a disk."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

from components.data.sources.layout import LabelledFile, Layout, read_layout
from components.data.sources.source import Description, Photo, Source, describe_files
from components.errors import DataError
from components.storage.spill import DiskList, sort


@dataclass(frozen=True)
class FolderPhotos:
    """Photos that are read as they are needed; a slice of them can be sent to another process."""

    folder: Path
    files: DiskList[LabelledFile] | tuple[LabelledFile, ...]

    def __iter__(self) -> Iterator[Photo]:
        for file in self.files:
            encoded, reason = read_file(self.folder / file.name)
            yield Photo(*file, encoded, reason)

    def slices(self, size: int) -> Iterator["FolderPhotos"]:
        """Yield the photos in slices of a size."""
        files = iter(self.files)
        while taken := tuple(islice(files, size)):
            yield replace(self, files=taken)


def open_folder(folder: Path) -> Source:
    """Open a folder.

    Raises:
        DataError: it holds no classes or no files, or a folder in it cannot be read.
    """
    layout = _read_layout(folder)
    photos = FolderPhotos(folder, layout.files)
    return Source(
        str(folder), layout.class_names, layout.splits, len(layout.files), photos, unlabelled=layout.unlabelled
    )


def describe_folder(folder: Path) -> Description:
    """Describe a folder by its files' names, sizes and times of change.

    The time of change (`ctime`) also tells that a file may be read now, or was restored with its old date.

    Raises:
        DataError: see `open_folder`.
    """
    layout = _read_layout(folder)
    return _describe(folder, chain((file.name for file in layout.files), layout.unlabelled))


def _describe(folder: Path, names: Iterable[str]) -> Description:
    stats = ((name, stat_file(folder / name)) for name in names)
    return describe_files((name, stat.st_size, stat.st_ctime_ns) for name, stat in stats)


def list_files(folder: Path) -> list[str]:
    """Return the paths of all files below a folder, in any depth.

    Raises:
        DataError: there are none, or a folder cannot be read.
    """
    found = (name for name in _list_names(folder, ()) if not name.endswith("/"))
    names = list(sort(found, key=lambda name: name.split("/")))
    if not names:
        raise DataError(f"A folder of photos must hold some. Found no file in {folder.absolute()}.")
    return names


def read_file(path: Path) -> tuple[bytes, str]:
    """Return the content of a file; where it cannot be read, none and the reason."""
    try:
        if not path.is_file():  # reading a pipe would wait for ever
            return b"", "a link to nothing" if path.is_symlink() else "not a file" if path.exists() else "gone"
        return path.read_bytes(), ""
    except OSError as exc:
        return b"", f"cannot be read: {exc.strerror}"


def stat_file(path: Path) -> os.stat_result:
    """Return the status of a file, or of a link that leads to nothing."""
    try:
        return path.stat()
    except OSError:
        return path.lstat()


def _read_layout(folder: Path) -> Layout:
    return read_layout(_list_names(folder, ()), origin=str(folder.absolute()))


def _list_names(folder: Path, above: tuple[tuple[int, int], ...], prefix: str = "") -> Iterator[str]:
    """Yield the path of each file below a folder, and of each folder, with a slash at its end; hidden ones have none.

    They come in any order. Folders may be links; one that leads back to a folder above it is not followed.
    """
    try:
        status = folder.stat()
        entries = os.scandir(folder)
    except OSError as exc:
        raise DataError(
            f"Every folder of the photos must be readable. {folder.absolute()} is not: {exc.strerror}. "
            "Allow that, or move the folder out of there."
        ) from exc
    above = (*above, (status.st_dev, status.st_ino))
    with entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                yield f"{prefix}{entry.name}"
            elif _identity(entry) not in above:
                yield f"{prefix}{entry.name}/"
                yield from _list_names(Path(entry.path), above, f"{prefix}{entry.name}/")


def _identity(entry: "os.DirEntry[str]") -> tuple[int, int]:
    status = entry.stat()
    return status.st_dev, status.st_ino
