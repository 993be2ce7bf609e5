"""Files that other processes look at: atomic writes, file locks, checksums, JSON, and what to do where a disk fails."""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEMPORARY_FILES = ".*.tmp"
"""Pattern of what a writer that was killed leaves behind."""


@dataclass(frozen=True)
class FileInfo:
    """What a listing says of a file; `version` changes whenever its content does."""

    size_bytes: int
    version: str


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically; what is no UTF-8 in a file's name is written as JSON's escape of it."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_jsonl(path: Path) -> list[Any]:
    """Read a file with a JSON value on each line."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def size_bytes(folder: Path) -> int:
    """Return the size of all files below a folder together."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file that replaces `path` when the block ends: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold a lock file; the system releases it when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


_ADVICE = {
    errno.ENOSPC: "Free some space there, or choose another folder; the same command goes on from here",
    errno.EFBIG: "Allow larger files, or choose another folder; the same command goes on from here",
    errno.EDQUOT: "Free some of your quota, or choose another folder; the same command goes on from here",
    errno.EACCES: "Allow it, or choose another folder",
    errno.EPERM: "Allow it, or choose another folder",
    errno.EROFS: "Choose a folder that can be written to",
    errno.EEXIST: "Move what is there out of the way, or choose another folder",
    errno.ENOTDIR: "Move what is there out of the way, or choose another folder",
    errno.EMFILE: "Allow more open files: ulimit -n 4096",
    errno.EIO: "Look after the disk",
}


def describe_os_error(exc: OSError, *, path: object = None) -> str:
    """Return which file could not be used, why, and what to do about it.

    Args:
        exc: the error.
        path: of what was being written, where the error does not say.

    >>> describe_os_error(OSError(errno.ENOSPC, "No space left on device", "runs/1/run.json"))[:67]
    'runs/1/run.json: No space left on device. Free some space there, or'
    """
    name = exc.filename or path
    reason = exc.strerror or str(exc)
    advice = _ADVICE.get(exc.errno or 0)
    return f"{f'{name}: ' if name else ''}{reason}.{f' {advice}.' if advice else ''}"


def find_disk_error(exc: BaseException, *, path: Path) -> OSError | None:
    """Return the full disk that is behind an exception of a library, which may hide it; `None` for any other.

    Args:
        exc: what a library raised while it wrote below `path`.
        path: a folder.
    """
    found: BaseException | None = exc
    while found:
        if isinstance(found, OSError) and found.errno in (errno.ENOSPC, errno.EDQUOT):
            return found
        if os.strerror(errno.ENOSPC) in str(found):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        found = found.__cause__ or found.__context__
    return None
