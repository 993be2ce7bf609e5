"""`_manifest.json` of a folder of predictions: what its rows are made from, and how that differs from another run's."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, TypeGuard

from client.classifier_client.transports.answers import LIMITS
from components.bulk_inference.rows import COLUMNS, to_text

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


def make_manifest(model: Mapping[str, str], lines: Sequence[bytes], part_size: int) -> Manifest:
    """Return the manifest of a run.

    Args:
        model: what identifies it.
        lines: the list of images.
        part_size: images in a part.
    """
    sha256 = hashlib.sha256(b"".join(lines)).hexdigest()
    return Manifest(
        model=dict(model),
        list_of_images=ImageList(num_images=len(lines), sha256=sha256),
        part_size=part_size,
        columns=list(COLUMNS),
    )


def is_manifest(value: Any) -> TypeGuard[Manifest]:
    """Return whether a JSON value is a manifest."""
    required = Manifest.__required_keys__
    return (
        isinstance(value, dict)
        and required <= value.keys() <= required | Manifest.__optional_keys__
        and isinstance(value["list_of_images"], dict)
        and value["list_of_images"].keys() == ImageList.__required_keys__
    )


def find_changes(before: Manifest, now: Manifest, content: bytes, lines: Sequence[bytes]) -> list[str]:
    """Return what rows were made from that is another now.

    Args:
        before: the manifest that they have.
        now: the one of this run.
        content: the list of images that they have.
        lines: the list of this run.
    """
    changes = []
    if before["model"] != now["model"]:
        changes.append("model")
    if before["list_of_images"] != now["list_of_images"]:
        changes.append(f"list of images{_compare_lists(before['list_of_images']['sha256'], content, lines)}")
    if before["part_size"] != now["part_size"]:
        changes.append("part size")
    columns = before.get("columns", _OLD_COLUMNS)
    if columns != now.get("columns"):
        missing = ", ".join(name for name in COLUMNS if name not in columns)
        changes.append(f"set of columns{f' (without {missing})' if missing else ''}")
    return changes


def _compare_lists(sha256: str, content: bytes, lines: Sequence[bytes]) -> str:
    """Return in brackets how a list differs; nothing where it is gone or damaged."""
    if hashlib.sha256(content).hexdigest() != sha256:
        return ""
    try:
        before, now = (
            {image["path"]: image for image in map(json.loads, some)} for some in (content.splitlines(), lines)
        )
    except TypeError:  # the paths alone, as they were listed before
        return ""
    changed = [path for path in now if path in before and before[path] != now[path]]
    counts = {
        "new": len(now.keys() - before.keys()),
        "gone": len(before.keys() - now.keys()),
        "changed": len(changed),
    }
    counted = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    named = ", ".join(map(to_text, changed[:_NUM_NAMED])) + (", …" if len(changed) > _NUM_NAMED else "")
    return f" ({counted}{': ' if named else ''}{named})"
