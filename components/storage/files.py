"""Files that other processes look at: atomic writes, file locks, and JSON."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
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
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)  # piece by piece: it can be long
        file.write("\n")


def read_jsonl(path: Path) -> list[Any]:
    """Read a file with a JSON value on each line."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_jsonl(path: Path, rows: Iterable[Any], *, append: bool = False) -> None:
    """Write a JSON value on each line of a file, or after the lines that it has."""
    with path.open("a" if append else "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


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
    except BaseException as exc:
        if isinstance(exc, OSError) and exc.filename is None:
            # A write that fails does not say where.
            exc.filename = str(path)
        temporary.unlink(missing_ok=True)
        raise


def write_pieces(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file atomically, piece by piece."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.writelines(pieces)


@contextmanager
def file_lock(path: Path, *, waits: bool = True) -> Iterator[None]:
    """Hold a lock file; the system releases it when the process ends, however it ends.

    Raises:
        BlockingIOError: another process holds it, and this one does not wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
