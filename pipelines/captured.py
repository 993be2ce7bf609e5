"""Photos that were captured while a model was served: those worth a decision, and, decided on, those to learn from."""

import hashlib
import logging
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from components.artifacts.labels import LABEL, find_current, read_decisions
from components.errors import DataError
from components.storage.files import atomic_write
from serving.shared.capture.reader import Captured, Position, read_at, read_positions

log = logging.getLogger(__name__)

PHOTOS_DIR = "captured_photos"
"""Where captured photos are kept to learn from, beside the decisions on them."""

_SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"RIFF": ".webp"}
_STRANGE, _SEVERAL = "like none of the classes", "may be several"


class Unsure(NamedTuple):
    """A photo that the served model was not sure of.

    Attributes:
        sha256: of the encoded image.
        name: that the photo gets as a file.
        position: where it was captured.
        reason: why it is here.
        label: the most probable class.
        lead: by how much that is more probable than the next one.
    """

    sha256: str
    name: str
    position: Position
    reason: str
    label: str
    lead: float


class Extracted(NamedTuple):
    """How many photos were written as files, and how many were there already."""

    num_written: int
    num_there: int


def find_unsure(folder: Path) -> list[Unsure]:
    """Return the captured photos that look like none of the classes, or may be of several: the smallest lead first.

    A photo that was sent several times is one.

    Raises:
        OSError: the folder cannot be read.
    """
    found: dict[str, Unsure] = {}
    num_photos = num_scores = 0
    for position, photo in read_positions(folder):
        num_photos += 1
        num_scores += photo.image is None
        reason = _find_reason(photo)
        if not (photo.image and reason):
            continue
        sha256 = _digest(photo.image)
        best, second = [*sorted(photo.probabilities.tolist(), reverse=True), 0.0][:2]
        label = photo.class_names[int(photo.probabilities.argmax())]
        each = Unsure(sha256, _name(sha256, photo.image), position, reason, label, best - second)
        if sha256 not in found or each.lead < found[sha256].lead:
            found[sha256] = each
    log.info(
        "%s: %d captured photos, %d of them as scores alone; the model was not sure of %d",
        *(folder, num_photos, num_scores, len(found)),
    )
    return sorted(found.values(), key=lambda each: each.lead)


def find_labelled(labels: Path) -> set[str]:
    """Return the SHA-256 of the photos that have a label by a decision.

    Raises:
        DataError: a line of the decisions is not one.
    """
    current = find_current(read_decisions(labels))
    return {sha256 for sha256, decision in current.items() if decision["decision"] == LABEL}


def read_photo(position: Position, sha256: str) -> bytes:
    """Read a captured photo.

    Raises:
        DataError: it is not there any more.
    """
    try:
        image = read_at(position).image
    except (OSError, ValueError) as exc:
        raise DataError(f"A captured photo is gone: {exc}. It may have been deleted for its age.") from exc
    if image is None or _digest(image) != sha256:
        raise DataError(f"A captured photo is gone: {position.path} holds another one there.")
    return image


def extract(folder: Path, to: Path, *, wanted: Collection[str] | None) -> Extracted:
    """Write captured photos as files, each named by its SHA-256.

    Args:
        folder: of what was captured.
        to: the folder of the files; it is made where there is none.
        wanted: the SHA-256 of the photos; `None` for all of them.

    Raises:
        OSError: a folder cannot be read or written.
    """
    there = {path.stem for path in to.iterdir()} if to.is_dir() else set()
    written: set[str] = set()
    num_there = len(there if wanted is None else there & set(wanted))
    for _, photo in read_positions(folder):
        sha256 = _digest(photo.image) if photo.image else ""
        if photo.image and sha256 not in there | written and (wanted is None or sha256 in wanted):
            with atomic_write(to / _name(sha256, photo.image)) as temporary:
                temporary.write_bytes(photo.image)
            written.add(sha256)
    return Extracted(len(written), num_there)


def _find_reason(photo: Captured) -> str:
    if photo.is_known is False:
        return _STRANGE
    return _SEVERAL if photo.prediction_set is not None and len(photo.prediction_set) > 1 else ""


def _digest(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest()


def _name(sha256: str, image: bytes) -> str:
    return sha256 + next((suffix for begin, suffix in _SUFFIXES.items() if image.startswith(begin)), "")
