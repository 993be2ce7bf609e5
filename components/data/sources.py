"""Where labelled photos come from: a folder, here or at a URL, a TensorFlow Datasets name, or drawings of our own.

A source gives its class names and its photos one at a time, as encoded bytes, in an order that does not change.
"""

import hashlib
import io
import logging
import re
import urllib.parse
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import DataError
from components.storage.bucket import Bucket, is_url

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

log = logging.getLogger(__name__)

AUTO, SYNTHETIC, DEFAULT_DATASET = "auto", "synthetic", "tf_flowers"
SPLITS = ("train", "validation", "test")
_SPLIT_FOLDERS = {**{s: s for s in SPLITS}, "val": "validation", "valid": "validation"}
_DATASET_NAME = re.compile(r"[a-z][a-z0-9_]*(/[\w.\-]+)?(:[\w.\-]+)?")
_PROBE_TIMEOUT_S = 10

Listing = tuple[tuple[str, ...], tuple[str, ...], list[tuple[str, str, str]]]
"""The class names, the splits, and each file as (path below the folder, split, class), sorted."""


@dataclass(frozen=True)
class Photo:
    """One labelled photo as it was found.

    Attributes:
        name: its path below the source's folder, or its number in the data set.
        label: index into the source's class names.
        split: where the source itself puts it; `train` where the source has no splits.
        encoded: the bytes of the image file; empty where the file could not be read.
    """

    name: str
    label: int
    split: str
    encoded: bytes


@dataclass(frozen=True)
class Source:
    """Labelled photos, ready to be read.

    Attributes:
        resolved: what was really taken: a path or URL, a data set's full name, or `synthetic`.
        fallback: why it is not what the user may have hoped for, or `None`.
        class_names: the labels, in the order of their indices.
        splits: the splits that the source brings; `train` alone where it has none of its own.
        num_photos: how many `photos` gives.
        photos: the photos, once.
    """

    resolved: str
    fallback: str | None
    class_names: tuple[str, ...]
    splits: tuple[str, ...]
    num_photos: int
    photos: Iterable[Photo]


@dataclass(frozen=True)
class FolderPhotos:
    """Photos of a folder, read as they are asked for; small to send to another process, and in slices.

    Attributes:
        folder: on a disk.
        class_names: the labels.
        files: of each photo its path below the folder, its split and its class.
    """

    folder: Path
    class_names: tuple[str, ...]
    files: tuple[tuple[str, str, str], ...]

    def __iter__(self) -> Iterator[Photo]:
        for name, split, class_name in self.files:
            try:
                encoded = (self.folder / name).read_bytes()
            except OSError as exc:
                log.warning("%s cannot be read: %s", self.folder / name, exc)
                encoded = b""
            yield Photo(name, self.class_names.index(class_name), split, encoded)

    def slices(self, size: int) -> Iterator["FolderPhotos"]:
        for first in range(0, len(self.files), size):
            yield replace(self, files=self.files[first : first + size])


