"""What every kind of source returns: class names, and photos as encoded bytes in an order that does not change."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

SYNTHETIC = "synthetic"
"""Name of the drawn flowers."""

NOTHING = "none"
"""Name of the source without photos: all labels are decisions of people."""

Description = dict[str, str | int]
"""What a source holds, found without reading its photos; where the photos change, so does this."""


@dataclass(frozen=True)
class Photo:
    """One labelled photo as it was found.

    Attributes:
        name: its path below the source's folder, or its number in the data set.
        label: index into the source's class names.
        split: where the source itself puts it; `train` where the source has no splits.
        encoded: the bytes of the image file; empty where the file could not be read.
        reason: why it could not be read.
    """

    name: str
    label: int
    split: str
    encoded: bytes
    reason: str = ""

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file, in hexadecimal digits."""
        return hashlib.sha256(self.encoded).hexdigest()


@dataclass(frozen=True)
class Source:
    """Labelled photos, ready to be read.

    Attributes:
        resolved: what was really taken: a path or URL, a data set's full name, or `synthetic`.
        class_names: the labels, in the order of their indices.
        splits: the splits that the source brings; `train` alone where it has none of its own.
        num_photos: the number of `photos`.
        photos: the photos, which can be read once.
        fallback: why it is not what the user may have hoped for, or `None`.
        unlabelled: paths of photos that lie beside the class folders, and so have no label.
    """

    resolved: str
    class_names: tuple[str, ...]
    splits: tuple[str, ...]
    num_photos: int
    photos: Iterable[Photo]
    fallback: str | None = None
    unlabelled: tuple[str, ...] = ()


def describe_files(files: Iterable[tuple[str, int, str | int]]) -> Description:
    """Describe files by their names, which need not be UTF-8, sizes and versions (or times)."""
    num_files, digest = 0, hashlib.sha256()
    for name, size_bytes, version in files:
        line = f"{name} {size_bytes} {version}"
        digest.update((f"\n{line}" if num_files else line).encode(errors="surrogateescape"))
        num_files += 1
    return {"kind": "folder", "num_files": num_files, "digest": digest.hexdigest()}
