"""The examination of every photo as a Beam pipeline: `Create(slices) | Reshuffle | Map(examine)`.

Reads the photos of a folder; writes the results of each slice to a folder that all workers share, from where they are
read in order. All that follows is the same as without Beam, so the examples are, byte by byte.
"""

import pickle
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from components.data import beam
from components.data.examination import Examined, make_examiner
from components.data.sources.folder import FolderPhotos
from components.data.sources.source import Source
from components.errors import DataError
from components.storage.files import atomic_write

SLICE_SIZE = 256


@dataclass(frozen=True)
class _Slice:
    """Photos whose results go to one file."""

    path: Path
    photos: FolderPhotos


def examine(source: Source, work_dir: Path, *, beam_options: str) -> Iterator[Examined]:
    """Examine every photo of a folder; see `components.data.examination.examine`.

    Raises:
        DataError: the source is no folder.
        BeamError: Beam is not installed, or the pipeline failed.
    """
    if not isinstance(source.photos, FolderPhotos):
        raise DataError(
            f"Beam reads the photos of a folder. Received: {source.resolved}. Give one, or set examples.engine=local."
        )
    beam.require("examples.engine=beam")
    work_dir = work_dir.absolute()
    photos = replace(source.photos, folder=source.photos.folder.absolute())
    slices = [_Slice(work_dir / str(number), some) for number, some in enumerate(photos.slices(SLICE_SIZE))]
    beam.make_files(_examine_slice, slices, options=shlex.split(beam_options))
    for each in slices:
        with each.path.open("rb") as file:
            for _ in each.photos.files:
                yield pickle.load(file)
        each.path.unlink()
    work_dir.rmdir()


def _examine_slice(work: _Slice) -> None:
    examiner = make_examiner()
    with atomic_write(work.path) as temporary, temporary.open("wb") as file:
        for photo in work.photos:
            pickle.dump(examiner(photo), file)
