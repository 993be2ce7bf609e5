"""Folders of small files, on disk and in a bucket."""

import os
from pathlib import Path

from components.storage.bucket import Bucket
from tests.s3 import S3


def fill(folder: Path, *names: str) -> Path:
    """Write files whose content is their name; a name with a slash at its end is a folder."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            path.write_bytes(os.fsencode(name))
    return folder


def fill_bucket(s3: S3, *names: str) -> Bucket:
    """Write objects whose content is their name below `photos`."""
    for name in names:
        s3.put(f"photos/{name}", name.encode())
    return Bucket(f"{s3.url}/photos")
