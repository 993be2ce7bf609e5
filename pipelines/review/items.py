"""What is to be looked at: an item for each photo, by source. A further source is a function that returns items."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from components.artifacts.examples import IndexRow, read_examples, read_image, read_index
from components.artifacts.suspects import SUSPECTS_FILE, Suspect, read_suspects
from components.data.sources.unlabelled import UnlabelledPhotos
from components.errors import DataError
from pipelines.captured import Unsure, read_photo

_EXAMPLES = Path("steps", "examples")


@dataclass(frozen=True)
class Item:
    """A photo to look at.

    Attributes:
        sha256: of the photo's file.
        photo: its path, for people.
        why: it is shown, such as `suspect`.
        read: returns the encoded image.
        given_label: its class at the source; `None` where it has none.
        suggested_label: the class that the model would rather give it; `None` where it was not asked.
        score: how improbable the given label is, 0–1.
    """

    sha256: str
    photo: str
    why: str
    read: Callable[[], bytes] = field(repr=False)
    given_label: str | None = None
    suggested_label: str | None = None
    score: float | None = None


def has_suspects(run_dir: Path) -> bool:
    """Return whether a run says which labels it doubts, if any, and its examples are there."""
    return (run_dir / SUSPECTS_FILE).is_file() and (run_dir / _EXAMPLES / "examples.json").is_file()


def read_class_names(run_dir: Path) -> list[str]:
    """Read the classes of a run; none where there is no run."""
    examples_dir = run_dir / _EXAMPLES
    return read_examples(examples_dir)["class_names"] if (examples_dir / "examples.json").is_file() else []


def read_suspects_of(run_dir: Path) -> list[Item]:
    """Return the photos of train whose labels are doubted, those to be looked at first; none where there is no run.

    Raises:
        DataError: the run's examples have an index that cannot be read.
    """
    if not has_suspects(run_dir):
        return []
    examples_dir = (run_dir / _EXAMPLES).resolve()  # the link may point to another run's while this one is shown
    suspects = {suspect["photo"]: suspect for suspect in read_suspects(run_dir)}
    rows = {
        row["filename"]: row
        for row in read_index(examples_dir)
        if row["split"] == "train" and row["filename"] in suspects
    }
    ordered = sorted(suspects.values(), key=lambda suspect: (not suspect["is_suspect"], -suspect["score"]))
    return [_of_suspect(examples_dir, each, rows[each["photo"]]) for each in ordered if each["photo"] in rows]


def of_selected(photos: UnlabelledPhotos, selected: Iterable[tuple[str, str, str]]) -> list[Item]:
    """Return the items of photos without labels: (path, SHA-256, reason), in their order."""
    return [
        Item(sha256, as_text(path), f"selected: {reason}", partial(_read_unlabelled, photos, path, sha256))
        for path, sha256, reason in selected
    ]


def of_captured(photos: Iterable[Unsure]) -> list[Item]:
    """Return the items of captured photos, in their order."""
    return [
        Item(
            photo.sha256,
            photo.name,
            f"captured: {photo.reason}",
            partial(read_photo, photo.position, photo.sha256),
            suggested_label=photo.label,
        )
        for photo in photos
    ]


def _of_suspect(examples_dir: Path, suspect: Suspect, row: IndexRow) -> Item:
    return Item(
        row["sha256"],
        as_text(suspect["photo"]),
        "suspect" if suspect["is_suspect"] else "doubted",
        partial(read_image, examples_dir, row),
        given_label=suspect["label"],
        suggested_label=suspect["suggested_label"],
        score=suspect["score"],
    )


def _read_unlabelled(photos: UnlabelledPhotos, path: str, sha256: str) -> bytes:
    encoded = photos.read(path)
    if hashlib.sha256(encoded).hexdigest() != sha256:
        raise DataError(f"{path} is another photo than the one that was chosen: the file has changed.")
    return encoded


def as_text(path: str) -> str:
    """Return a path as UTF-8 can have it: a file's name may hold any byte."""
    return path.encode("utf-8", "replace").decode()
