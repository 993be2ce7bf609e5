"""Which images are classified, what each of them was when it was listed, and its content: in folders here or at URLs.

No file that is meant to be an image is left out: one that cannot be read, or whose format the client does not know, is
listed with or gets the reason. All other files are counted.
"""

import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path, PurePath, PurePosixPath

from client.classifier_client import ImageError
from client.classifier_client.decoding import SUFFIXES
from components.errors import InferenceError
from components.storage.bucket import Bucket, is_url
from components.storage.files import FileInfo
from components.storage.spill import DiskList, sort

# Named as images whether or not the client reads them: its reason why not goes into their row.
_OTHER_SUFFIXES = """
    .apng .arw .avif .cr2 .cr3 .dib .dng .heic .heif .hif .ico .j2k .jfif .jif .jp2 .jpe .jxl .nef .orf .pbm .pcx .pgm
    .pnm .ppm .psd .raf .rw2 .svg .tga .tif .tiff
"""
_IMAGE_SUFFIXES = frozenset(SUFFIXES) | frozenset(_OTHER_SUFFIXES.split())
_HIDDEN, _NO_SUFFIX, _LOOP = "hidden", "without a suffix", "a link to a folder above"


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image as it was when it was listed.

    Attributes:
        path: or its URL.
        version: size and time of change, or the version of the bucket; empty where there is an error.
        error: why it cannot be read; the path may be a folder's.
    """

    path: str
    version: str = ""
    error: str | None = None


@dataclass(frozen=True)
class Listing:
    """What is there.

    Attributes:
        images: sorted by their paths, each once; on disk where there are many.
        left_out: how many other files there are, by their suffix.
    """

    images: DiskList[ListedImage] = field(default_factory=DiskList)
    left_out: Counter[str] = field(default_factory=Counter)

    def describe_left_out(self) -> str:
        """Return one line, as `12 other files left out: .txt 10, .json 2`; empty where there are none."""
        if not self.left_out:
            return ""
        most_first = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
        by_suffix = ", ".join(f"{suffix} {count}" for suffix, count in most_first)
        return f"{self.left_out.total()} other files left out: {by_suffix}"


def list_images(path_or_url: str) -> Listing:
    """Return the images of a folder, a pattern or a file, by path or URL.

    Links to folders are followed. What a pattern names is an image, whatever its suffix.

    Raises:
        InferenceError: there are none, or nothing can be read.
        StorageError: the URL cannot be read.
        OSError: the folder for temporary files is full.
    """
    left_out: Counter[str] = Counter()
    found = (_list_bucket if is_url(path_or_url) else _list_paths)(path_or_url, left_out)
    images = DiskList(_each_once(sort(found, key=attrgetter("path"))))
    listing = Listing(images, left_out)
    if not listing.images:
        others = listing.describe_left_out()
        raise InferenceError(
            f"--input is a folder with images ({', '.join(SUFFIXES)}), a pattern or a file. Nothing is there that "
            f"matches {path_or_url}{f' ({others})' if others else ''}. Choose another --input."
        )
    first = next(iter(listing.images))
    if len(listing.images) == 1 and first.path == path_or_url and first.error:
        raise InferenceError(f"--input must be readable. {path_or_url}: {first.error}. Choose another --input.")
    return listing


def fetch_image(image: ListedImage) -> str | bytes | ImageError:
    """Return what the client takes: a path as it is, of a URL the content, or the reason why there is none.

    Raises:
        StorageError: the bucket cannot be read.
    """
    if image.error:
        return ImageError(image.path, image.error)
    if not is_url(image.path):
        return image.path
    folder, _, name = image.path.rpartition("/")
    content = Bucket(folder).read(name)
    return (
        ImageError(image.path, "cannot be read (there is no such file); check the URL") if content is None else content
    )


def _each_once(images: Iterable[ListedImage]) -> Iterator[ListedImage]:
    """Yield the last of those that follow each other with the same path."""
    for _, same in groupby(images, key=attrgetter("path")):
        *_, last = same
        yield last


def _list_paths(pattern: str, left_out: Counter[str]) -> Iterator[ListedImage]:
    is_pattern = glob.has_magic(pattern) and not os.path.lexists(pattern)
    # Path's own glob takes no absolute patterns.
    paths = glob.iglob(pattern, recursive=True) if is_pattern else [pattern]  # noqa: PTH207
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112 (Path's raises behind a folder that cannot be read)
            yield from _walk(path, left_out)
        elif os.path.lexists(path):
            yield _describe(path)


def _walk(folder: str, left_out: Counter[str]) -> Iterator[ListedImage]:
    """Yield the images below a folder, and each folder below it that cannot be read."""
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [(str(Path(folder)), frozenset())]
    while waiting:
        path, above = waiting.pop()
        try:
            status = Path(path).stat()
        except OSError as exc:
            yield _unreadable(path, exc)
            continue
        here = (status.st_dev, status.st_ino)
        if here in above:
            left_out[_LOOP] += 1
            continue
        for entry in _read_folder(path):
            if isinstance(entry, ListedImage):
                yield entry
                continue
            below = entry.name if path == os.curdir else entry.path
            if _is_folder(entry):
                waiting.append((below, above | {here}))
            elif (label := _label(entry.name)) is None or (label == _NO_SUFFIX and _is_broken(entry)):
                yield _describe(below)
            else:
                left_out[label] += 1


def _read_folder(path: str) -> Iterator[os.DirEntry[str] | ListedImage]:
    """Yield the entries as they are read, for there may be a million; a folder that cannot be read, as its row."""
    num_read = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                num_read += 1
                yield entry
    except OSError as exc:
        yield _unreadable(path, exc, num_read)


def _unreadable(folder: str, exc: OSError, num_read: int = 0) -> ListedImage:
    if num_read:
        reason = f"this folder cannot be read to its end ({exc.strerror}): not all of its images have rows"
    else:
        reason = f"this folder cannot be read ({exc.strerror}): its images have no rows"
    return ListedImage(folder, error=reason)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # The entry's own method, and Path's, raise for some broken links.
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))  # noqa: PTH112


def _is_broken(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a link to what is not there: it may have been a folder."""
    return entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110


