"""A folder at a URL: what a pipeline needs of `s3://`, `gs://` or any other service that fsspec knows, and no more.

A bucket has no rename, but each of its objects is written atomically. So what consists of many files is complete as
long as one of them, its marker, is there: it is written last and removed first. Files that become visible together are
uploaded to `.staging` and copied from there inside the bucket, so they are seen without their marker for seconds only.
A service's package is imported when one of its URLs is used.
"""

import copy
import secrets
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from components.errors import StorageError
from components.progress import Progress
from components.storage.files import FileInfo, write_pieces
from components.storage.filesystem import attempt, describe, limit_attempts, open_filesystem

PROBE_TIMEOUT_S = 10
_NUM_THREADS, _NUM_AHEAD = 16, 64
_STAGING = ".staging"
# The names that services give to what changes with a file's content.
_VERSION_KEYS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created")
_RAISE = object()

Item = TypeVar("Item")
Result = TypeVar("Result")


class Bucket:
    """A `Store` at a URL. Every method raises `StorageError` where the URL cannot be reached, read or written."""

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

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        limit_attempts(self._files)

    def __truediv__(self, name: str) -> "Bucket":
        below = copy.copy(self)
        below.url, below._root = f"{self.url}/{name}", self._path(name)
        return below

    def absolute(self) -> "Bucket":
        return self

    def check_readable(self) -> None:
        """Look into the folder, so that a URL which cannot be reached is found in ten seconds."""
        self._do("ls", self._root, detail=False, absent=None, **self._deadline())

    def check_writable(self) -> None:
        """Write and remove a small object, so that what cannot work is found in ten seconds, before any work."""
        probe = self._path(f".probe-{secrets.token_hex(4)}")
        self._do("pipe_file", probe, b"", **self._deadline())
        self._do("rm_file", probe, **self._deadline())

    def lock(self) -> AbstractContextManager[None]:
        """Do nothing: a bucket has no locks. What only one process may have is claimed."""
        return nullcontext()

    def names(self, folder: str = "") -> list[str]:
        found = self._do("ls", self._path(folder), detail=False, absent=[])
        return sorted(PurePosixPath(path).name for path in found if path.rstrip("/") != self._path(folder))

    def files(self, folder: str = "") -> dict[str, FileInfo]:
        root = self._path(folder)
        found = self._do("find", root, detail=True, absent={})
        # Consoles put an empty object with a slash at its end where a folder shall be seen.
        paths = sorted(path for path in found if path != root and not path.endswith("/"))
        return {path[len(root) + 1 :]: _describe(found[path]) for path in paths}

    def match(self, pattern: str) -> dict[str, FileInfo]:
        """Return the files whose names match a pattern of `*`, `**`, `?` and `[…]`, sorted; a name matches itself."""
        found = self._do("glob", self._path(pattern), detail=True, absent={})
        paths = sorted(path for path, info in found.items() if info["type"] == "file")
        return {path[len(self._root) + 1 :]: _describe(found[path]) for path in paths}

    def find(self, name: str) -> FileInfo | None:
        """Return what is known of a file; `None` where there is none, or a folder."""
        info = self._do("info", self._path(name), absent=None)
        return _describe(info) if info and info["type"] != "directory" else None

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes | None:
        return self._do("cat_file", self._path(name), start=start, end=end, absent=None)

    def read_each(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """Yield the contents of many files, in order, while the next ones are on their way."""
        return _each(self.read, names)

    def write(self, name: str, content: bytes) -> None:
        self._do("pipe_file", self._path(name), content)

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "content"
            write_pieces(path, pieces)
            self._do("put_file", str(path), self._path(name))

    def claim(self, name: str, content: bytes) -> bool:
        """Write a file where there is none, and return whether it has this content.

        Of two at once one has its content there, where the service can tell: S3 (`If-None-Match: *`), Google Cloud
        Storage (`ifGenerationMatch=0`), a disk. With another both might. A write whose response was lost is repeated,
        and then finds its own.
        """
        try:
            self._do("pipe_file", self._path(name), content, mode="create")
        except StorageError as exc:
            if isinstance(exc.__cause__, FileExistsError):
                return self.read(name) == content
            raise
        return True

    @contextmanager
    def staged(self, name: str, *, marker: str) -> Iterator[Path]:
        """Yield an empty local folder that is uploaded after the block and then copied to `name`, the marker last."""
        staging = f"{_STAGING}/{name.replace('/', '-')}"
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            self.upload(Path(folder), staging, marker=marker)
        self.move(staging, name, marker=marker)

    def upload(self, folder: Path, name: str = "", *, marker: str) -> None:
        """Write the files of a local folder below a name, the marker last."""
        files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        target = self / name if name else self

        def put(file: str) -> None:
            self._do("put_file", str(folder / file), target._path(file))

        _all(put, [file for file in files if file != marker], f"writing to {target}")
        put(marker)

    def download(self, names: Iterable[str], folder: Path) -> None:
        """Write files to the same names below a local folder, each atomically."""
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

    def move(self, source: str, target: str, *, marker: str) -> None:
        """Copy a folder inside the bucket, the marker last, and remove the source, the marker first.

        A source without its marker has been copied before, so it is only removed.
        """
        files = self.files(source)
        others = [file for file in files if file != marker]

        def copy_file(file: str) -> None:
            self._do("cp_file", self._path(f"{source}/{file}"), self._path(f"{target}/{file}"))

        if marker in files:
            _all(copy_file, others, f"copying in {self}")
            copy_file(marker)
        self.remove(source, marker=marker)

    def remove(self, folder: str, *, marker: str) -> None:
        """Remove the files below a name, the marker first; what is gone already is no error."""

        def remove(file: str) -> None:
            self._do("rm_file", self._path(f"{folder}/{file}"), absent=None)

        files = self.files(folder)
        if marker in files:
            remove(marker)
        _all(remove, [file for file in files if file != marker], f"removing from {self}")

    def remove_file(self, name: str) -> None:
        self._do("rm_file", self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _deadline(self) -> dict[str, int]:
        return {"timeout": PROBE_TIMEOUT_S} if self._files.async_impl else {}

    def _do(self, method: str, *arguments: Any, absent: Any = _RAISE, **options: Any) -> Any:
        """Call the file system; return `absent` where it finds no such file."""
        call = partial(getattr(self._files, method), *arguments, **options)
        started = time.monotonic()
        try:
            return call() if "timeout" in options else attempt(call, self.url)
        except Exception as exc:  # each service raises what its own libraries raise
            if isinstance(exc, FileNotFoundError) and absent is not _RAISE:
                return absent
            tried_s = time.monotonic() - started
            tried = f" (tried for {tried_s:.0f} s)" if tried_s >= 1 else ""
            raise StorageError(
                f"{self.url} cannot be used: {describe(exc)}{tried}. Check the address, what you may do there and the "
                "network; the same command goes on from here."
            ) from exc


def is_url(path_or_url: str | Path) -> bool:
    """Return whether a person typed a URL."""
    return "://" in str(path_or_url)


def _describe(info: dict[str, Any]) -> FileInfo:
    version = next((str(info[key]) for key in _VERSION_KEYS if info.get(key)), "")
    return FileInfo(info["size"], version)


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
    """Call a function for many items in threads, with a progress bar."""
    results = _each(function, items)
    deque(Progress(results, total=len(items), desc=doing, unit="file"), maxlen=0)
