"""Local copies of what lies at URLs, below the folder that `PIPELINE_CACHE` names, or else `.cache`.

Everything in it can be fetched again: it may be removed whenever no pipeline runs.
"""

import hashlib
import os
from pathlib import Path

from components.errors import StorageError
from components.storage.bucket import Bucket

FOLDER = "PIPELINE_CACHE"


def cache_of(url: str) -> Path:
    """Give the local folder for what is fetched from a URL."""
    return Path(os.environ.get(FOLDER, ".cache")) / hashlib.sha256(url.encode()).hexdigest()[:16]


def fetch_file(url: str) -> Path:
    """Give a local copy of the file at a URL; one that has not changed since is not fetched again.

    Raises:
        StorageError: there is no such file, or it cannot be read.
    """
    folder, _, name = url.rpartition("/")
    bucket = Bucket(folder)
    found = bucket.find(name)
    if found is None:
        raise StorageError(f"There is no file at {url}. Give one that is there, or a path on this machine.")
    local = cache_of(f"{url} {found.version}")
    if not (local / name).is_file():
        bucket.download([name], local)
    return local / name


def fetch_folder(url: str, *, marker: str) -> Path:
    """Give a local copy of a folder at a URL that never changes once its marker is there.

    Raises:
        StorageError: the folder is not complete, or cannot be read.
    """
    local = cache_of(url)
    if not (local / marker).is_file():
        bucket = Bucket(url)
        bucket.download([name for name in bucket.files() if name != marker], local)
        bucket.download([marker], local)
    return local
