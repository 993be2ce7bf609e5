"""Files that other processes look at: written whole or not at all, and one writer at a time."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# What a writer that was killed leaves behind.
TORN = ".*.tmp"


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the whole new one."""
    with whole(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def size_bytes(folder: Path) -> int:
    """Give what all files below a folder take together."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a file to write to that takes the place of `path` when the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    yield temporary
    temporary.replace(path)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file; the system lets go of it when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
