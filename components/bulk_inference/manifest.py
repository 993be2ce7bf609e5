"""`_manifest.json` of a folder of predictions: what its rows are made from, and how that differs from another run's."""

import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, TypedDict, TypeGuard

from client.classifier_client.transports.answers import LIMITS
from components.bulk_inference.rows import COLUMNS, to_text
from components.storage.spill import DiskList

_NUM_NAMED = 3
_OLD_COLUMNS = [name for name in COLUMNS if name not in LIMITS]
"""Of a manifest that names none."""


class ImageList(TypedDict):
    """How the list of images is known."""

    num_images: int
    sha256: str


class _Origin(TypedDict):
    model: dict[str, str]
    list_of_images: ImageList
    part_size: int


class Manifest(_Origin, total=False):
    """What the rows are made from, and which columns they have; an older version did not say the latter."""

    columns: list[str]


def make_manifest(model: Mapping[str, str], lines: DiskList[bytes], part_size: int) -> Manifest:
    """Return the manifest of a run.

    Args:
        model: what identifies it.
        lines: the list of images.
        part_size: images in a part.
    """
    return Manifest(
        model=dict(model),
        list_of_images=ImageList(num_images=len(lines), sha256=digest(lines)),
        part_size=part_size,
        columns=list(COLUMNS),
    )


def digest(pieces: Iterable[bytes]) -> str:
    """Return the SHA-256 of a list of images, in hexadecimal digits."""
    sha256 = hashlib.sha256()
    for piece in pieces:
        sha256.update(piece)
    return sha256.hexdigest()


def is_manifest(value: Any) -> TypeGuard[Manifest]:
    """Return whether a JSON value is a manifest."""
    required = Manifest.__required_keys__
    return (
        isinstance(value, dict)
        and required <= value.keys() <= required | Manifest.__optional_keys__
        and isinstance(value["list_of_images"], dict)
        and value["list_of_images"].keys() == ImageList.__required_keys__
    )


def find_changes(
    before: Manifest, now: Manifest, list_before: Iterable[bytes] | None, list_now: Iterable[bytes]
) -> list[str]:
    """Return what rows were made from that is another now.

    Args:
        before: the manifest that they have.
        now: the one of this run.
        list_before: the list of images that they have, in pieces of any length; `None` where it is gone or damaged.
        list_now: the list of this run. Both are sorted by their paths.
    """
    changes = []
    if before["model"] != now["model"]:
        changes.append("model")
    if before["list_of_images"] != now["list_of_images"]:
        changes.append(f"list of images{'' if list_before is None else _compare_lists(list_before, list_now)}")
    if before["part_size"] != now["part_size"]:
        changes.append("part size")
    columns = before.get("columns", _OLD_COLUMNS)
    if columns != now.get("columns"):
        missing = ", ".join(name for name in COLUMNS if name not in columns)
        changes.append(f"set of columns{f' (without {missing})' if missing else ''}")
    return changes


def _compare_lists(before: Iterable[bytes], now: Iterable[bytes]) -> str:
    """Return in brackets how a list differs; nothing where it has the paths alone, as they were listed before."""
    counts = {"new": 0, "gone": 0, "changed": 0}
    changed: list[str] = []
    merged = heapq.merge(_parse(before, "gone"), _parse(now, "new"), key=itemgetter(0))
    try:
        for path, found in groupby(merged, key=itemgetter(0)):
            (_, image, kind_alone), *others = found
            if not others:
                counts[kind_alone] += 1
            elif image != others[0][1]:
                counts["changed"] += 1
                changed += [path] if len(changed) < _NUM_NAMED else []
    except TypeError:
        return ""
    counted = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    named = ", ".join(map(to_text, changed)) + (", …" if counts["changed"] > _NUM_NAMED else "")
    return f" ({counted}{': ' if named else ''}{named})"


def _parse(pieces: Iterable[bytes], kind_alone: str) -> Iterator[tuple[str, dict[str, str], str]]:
    """Yield path and image of each line, and what the image is where the other list has none of this path."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for image in map(json.loads, lines):
            yield image["path"], image, kind_alone
