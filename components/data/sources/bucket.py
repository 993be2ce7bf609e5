"""Photos of a folder at a URL."""

from collections.abc import Iterable, Iterator

from components.data.sources.layout import LabelledFile, read_layout
from components.data.sources.source import Description, Photo, Source, describe_files
from components.storage.bucket import Bucket


def open_bucket(bucket: Bucket) -> Source:
    """Open a folder at a URL.

    Raises:
        DataError: it holds no classes or no files.
        StorageError: the store cannot be read.
    """
    layout = read_layout(bucket.files(), origin=str(bucket))
    photos = _read_photos(bucket, layout.files)
    return Source(
        str(bucket), layout.class_names, layout.splits, len(layout.files), photos, unlabelled=layout.unlabelled
    )


def describe_bucket(bucket: Bucket) -> Description:
    """Describe a folder at a URL by its files' names, sizes and versions.

    Raises:
        DataError: it holds no classes or no files.
        StorageError: the store cannot be reached or read.
    """
    bucket.check_readable()
    files = bucket.files()
    layout = read_layout(files, origin=str(bucket))
    names = (*(file.name for file in layout.files), *layout.unlabelled)
    return describe_files((name, files[name].size_bytes, files[name].version) for name in names)


def _read_photos(bucket: Bucket, files: Iterable[LabelledFile]) -> Iterator[Photo]:
    contents = bucket.read_each(file.name for file in files)
    for file, encoded in zip(files, contents, strict=True):
        yield Photo(*file, encoded or b"", "gone" if encoded is None else "")
