"""Which photo a file means: paths of other tools and machines, turned into contents.

A path that a file has and a path that is known are the same photo where one is the end of the other: `1.jpg` and
`C:\\photos\\roses\\1.jpg` are both `roses/1.jpg`, and `tulips/1.jpg` is not. The longest such match counts.
"""

import hashlib
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from components.data.sources.unlabelled import UnlabelledPhotos

_UPLOAD = re.compile(r"[0-9a-f]{8}-(.+)")
"""A file's name as Label Studio keeps an upload: after the first 8 digits of a UUID."""


class Photo(NamedTuple):
    """A photo's path and the SHA-256 of its content."""

    path: str
    sha256: str


def find_known(wanted: Iterable[str], known: Mapping[str, str]) -> dict[str, list[Photo]]:
    """Find photos among those whose contents are known.

    Args:
        wanted: paths, URLs or names as another tool wrote them.
        known: SHA-256 by path.

    Returns:
        For each that was found one photo, or several with different contents.

    >>> known = {"roses/1.jpg": "aa", "tulips/1.jpg": "bb", "tulips/2.jpg": "cc"}
    >>> {name: len(photos) for name, photos in find_known(["/data/roses/1.jpg", "1.jpg", "2"], known).items()}
    {'/data/roses/1.jpg': 1, '1.jpg': 2, '2': 1}
    """
    names = _Names(known)
    found = {photo: {known[path]: Photo(path, known[path]) for path in names.find(photo)} for photo in wanted}
    return {photo: list(by_content.values()) for photo, by_content in found.items() if by_content}


def find_in(wanted: Iterable[str], photos: UnlabelledPhotos) -> dict[str, list[Photo]]:
    """Find photos in a folder or at a URL; only those that are found are read.

    Raises:
        StorageError: the URL cannot be read.
    """
    names = _Names(photos.names)
    found = {photo: names.find(photo) for photo in wanted}
    needed = tuple(sorted({name for matches in found.values() for name in matches}))
    read = UnlabelledPhotos(photos.folder, needed)
    contents = {
        name: Photo(photo.name, hashlib.sha256(photo.encoded).hexdigest())
        for name, photo in zip(needed, read, strict=True)
        if photo.encoded
    }
    unique = {
        photo: {contents[n].sha256: contents[n] for n in matches if n in contents} for photo, matches in found.items()
    }
    return {photo: list(by_content.values()) for photo, by_content in unique.items() if by_content}


class _Names:
    """Known paths: with the endings of their files, without, and as uploads."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths, self._stems = _Ends(), _Ends()
        self._uploads: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            self._paths.add(path, path)
            self._stems.add(posixpath.splitext(path)[0], path)
            self._uploads[_as_upload(posixpath.basename(path))].append(path)

    def find(self, photo: str) -> list[str]:
        """Return the known paths that a path of another tool may mean."""
        parts = _split(photo)
        if not parts:
            return []
        # FiftyOne leaves the endings out.
        if matches := self._paths.find(parts) or self._stems.find(parts):
            return matches
        upload = _UPLOAD.fullmatch(parts[-1])
        return self._uploads.get(_as_upload(upload[1]), []) if upload else []


class _Ends:
    """Paths by their ends: `a/b/c` by `a/b/c`, `b/c` and `c`."""

    def __init__(self) -> None:
        self._by_end: dict[str, list[str]] = defaultdict(list)
        self._by_whole: dict[str, list[str]] = defaultdict(list)

    def add(self, key: str, path: str) -> None:
        ends = _list_ends(_split(key))
        for whole in ends[:1]:
            self._by_whole[whole].append(path)
        for end in ends:
            self._by_end[end].append(path)

    def find(self, parts: Sequence[str]) -> list[str]:
        """Return the paths that end with all of these parts, or else the longest ones that these parts end with."""
        first, *others = _list_ends(parts)
        return self._by_end.get(first) or next((self._by_whole[end] for end in others if end in self._by_whole), [])


def _list_ends(parts: Sequence[str]) -> list[str]:
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _split(photo: str) -> list[str]:
    """Return the parts of a path: of Label Studio's URLs, of any URL, of Windows, or of this machine.

    >>> _split("/data/local-files/?d=roses/a%20b.jpg"), _split("C:\\\\roses\\\\1.jpg"), _split("s3://b/1.jpg?X-Key=2")
    (['roses', 'a b.jpg'], ['roses', '1.jpg'], ['s3:', 'b', '1.jpg'])
    """
    url = urlsplit(photo) if "://" in photo or photo.startswith("/data/") else None
    if url and url.path.endswith("/data/local-files/"):
        photo = parse_qs(url.query).get("d", [""])[0]
    elif url:
        scheme = f"{url.scheme}://{url.netloc}" if url.scheme else ""
        photo = scheme + unquote(url.path)
    else:
        photo = re.sub(r"^[A-Za-z]:(?=[\\/])", "", photo)
        if "/" not in photo or photo.startswith("\\"):
            photo = photo.replace("\\", "/")
    return [part for part in photo.split("/") if part not in ("", ".")]


def _as_upload(name: str) -> str:
    """Return a file's name as an upload to Label Studio keeps it: spaces are underscores, and signs are left out."""
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))
