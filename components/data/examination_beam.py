"""The examination of every photo as a Beam pipeline: `Create(slices) | Reshuffle | Map(examine)`.

Reads the photos of a folder; writes the results of each slice to a folder that all workers share, from where they are
read in order. All that follows is the same as without Beam, so the examples are, byte by byte.
"""

import pickle
import shlex
from collections.abc import Iterator
from pathlib import Path

from components.data import beam
from components.data.examination import Examined, make_examiner
from components.data.sources.folder import FolderPhotos
from components.data.sources.source import Source
from components.errors import DataError
from components.storage.files import atomic_write

SLICE_SIZE = 256


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
    from apache_beam import Map

    slices = [(work_dir / str(number), photos) for number, photos in enumerate(source.photos.slices(SLICE_SIZE))]
    beam.run(slices, Map(_examine_slice), num_workers=0, options=shlex.split(beam_options))
    for path, photos in slices:
        with path.open("rb") as file:
            for _ in photos.files:
                yield pickle.load(file)
        path.unlink()
    work_dir.rmdir()


def _examine_slice(work: tuple[Path, FolderPhotos]) -> None:
    path, photos = work
    examiner = make_examiner()
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        for photo in photos:
            pickle.dump(examiner(photo), file)