def describe(source: str) -> dict[str, str | int]:
    """Say what a source holds without reading its photos: names, sizes and times (or versions) of a folder's files.

    Raises:
        DataError: the folder does not exist or holds no classes, or the source is neither a folder nor a valid name.
        StorageError: the URL cannot be read.
    """
    if source in (AUTO, SYNTHETIC):
        return {"kind": source}
    if is_url(source):
        bucket = Bucket(source)
        bucket.check_readable()
        found = bucket.files()
        names = [name for name, _, _ in _list_names(bucket, found)[2]]
        return _describe_files(f"{name} {found[name].size_bytes} {found[name].version}" for name in names)
    path = Path(source).expanduser()
    if path.is_dir():
        files = [path / name for name, _, _ in _list_folder(path)[2]]
        return _describe_files(f"{f.relative_to(path)} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files)
    if path.exists():
        raise DataError(
            f"A data source is a folder with one subfolder for each class. Received a file: {source}. "
            "Unpack an archive first."
        )
    if not _DATASET_NAME.fullmatch(source):
        raise DataError(
            f"The folder does not exist: {source} (looked for {path.absolute()}). Give a folder of <class>/*.jpg, a "
            f"TensorFlow Datasets name such as {DEFAULT_DATASET}, or {SYNTHETIC}."
        )
    return {"kind": "tfds", "name": source}


def _describe_files(stats: Iterable[str]) -> dict[str, str | int]:
    lines = list(stats)
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return {"kind": "folder", "num_files": len(lines), "digest": digest}


def open_source(source: str, *, num_synthetic_per_class: int, seed: int) -> Source:
    """Open a source; `auto` takes TensorFlow Datasets' flowers or, where they cannot be had, the drawn ones.

    Raises:
        DataError: a named source cannot be had.
        StorageError: the URL cannot be read.
    """
    if source == SYNTHETIC:
        return _open_synthetic(num_synthetic_per_class, seed)
    if source == AUTO:
        try:
            return _open_dataset(DEFAULT_DATASET)
        except DataError as exc:
            reason = f"{exc} Trained on drawn flowers instead: good for trying the pipeline, not for photos."
            log.warning("DATA FELL BACK TO DRAWN FLOWERS. %s", reason)
            return _open_synthetic(num_synthetic_per_class, seed, fallback=reason)
    if is_url(source):
        return _open_bucket(Bucket(source))
    if Path(source).expanduser().is_dir():
        return _open_folder(Path(source).expanduser())
    return _open_dataset(source)


def _open_folder(folder: Path) -> Source:
    class_names, splits, files = _list_folder(folder)
    photos = FolderPhotos(folder, class_names, tuple(files))
    return Source(str(folder), None, class_names, splits, len(files), photos)


def _open_bucket(bucket: Bucket) -> Source:
    class_names, splits, files = _list_names(bucket, bucket.files())

    def photos() -> Iterator[Photo]:
        contents = bucket.read_each(name for name, _, _ in files)
        for (name, split, class_name), encoded in zip(files, contents, strict=True):
            if encoded is None:
                log.warning("%s/%s is not there any more", bucket, name)
            yield Photo(name, class_names.index(class_name), split, encoded or b"")

    return Source(str(bucket), None, class_names, splits, len(files), photos())


def _list_folder(folder: Path) -> Listing:
    def files(name: str) -> list[str]:
        return [
            file.relative_to(folder).as_posix()
            for file in sorted((folder / name).rglob("*"))
            if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder / name).parts)
        ]

    return _arrange(str(folder.absolute()), lambda name: [d.name for d in _subfolders(folder / name)], files)


def _list_names(bucket: Bucket, names: Iterable[str]) -> Listing:
    """List the files of a store, where a folder is but a part of their names."""
    subfolders: dict[str, set[str]] = defaultdict(set)
    files: dict[str, list[str]] = defaultdict(list)
    for path in sorted(name.split("/") for name in names):
        if not any(part.startswith(".") for part in path):
            for depth in range(min(len(path) - 1, 2)):
                subfolders["/".join(path[:depth])].add(path[depth])
                files["/".join(path[: depth + 1])].append("/".join(path))
    return _arrange(str(bucket), lambda folder: sorted(subfolders[folder]), lambda folder: files[folder])


def _arrange(place: str, subfolders: Callable[[str], list[str]], files: Callable[[str], list[str]]) -> Listing:
    """Tell classes and splits by the names of folders; both functions take a path below the place."""
    split_folders = [name for name in subfolders("") if name in _SPLIT_FOLDERS]
    roots = {_SPLIT_FOLDERS[name]: f"{name}/" for name in split_folders}
    if "train" not in roots:
        roots = {"train": ""}
    elif len(roots) < len(split_folders):
        names = ", ".join(split_folders)
        raise DataError(f"Each split has one folder. Found {names} in {place}: put val and valid together.")
    class_names = tuple(sorted({name for root in roots.values() for name in subfolders(root.rstrip("/"))}))
    if not class_names:
        raise DataError(
            f"A data folder needs one subfolder for each class, or train, validation and test with those inside. "
            f"Found none in {place}."
        )
    found = [
        (file, split, class_name)
        for split, root in roots.items()
        for class_name in subfolders(root.rstrip("/"))
        for file in files(f"{root}{class_name}")
    ]
    if not found:
        raise DataError(f"The class folders hold no files: {place}. Put photos into {', '.join(class_names)}.")
    return class_names, tuple(s for s in SPLITS if s in roots), found


