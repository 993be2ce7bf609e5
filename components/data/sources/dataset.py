"""Photos of a data set that TensorFlow Datasets knows: downloaded and written to disk once, and read from there."""

import logging
import re
import urllib.parse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from components.artifacts.examples import SPLITS
from components.data.sources.source import SYNTHETIC, Description, Photo, Source
from components.errors import DataError

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

log = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z][a-z0-9_]*(/[\w.\-]+)?(:[\w.\-]+)?")
_PROBE_TIMEOUT_S = 10
_ADVICE = f"Give another name, a folder of <class>/*.jpg, or {SYNTHETIC}."


def is_dataset_name(text: str) -> bool:
    """Return whether a text can be the name of a data set, with or without configuration and version."""
    return _NAME.fullmatch(text) is not None


def describe_dataset(name: str) -> Description:
    """Describe a data set by its name; nothing is downloaded."""
    return {"kind": "tfds", "name": name}


def open_dataset(name: str) -> Source:
    """Open a data set, and download it first where that was not done before.

    Raises:
        DataError: there is no such data set of images and labels, or it cannot be downloaded.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name)
    except tfds.core.DatasetNotFoundError as exc:
        raise DataError(f"{name!r} is neither a folder here nor a TensorFlow Datasets name. {_ADVICE}") from exc
    except (ValueError, AssertionError) as exc:  # another configuration or version than there are
        raise DataError(f"{name!r} is no TensorFlow Datasets name: {str(exc).splitlines()[0]} {_ADVICE}") from exc
    image, label = (builder.info.supervised_keys or (None, None))[:2]
    features = dict(builder.info.features)
    if not (
        isinstance(features.get(image), tfds.features.Image)
        and isinstance(features.get(label), tfds.features.ClassLabel)
    ):
        raise DataError(
            f"The data set {name!r} is not for image classification: it has no (image, label) pairs. {_ADVICE}"
        )
    _prepare(builder)
    splits = tuple(s for s in SPLITS if s in builder.info.splits)
    if others := sorted(set(builder.info.splits) - set(splits)):
        log.warning("examples: %s is read without its splits %s", builder.info.full_name, ", ".join(others))
    num_photos = sum(builder.info.splits[s].num_examples for s in splits)
    photos = _read_photos(builder, splits, image=image, label=label)
    return Source(builder.info.full_name, tuple(features[label].names), splits, num_photos, photos)


def _read_photos(builder: "DatasetBuilder", splits: tuple[str, ...], *, image: Any, label: Any) -> Iterator[Photo]:
    import tensorflow_datasets as tfds

    decoders = {image: tfds.decode.SkipDecoding()}
    for split in splits:
        rows = builder.as_dataset(split=split, decoders=decoders, shuffle_files=False)
        for number, row in enumerate(rows.as_numpy_iterator()):
            yield Photo(f"{split}/{number}", int(row[label]), split, row[image])


def _prepare(builder: "DatasetBuilder") -> None:
    """Download a data set and write it to disk, unless that was done before."""
    import requests

    if builder.data_path.exists():
        return
    try:
        # TensorFlow Datasets retries a dead host for minutes; one request of our own fails in seconds.
        for host in {
            urllib.parse.urlsplit(url)._replace(path="", query="").geturl() for url in builder.url_infos or ()
        }:
            requests.head(host, timeout=_PROBE_TIMEOUT_S)
        builder.download_and_prepare()
    except Exception as exc:  # builders raise whatever their download or their archive raises
        raise DataError(f"The data set {builder.name!r} cannot be downloaded or prepared: {exc}. {_ADVICE}") from exc
