"""Photos of a folder on a disk."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from components.data.sources.layout import LabelledFile, Layout, is_partitioned, read_layout
from components.data.sources.source import Description, Photo, Source, describe_files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderPhotos:
    """Photos that are read as they are needed; small to send to another process, and in slices."""

    folder: Path
    files: tuple[LabelledFile, ...]

    def __iter__(self) -> Iterator[Photo]:
        for file in self.files:
            path = self.folder / file.name
            try:
                encoded = path.read_bytes()
            except OSError as exc:
                log.warning("%s cannot be read: %s", path, exc)
                encoded = b""
            yield Photo(*file, encoded)

    def slices(self, size: int) -> Iterator["FolderPhotos"]:
        """Yield the photos in slices of a size."""
        for first in range(0, len(self.files), size):
            yield replace(self, files=self.files[first : first + size])


def open_folder(folder: Path) -> Source:
    """Open a folder.

    Raises:
        DataError: it holds no classes or no files.
    """
    layout = _read_layout(folder)
    photos = FolderPhotos(folder, layout.files)
    return Source(str(folder), layout.class_names, layout.splits, len(layout.files), photos)


def describe_folder(folder: Path) -> Description:
    """Describe a folder by its files' names, sizes and times.

    Raises:
        DataError: it holds no classes or no files.
    """
    stats = ((file.name, (folder / file.name).stat()) for file in _read_layout(folder).files)
    return describe_files((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _read_layout(folder: Path) -> Layout:
    return read_layout(_list_names(folder), origin=str(folder.absolute()))


def _list_names(folder: Path) -> Iterator[str]:
    """Yield the path of each split and class, with a slash at its end, and of each file of the classes.

    Splits and classes may be links to folders; what is below them may not.
    """
    classes = folders = _subfolders(folder)
    if is_partitioned(path.name for path in folders):
        classes = [below for path in folders for below in _subfolders(path)]
    for path in (*folders, *classes):
        yield f"{path.relative_to(folder).as_posix()}/"
    for path in classes:
        yield from (file.relative_to(folder).as_posix() for file in path.rglob("*") if file.is_file())


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
