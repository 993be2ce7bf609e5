"""A version of a model: its state while the server runs, and its folder on disk."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus

from serving.local_server.errors import Code, StatusError
from serving.local_server.servable import Servable

START, LOADING, AVAILABLE, UNLOADING, END = (
    ModelVersionStatus.START,
    ModelVersionStatus.LOADING,
    ModelVersionStatus.AVAILABLE,
    ModelVersionStatus.UNLOADING,
    ModelVersionStatus.END,
)

Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(eq=False)
class Version:
    """One version of a model: its state, and what it was loaded from."""

    model_name: str
    number: int
    path: Path
    state: int = START
    error: StatusError | None = None
    servable: Servable | None = None
    fingerprint: Fingerprint = ()
    num_attempts: int = 0
    retry_at_s: float = 0.0
    num_in_flight: int = 0
    drained: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def lease(self) -> Iterator[Servable]:
        """Hold the model in memory while a request uses it."""
        servable = self.servable
        if servable is None:
            raise StatusError(Code.UNAVAILABLE, f"version {self.number} of model {self.model_name} is being unloaded")
        self.num_in_flight += 1
        try:
            yield servable
        finally:
            self.num_in_flight -= 1
            if self.num_in_flight == 0:
                self.drained.set()


def find_versions(base_path: Path) -> dict[int, Path] | None:
    """Find the folders with a number for a name; `None` where the base path cannot be read."""
    try:
        # In order, so that of `001` and `1` it is always the same one that counts.
        names = sorted(path.name for path in base_path.iterdir() if path.name.isascii() and path.name.isdigit())
        return {int(name): base_path / name for name in names if int(name) < 1 << 63 and (base_path / name).is_dir()}
    except (OSError, ValueError):  # a path with a NUL in it is a ValueError
        return None


def fingerprint(path: Path) -> Fingerprint:
    """Return the names, sizes and times of a version folder's files, which tell one state of it from another."""
    found = []
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                stat = Path(folder, name).stat()
            except OSError:
                continue
            found.append((f"{folder}/{name}", stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(found))
