"""Local copies of what lies at URLs, below the folder that `PIPELINE_CACHE` names, or else `.cache`.

Everything in it can be fetched again: it may be removed whenever no pipeline runs.
"""

import hashlib
import http.client
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from components.errors import StorageError
from components.storage.bucket import Bucket, is_url

FOLDER = "PIPELINE_CACHE"


def cache_of(url: str) -> Path:
    """Return the local folder for what is fetched from a URL."""
    return Path(os.environ.get(FOLDER, ".cache")) / hashlib.sha256(url.encode()).hexdigest()[:16]


def is_reachable(url: str, *, timeout_s: float = 5) -> bool:
    """Return whether a web server responds at a URL, whatever it says; a dead name server counts as no."""
    responses: list[bool] = []

    def request() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout_s).close()
        except urllib.error.HTTPError as response:
            response.close()
        except (OSError, http.client.HTTPException):
            return
        responses.append(True)

    # The search for an address knows no timeout, so the thread may outlive the call.
    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return bool(responses)


def fetch_file(path_or_url: str, *, beside: Iterable[str] = ()) -> Path:
    """Return the path of a file: its own, or that of a local copy of what is at the URL now.

    The copy keeps its name and its folder's, which may be a model's version.

    Args:
        path_or_url: of the file.
        beside: names of files in the same folder at the URL, of which those that are there are copied with it.

    Raises:
        StorageError: there is no file at the URL, or it cannot be read.
    """
    if not is_url(path_or_url):
        return Path(path_or_url).expanduser()
    *above, parent, name = path_or_url.split("/")
    bucket = Bucket("/".join([*above, parent]))
    found = {each: info for each in {name: None, **dict.fromkeys(beside)} if (info := bucket.find(each))}
    if name not in found:
        raise StorageError(f"There is no file at {path_or_url}. Give one that is there, or a path on this machine.")
    folder = cache_of(" ".join([path_or_url, *(info.version for info in found.values())])) / parent
    if missing := [each for each in found if not (folder / each).is_file()]:
        bucket.download(missing, folder)
    return folder / name


def fetch_folder(path_or_url: str, *, marker: str) -> Path:
    """Return the path of a folder: its own, or that of a local copy; at a URL it never changes once it has its marker.

    Raises:
        StorageError: the folder at the URL is not complete, or cannot be read.
    """
    if not is_url(path_or_url):
        return Path(path_or_url)
    local = cache_of(path_or_url)
    if not (local / marker).is_file():
        bucket = Bucket(path_or_url)
        bucket.download([name for name in bucket.files() if name != marker], local)
        bucket.download([marker], local)
    return local
