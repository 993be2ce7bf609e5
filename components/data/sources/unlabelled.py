"""Photos without labels, in a folder or at a URL, in any depth, whatever the folders are called."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.data.sources.folder import list_files, read_file, stat_file
from components.data.sources.source import Description, Photo, describe_files
from components.errors import DataError
from components.storage.bucket import Bucket, is_url

UNLABELLED = -1
"""The label of a photo that has none."""


@dataclass(frozen=True)
class UnlabelledPhotos:
    """Photos that are read as they are needed.

    Attributes:
        folder: a path or URL.
        names: paths below it.
    """

    folder: str
    names: tuple[str, ...]

    def __iter__(self) -> Iterator[Photo]:
        """Read each photo; its name is its path or URL, its split `train`."""
        if is_url(self.folder):
            contents = Bucket(self.folder).read_each(self.names)
            found = ((content or b"", "" if content else "gone or empty") for content in contents)
        else:
            found = (read_file(Path(self.folder).expanduser() / name) for name in self.names)
        for path, (encoded, reason) in zip(self.paths, found, strict=True):
            yield Photo(path, UNLABELLED, "train", encoded, reason)

    @property
    def paths(self) -> list[str]:
        """The path or URL of each photo."""
        return [f"{self.folder.rstrip('/')}/{name}" for name in self.names]

    def read(self, path: str) -> bytes:
        """Read one of the `paths`.

        Raises:
            DataError: it is none of them, or cannot be read.
            StorageError: the URL cannot be read.
        """
        name = path.removeprefix(f"{self.folder.rstrip('/')}/")
        if name == path or name not in self.names:
            raise DataError(f"{path} is not one of the photos of {self.folder}.")
        (photo,) = UnlabelledPhotos(self.folder, (name,))
        if not photo.encoded:
            raise DataError(f"{path} cannot be read: {photo.reason or 'empty'}.")
        return photo.encoded


def open_unlabelled(folder: str) -> UnlabelledPhotos:
    """List the photos of a folder or URL.

    Raises:
        DataError: there is no such folder, it holds no files, or a folder in it cannot be read.
        StorageError: the URL cannot be read.
    """
    if is_url(folder):
        bucket = Bucket(folder)
        bucket.check_readable()
        names = tuple(bucket.files())
        if not names:
            raise DataError(f"A folder of photos must hold some. Found no file at {folder}.")
        return UnlabelledPhotos(folder, names)
    return UnlabelledPhotos(folder, tuple(list_files(_find(folder))))


def describe_unlabelled(folder: str) -> Description:
    """Describe what `open_unlabelled` finds by names, sizes and times or versions, without reading a photo."""
    if is_url(folder):
        bucket = Bucket(folder)
        bucket.check_readable()
        files = bucket.files()
        return describe_files((name, info.size_bytes, info.version) for name, info in files.items())
    path = _find(folder)
    stats = ((name, stat_file(path / name)) for name in list_files(path))
    return describe_files((name, stat.st_size, stat.st_ctime_ns) for name, stat in stats)


def _find(folder: str) -> Path:
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise DataError(f"Photos without labels lie in a folder or at a URL. Received: {folder} ({path.absolute()}).")
    return path
