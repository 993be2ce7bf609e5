"""The choice of a source by what the user named: a folder, a URL, a data set, `synthetic` or `auto`."""

import logging
from pathlib import Path

from components.data.sources.bucket import describe_bucket, open_bucket
from components.data.sources.dataset import describe_dataset, is_dataset_name, open_dataset
from components.data.sources.drawn import open_drawn
from components.data.sources.folder import describe_folder, open_folder
from components.data.sources.source import NOTHING, SYNTHETIC, Description, Source
from components.errors import DataError
from components.storage.bucket import Bucket, is_url

log = logging.getLogger(__name__)

AUTO, DEFAULT_DATASET = "auto", "tf_flowers"


def describe_source(source: str) -> Description:
    """Describe what a source holds without reading its photos.

    Raises:
        DataError: the folder does not exist or holds no classes, or the source is neither a folder nor a valid name.
        StorageError: the URL cannot be read.
    """
    if source in (AUTO, SYNTHETIC, NOTHING):
        return {"kind": source}
    if is_url(source):
        return describe_bucket(Bucket(source))
    path = Path(source).expanduser()
    if path.is_dir():
        return describe_folder(path)
    if path.exists():
        raise DataError(
            f"A data source is a folder with one subfolder for each class. Received a file: {source}. "
            "Unpack an archive first."
        )
    if not is_dataset_name(source):
        raise DataError(
            f"The folder does not exist: {source} (looked for {path.absolute()}). Give a folder of <class>/*.jpg, a "
            f"TensorFlow Datasets name such as {DEFAULT_DATASET}, or {SYNTHETIC}."
        )
    return describe_dataset(source)


def open_source(source: str, *, num_synthetic_per_class: int, seed: int) -> Source:
    """Open a source; `auto` takes TensorFlow Datasets' flowers or, where they cannot be had, the drawn ones.

    Raises:
        DataError: a named source cannot be had.
        StorageError: the URL cannot be read.
    """
    if source == NOTHING:
        return Source(NOTHING, (), ("train",), 0, ())
    if source == SYNTHETIC:
        return open_drawn(num_per_class=num_synthetic_per_class, seed=seed)
    if source == AUTO:
        try:
            return open_dataset(DEFAULT_DATASET)
        except DataError as exc:
            reason = f"{exc} Trained on drawn flowers instead: good for trying the pipeline, not for photos."
            log.warning("DATA FELL BACK TO DRAWN FLOWERS. %s", reason)
            return open_drawn(num_per_class=num_synthetic_per_class, seed=seed, fallback=reason)
    if is_url(source):
        return open_bucket(Bucket(source))
    if Path(source).expanduser().is_dir():
        return open_folder(Path(source).expanduser())
    return open_dataset(source)
