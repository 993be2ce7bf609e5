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
    """Known paths, by the names of their files."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._by_upload: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            name = posixpath.basename(path)
            self._by_name[name].append(path)
            self._by_stem[posixpath.splitext(name)[0]].append(path)
            self._by_upload[_as_upload(name)].append(path)

    def find(self, photo: str) -> list[str]:
        """Return the known paths that a path of another tool means best."""
        parts = _split(photo)
        if not parts:
            return []
        if matches := _match(parts, self._by_name.get(parts[-1], ())):
            return matches
        # FiftyOne leaves the endings out.
        if matches := _match(parts, self._by_stem.get(parts[-1], ()), without_ending=True):
            return matches
        upload = _UPLOAD.fullmatch(parts[-1])
        return self._by_upload.get(_as_upload(upload[1]), []) if upload else []


def _match(parts: Sequence[str], paths: Iterable[str], *, without_ending: bool = False) -> list[str]:
    """Return the paths that end as `parts` do, or whose end those are: the ones with the longest end in common."""
    lengths: dict[str, int] = {}
    for path in paths:
        others = [part for part in (posixpath.splitext(path)[0] if without_ending else path).split("/") if part]
        length = min(len(parts), len(others))
        if list(parts[-length:]) == others[-length:]:
            lengths[path] = length
    longest = max(lengths.values(), default=0)
    return [path for path, length in lengths.items() if length == longest]


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
