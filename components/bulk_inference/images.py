"""Which images are classified, and their content: in folders of this machine or at URLs."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from client.classifier_client import ImageError
from client.classifier_client.command import SUFFIXES, expand
from components.errors import InferenceError
from components.storage.bucket import Bucket, is_url


def list_images(path_or_url: str) -> list[str]:
    """Return the images of a folder, a pattern or a file, by path or URL: sorted, each once.

    Raises:
        InferenceError: there are none.
        StorageError: the URL cannot be read.
    """
    images = _list_bucket(path_or_url) if is_url(path_or_url) else _list_paths(path_or_url)
    if not images:
        raise InferenceError(
            f"--input is a folder with images ({', '.join(SUFFIXES)}), a pattern or a file. Nothing is there that "
            f"matches {path_or_url}."
        )
    return sorted(set(images))


def fetch_image(path_or_url: str) -> str | bytes | ImageError:
    """Return what the client takes: a path as it is, of a URL the content, or the reason why there is none.

    Raises:
        StorageError: the bucket cannot be read.
    """
    if not is_url(path_or_url):
        return path_or_url
    folder, _, name = path_or_url.rpartition("/")
    content = Bucket(folder).read(name)
    return (
        ImageError(path_or_url, "cannot be read (there is no such file); check the URL") if content is None else content
    )


def _list_paths(pattern: str) -> Sequence[str]:
    try:
        return [image for image in expand(pattern) if isinstance(image, str) and Path(image).is_file()]
    except ValueError as exc:
        raise InferenceError(f"{exc} Choose another --input.") from exc


def _list_bucket(pattern: str) -> Sequence[str]:
    bucket = Bucket(pattern)
    images = [name for name in bucket.files() if PurePosixPath(name).suffix.lower() in SUFFIXES]
    if not images:
        folder = re.split(r"[*?[]", pattern)[0].rpartition("/")[0]
        bucket = Bucket(folder)
        images = bucket.match(pattern.removeprefix(f"{folder}/"))
    return [f"{bucket}/{name}" for name in images if not PurePosixPath(name).name.startswith(".")]