def _label(name: str) -> str | None:
    """Return as what a file is left out; `None` for an image."""
    if name.startswith("."):
        return _HIDDEN
    suffix = PurePath(name).suffix.lower()
    return None if suffix in _IMAGE_SUFFIXES else suffix or _NO_SUFFIX


def _describe(path: str) -> ListedImage:
    try:
        status = Path(path).stat()
    except OSError as exc:
        return ListedImage(path, error=f"cannot be read ({exc.strerror}); check the file or the link")
    if not stat.S_ISREG(status.st_mode):
        return ListedImage(path, error="is no regular file; give an image")
    # Permissions are part of what is listed: a file that becomes readable has the same size and time.
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        return ListedImage(path, error="cannot be read (no permission); change its permissions")
    return ListedImage(path, version=_version(FileInfo(status.st_size, str(status.st_ctime_ns))))


def _version(info: FileInfo) -> str:
    return f"{info.size_bytes} {info.version}".rstrip()


def _list_bucket(pattern: str, left_out: Counter[str]) -> Iterator[ListedImage]:
    bucket = Bucket(pattern)
    files = {}
    for name, info in bucket.files().items():
        if (label := _label(PurePosixPath(name).name)) is None:
            files[name] = info
        else:
            left_out[label] += 1
    if not files:
        folder = re.split(r"[*?[]", pattern)[0].rpartition("/")[0]
        bucket = Bucket(folder)
        matches = bucket.match(pattern.removeprefix(f"{folder}/"))
        files = {name: info for name, info in matches.items() if not PurePosixPath(name).name.startswith(".")}
    for name, info in files.items():
        yield ListedImage(f"{bucket}/{name}", version=_version(info))
