"""Folders of photos beside the examples, to judge a model on: of other things, or of its classes from elsewhere.

Photos are checked, and brought into a format that is served, as those of the examples are.
"""

import difflib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.data.sources.folder import describe_folder, open_folder
from components.data.sources.source import Description, Photo
from components.data.sources.unlabelled import describe_unlabelled, open_unlabelled
from components.errors import EvaluationError
from components.progress import Progress

if TYPE_CHECKING:
    import tensorflow as tf

log = logging.getLogger(__name__)

FOREIGN, OTHER = "evaluator.foreign_photos", "evaluator.other_photos"


@dataclass(frozen=True)
class Photos:
    """Photos that can be read.

    Attributes:
        folder: where they were found.
        pool: a TFRecord file of their encoded bytes.
        labels: `int64 [N]`, -1 for a photo of no class.
        num_unreadable: files of the folder that are left out.
    """

    folder: str
    pool: Path
    labels: NDArray[np.int64]
    num_unreadable: int

    def read(self) -> "tf.data.Dataset":
        """Read the encoded photos, `string []`."""
        import tensorflow as tf

        return tf.data.TFRecordDataset([str(self.pool)])


def describe_foreign(folder: str) -> Description:
    """Describe a folder of photos of other things; where they change, so does this."""
    return describe_unlabelled(str(_find(folder, FOREIGN)))


def describe_other(folder: str) -> Description:
    """Describe a folder of `<class>/*.jpg` likewise."""
    return describe_folder(_find(folder, OTHER))


def open_foreign(folder: str, *, pool: Path) -> Photos:
    """Read the photos of other things below a folder, in any depth, into a pool.

    Raises:
        EvaluationError: there is no folder, or no image in it that can be read.
        DataError: it is empty, or a folder in it cannot be read.
    """
    photos = open_unlabelled(str(_find(folder, FOREIGN)))
    return _pool(photos, len(photos.names), folder, FOREIGN, pool)


def open_other(folder: str, *, class_names: Sequence[str], pool: Path) -> Photos:
    """Read the photos of a folder of `<class>/*.jpg` into a pool; a model's classes may be missing.

    Raises:
        EvaluationError: there is no folder, a class is none of the model's, or no image can be read.
        DataError: it holds no class folders, or one cannot be read.
    """
    source = open_folder(_find(folder, OTHER))
    for name in source.class_names:
        if name not in class_names:
            nearest = difflib.get_close_matches(name, class_names, n=1, cutoff=0.4)
            hint = f"Did you mean {nearest[0]}?" if nearest else f"They are {', '.join(class_names)}."
            raise EvaluationError(
                f"The class folders of {OTHER} must be named as the model's classes are. Received: {name} in {folder}. "
                f"{hint}"
            )
    photos = _pool(source.photos, source.num_photos, folder, OTHER, pool)
    to_label = np.array([class_names.index(name) for name in source.class_names])
    return Photos(folder, pool, to_label[photos.labels], photos.num_unreadable)


def _find(folder: str, option: str) -> Path:
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise EvaluationError(f"{option} must be a folder of this machine. Received: {folder} ({path.absolute()}).")
    return path


def _pool(photos: Iterable[Photo], num_photos: int, folder: str, option: str, pool: Path) -> Photos:
    import tensorflow as tf

    from components.data import examination

    labels: list[int] = []
    reasons: list[str] = []
    progress = Progress(examination.examine(photos), total=num_photos, desc=f"reading {option}", unit="photo")
    with tf.io.TFRecordWriter(str(pool)) as writer:
        for found, encoded in progress:
            if isinstance(found, examination.Candidate):
                labels.append(found.label)
                writer.write(encoded)
            else:
                reasons.append(f"{found['file']}: {found['reason']}")
    if not labels:
        raise EvaluationError(
            f"{option} must hold images. Received: {folder}, where none of {num_photos} files can be read. "
            f"The first: {reasons[0]}"
        )
    if reasons:
        log.warning(
            "evaluator: %d of %d files of %s cannot be read, such as %s", len(reasons), num_photos, folder, reasons[0]
        )
    return Photos(folder, pool, np.array(labels), len(reasons))