def _subfolders(folder: Path) -> list[Path]:
    return sorted(d for d in folder.iterdir() if d.is_dir() and not d.name.startswith("."))


def _open_dataset(name: str) -> Source:
    import tensorflow_datasets as tfds

    advice = f"Give another name, a folder of <class>/*.jpg, or {SYNTHETIC}."
    try:
        builder = tfds.builder(name)
    except tfds.core.DatasetNotFoundError as exc:
        raise DataError(f"{name!r} is neither a folder here nor a TensorFlow Datasets name. {advice}") from exc
    except (ValueError, AssertionError) as exc:  # another configuration or version than there are
        raise DataError(f"{name!r} is no TensorFlow Datasets name: {str(exc).splitlines()[0]} {advice}") from exc
    image, label = (builder.info.supervised_keys or (None, None))[:2]
    features = dict(builder.info.features)
    if not (
        isinstance(features.get(image), tfds.features.Image)
        and isinstance(features.get(label), tfds.features.ClassLabel)
    ):
        raise DataError(
            f"The data set {name!r} is not for image classification: it has no (image, label) pairs. {advice}"
        )
    _prepare(builder, advice)
    splits = tuple(s for s in SPLITS if s in builder.info.splits)
    decoders = {image: tfds.decode.SkipDecoding()}

    def photos() -> Iterator[Photo]:
        for split in splits:
            rows = builder.as_dataset(split=split, decoders=decoders, shuffle_files=False)
            for number, row in enumerate(rows.as_numpy_iterator()):
                yield Photo(f"{split}/{number}", int(row[label]), split, row[image])

    num_photos = sum(builder.info.splits[s].num_examples for s in splits)
    return Source(builder.info.full_name, None, tuple(features[label].names), splits, num_photos, photos())


def _prepare(builder: "DatasetBuilder", advice: str) -> None:
    """Download a data set and write it to disk, unless that was done before."""
    import requests

    if builder.data_path.exists():
        return
    try:
        # TensorFlow Datasets tries a dead host for minutes; asking it once tells in seconds.
        for host in {
            urllib.parse.urlsplit(url)._replace(path="", query="").geturl() for url in builder.url_infos or ()
        }:
            requests.head(host, timeout=_PROBE_TIMEOUT_S)
        builder.download_and_prepare()
    except Exception as exc:  # builders raise whatever their download or their archive raises
        raise DataError(f"The data set {builder.name!r} cannot be downloaded or prepared: {exc}. {advice}") from exc


def _open_synthetic(num_per_class: int, seed: int, *, fallback: str | None = None) -> Source:
    from PIL import Image

    from components.data import drawn_flowers as synthetic

    def photos() -> Iterator[Photo]:
        for number in range(num_per_class):
            for label, name in enumerate(synthetic.CLASS_NAMES):
                buffer = io.BytesIO()
                pixels = synthetic.draw(name, seed=seed * num_per_class + number)
                Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
                # Of ten drawings seven are for training, one for validation and two for the test.
                split = ("test", "test", "validation")[number % 10] if number % 10 < 3 else "train"
                yield Photo(f"{split}/{name}/{number:05d}.jpg", label, split, buffer.getvalue())

    num_photos = num_per_class * len(synthetic.CLASS_NAMES)
    return Source(SYNTHETIC, fallback, synthetic.CLASS_NAMES, SPLITS, num_photos, photos())
