"""Folders at a URL: what a pipeline needs of `s3://`, `gs://` or any other store that fsspec knows, and no more.

Steps read and write local folders; what lives at a URL is fetched before and uploaded after. A store has no rename, but
an object in it is there whole or not at all. So what consists of many files is complete as long as one certain file,
its marker, is there: it is written last and removed first. A store's package is imported when a URL of its is used.
"""

import asyncio
import copy
import json
import os
import secrets
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from tqdm import tqdm

from components.errors import StorageError

PROBE_TIMEOUT_S = 10
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 3, 60
_NUM_THREADS, _NUM_AHEAD = 16, 64
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
# What stores call the thing that changes with a file's content.
_VERSION_KEYS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created")
_RAISE = object()

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class RemoteFile:
    """What a listing says of a file; `version` changes whenever its content does."""

    size_bytes: int
    version: str


class Bucket:
    """A folder at a URL. Names are paths below it, with slashes; it need not exist before it is written to.

    Every method raises `StorageError` where the store cannot be reached, read or written.
    """

    def __init__(self, url: str) -> None:
        """Take a URL; nothing goes over the network yet.

        Raises:
            StorageError: the package for this kind of URL is not installed, or there is none.
        """
        self.url = url.rstrip("/")
        self._files, root = open_filesystem(url)
        self._root = root.rstrip("/")

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "Bucket":
        below = copy.copy(self)
        below.url, below._root = f"{self.url}/{name}", self._path(name)
        return below

    def check_readable(self) -> None:
        """Look into the folder, so that a store which cannot be reached is found in ten seconds."""
        self._do("ls", self._root, detail=False, absent=None, **self._deadline())

    def check_writable(self) -> None:
        """Write and remove a small object, so that what cannot work is found in ten seconds, before any work."""
        probe = self._path(f".probe-{secrets.token_hex(4)}")
        self._do("pipe_file", probe, b"", **self._deadline())
        self._do("rm_file", probe, **self._deadline())

    def names(self, folder: str = "") -> list[str]:
        """Give the names directly below a folder, sorted; none where there is no such folder."""
        found = self._do("ls", self._path(folder), detail=False, absent=[])
        return sorted(PurePosixPath(path).name for path in found if path.rstrip("/") != self._path(folder))

    def files(self, folder: str = "") -> dict[str, RemoteFile]:
        """Give every file below a folder, sorted, by its name below that folder; none where there is no such folder."""
        root = self._path(folder)
        found = self._do("find", root, detail=True, absent={})
        # Consoles put an empty object with a slash at its end where a folder shall be seen.
        paths = sorted(path for path in found if path != root and not path.endswith("/"))
        return {path[len(root) + 1 :]: _describe(found[path]) for path in paths}

    def find(self, name: str) -> RemoteFile | None:
        info = self._do("info", self._path(name), absent=None)
        return info and _describe(info)

    def read(self, name: str) -> bytes | None:
        """Give the content of a file; `None` where there is none."""
        return self._do("cat_file", self._path(name), absent=None)

    def read_json(self, name: str) -> Any:
        """Give the value in a JSON file; `None` where there is none."""
        content = self.read(name)
        return None if content is None else json.loads(content)

    def read_each(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """Give the contents of many files, in order, while the next ones are on their way."""
        return _each(self.read, names)

    def write(self, name: str, content: bytes) -> None:
        self._do("pipe_file", self._path(name), content)

    def claim(self, name: str, content: bytes) -> bool:
        """Write a file where there is none; say whether it was this call that wrote it.

        Of two at the same time one gets it, where the store can tell: S3 (`If-None-Match: *`), Google Cloud Storage
        (`ifGenerationMatch=0`), a disk. A store that cannot might let both have it.
        """
        try:
            self._do("pipe_file", self._path(name), content, mode="create")
        except StorageError as exc:
            if isinstance(exc.__cause__, FileExistsError):
                return False
            raise
        return True

    def upload(self, folder: Path, name: str = "", *, marker: str) -> None:
        """Write the files of a local folder below a name, the marker last."""
        files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        target = self / name if name else self

        def put(file: str) -> None:
            self._do("put_file", str(folder / file), target._path(file))

        _all(put, [file for file in files if file != marker], f"writing to {target}")
        put(marker)

    def download(self, names: Iterable[str], folder: Path) -> None:
        """Write files to the same names below a local folder, each whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        incoming = Path(tempfile.mkdtemp(prefix=".incoming-", dir=folder.parent))

        def get(item: tuple[int, str]) -> None:
            number, name = item
            temporary, target = incoming / str(number), folder / name
            if ".." in target.parts:
                raise StorageError(f"Names at a URL must not lead out of their folder. Received: {self}/{name}")
            self._do("get_file", self._path(name), str(temporary))
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(target)

        try:
            _all(get, list(enumerate(names)), f"fetching from {self}")
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

    def copy(self, source: str, target: str, *, marker: str) -> None:
        """Copy the files below a name to below another, inside the store, the marker last."""

        def copy_one(file: str) -> None:
            self._do("cp_file", self._path(f"{source}/{file}"), self._path(f"{target}/{file}"))

        _all(copy_one, [file for file in self.files(source) if file != marker], f"copying in {self}")
        copy_one(marker)

    def remove(self, folder: str, *, marker: str) -> None:
        """Remove the files below a name, the marker first; what is gone already is no error."""

        def remove_one(file: str) -> None:
            self._do("rm_file", self._path(f"{folder}/{file}"), absent=None)

        files = self.files(folder)
        if marker in files:
            remove_one(marker)
        _all(remove_one, [file for file in files if file != marker], f"removing from {self}")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _deadline(self) -> dict[str, int]:
        return {"timeout": PROBE_TIMEOUT_S} if self._files.async_impl else {}

    def _do(self, method: str, *arguments: Any, absent: Any = _RAISE, **options: Any) -> Any:
        """Call the store; `absent` is the answer where it finds no such file."""
        try:
            return getattr(self._files, method)(*arguments, **options)
        except Exception as exc:  # each store raises what its own libraries raise
            if isinstance(exc, FileNotFoundError) and absent is not _RAISE:
                return absent
            is_late = isinstance(exc, asyncio.TimeoutError)
            reason = "no answer in time" if is_late else f"{type(exc).__name__}: {exc}".rstrip(". ")
            raise StorageError(
                f"{self.url} cannot be used: {reason}. Check the address, what you may do there and the network; the "
                "same command goes on from here."
            ) from exc


def is_url(place: str | Path) -> bool:
    return "://" in str(place)


def place(text: str) -> Path | Bucket:
    """Read what a person typed as a place: a path or a URL.

    Raises:
        StorageError: see `Bucket`.
    """
    return Bucket(text) if is_url(text) else Path(text)


def open_filesystem(place: str) -> tuple[Any, str]:
    """Give the file system of fsspec that a path or a URL is on, and its path there; nothing goes over the network yet.

    Raises:
        StorageError: the package for this kind of URL is not installed, or there is none.
    """
    url = place if is_url(place) else f"file://{os.path.abspath(place)}"  # noqa: PTH100 (a string)
    kind = url.partition("://")[0]
    package = _PACKAGES.get(kind, "fsspec and the package for it")
    # Without this, Google's package asks what kind each bucket is, which takes a permission of its own.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    try:
        import fsspec

        fsspec.get_filesystem_class(kind)
    except ImportError as exc:
        raise StorageError(f"{kind}:// needs {package}, which is not installed. Run: make scale") from exc
    except ValueError as exc:
        raise StorageError(f"No store is known for {kind}://. Received: {url}. Use s3:// or gs://.") from exc
    # Others write there, too, so what was listed once is not what is there now.
    return fsspec.core.url_to_fs(url, use_listings_cache=False, **_options(package))


def _options(package: str) -> dict[str, Any]:
    """Give every call over the network a timeout. Addresses and credentials are the libraries' own settings."""
    if package == "s3fs":
        return {
            "config_kwargs": {
                "connect_timeout": _CONNECT_TIMEOUT_S,
                "read_timeout": _READ_TIMEOUT_S,
                "retries": {"mode": "standard", "max_attempts": 2},
            }
        }
    if package == "gcsfs":
        import aiohttp

        limits = aiohttp.ClientTimeout(sock_connect=_CONNECT_TIMEOUT_S, sock_read=_READ_TIMEOUT_S)
        return {"requests_timeout": limits}
    return {"auto_mkdir": True}


def _describe(info: dict[str, Any]) -> RemoteFile:
    version = next((str(info[key]) for key in _VERSION_KEYS if info.get(key)), "")
    return RemoteFile(info["size"], version)


def _each(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Call a function for many items in threads, in order, no further ahead than a reader can soon follow."""
    threads = ThreadPoolExecutor(_NUM_THREADS)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(threads.submit(function, item))
            if len(waiting) == _NUM_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def _all(function: Callable[[Item], object], items: Sequence[Item], doing: str) -> None:
    results = _each(function, items)
    deque(tqdm(results, doing, len(items), unit="file", delay=2, leave=False, disable=None), maxlen=0)
