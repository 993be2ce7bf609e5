"""The files that are captured: their names, and how many are kept.

A file is `<name>-<when it was begun>-<random>.tfrecord`. A writer begins a new one when it has a tenth of the size that
all may have, or of the time that they are kept; then the oldest are deleted, also those of others with the same name.
"""

import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from io import FileIO
from pathlib import Path

from serving.shared.capture.tfrecord import SUFFIX, frame

_BEGUN = "%Y%m%dT%H%M%S"
_FILE = re.compile(rf"(?P<name>.*)-(?P<begun>\d{{8}}T\d{{6}})\.(?P<micros>\d{{6}})-[0-9a-f]{{8}}{re.escape(SUFFIX)}")
_DAY_S = 86_400
# How much of the size and of the time one file may have.
_SHARE = 0.1
# Photos of people are not for everybody who has an account.
_FOLDER_MODE, _FILE_MODE = 0o750, 0o640


@dataclass(frozen=True, kw_only=True)
class CaptureOptions:
    """What is captured, where, and for how long.

    Attributes:
        folder: of the files; it is made where there is none.
        name: with which the names of the files begin.
        rate: the share of requests, 0–1, chosen at random.
        with_inputs: whether the images are kept too, not the scores alone.
        max_mb: of all files of the name; the oldest go first. A request of more than a tenth of it is not kept.
        max_age_days: after which a request is deleted, at the latest.
    """

    folder: Path
    name: str
    rate: float
    with_inputs: bool
    max_mb: float = 1000
    max_age_days: float = 30

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError(f"The share of requests that are captured must be 0 to 1. Received: {self.rate}")
        for name in ("max_mb", "max_age_days"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} of what is captured must be above 0. Received: {getattr(self, name)}")


class FileWriter:
    """Writes records to files, and deletes the oldest.

    Args:
        options: where, and how many.
    """

    def __init__(self, options: CaptureOptions) -> None:
        self._options = options
        self._max_bytes = int(options.max_mb * 1e6)
        self._max_file_bytes = int(self._max_bytes * _SHARE)
        self._max_age_s = options.max_age_days * _DAY_S
        self._file: FileIO | None = None
        self._size_bytes = 0
        self._begun_s = 0.0

    def fits(self, record: bytes) -> bool:
        """Return whether a record is small enough to be kept."""
        return len(record) <= self._max_file_bytes

    def write(self, data: bytes, now_s: float) -> None:
        """Add a record.

        Raises:
            OSError: it cannot be written; no part of it is left, as far as the disk allows that.
        """
        record = frame(data)
        if self._size_bytes + len(record) > self._max_file_bytes or self._is_stale(now_s):
            self.close()
        file = self._file or self._begin(now_s)
        try:
            view = memoryview(record)
            while view:
                view = view[file.write(view) :]
        except OSError:
            with suppress(OSError):
                file.truncate(self._size_bytes)
                if not self._size_bytes:
                    Path(file.name).unlink()
            self.close()
            raise
        self._size_bytes += len(record)

    def clean(self, now_s: float) -> None:
        """Close a file that is old enough, or was deleted by somebody, and delete those that are too old.

        Raises:
            OSError: one cannot be deleted.
        """
        if self._file is not None and (self._is_stale(now_s) or not Path(self._file.name).exists()):
            self.close()
        self._delete(now_s, max_bytes=self._max_bytes)

    def close(self) -> None:
        """End the file that is written."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _is_stale(self, now_s: float) -> bool:
        return not 0 <= now_s - self._begun_s < _SHARE * self._max_age_s

    def _begin(self, now_s: float) -> FileIO:
        folder = self._options.folder
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        # What the new file may have is free before it is there.
        self._delete(now_s, max_bytes=self._max_bytes - self._max_file_bytes)
        begun = datetime.fromtimestamp(now_s, timezone.utc)
        name = f"{self._options.name}-{begun:{_BEGUN}}.{begun.microsecond:06}-{secrets.token_hex(4)}{SUFFIX}"
        self._file = FileIO(folder / name, "xb", opener=partial(os.open, mode=_FILE_MODE))
        self._size_bytes, self._begun_s = 0, now_s
        return self._file

    def _delete(self, now_s: float, *, max_bytes: int) -> None:
        left = max_bytes
        for path, begun_s in sorted(self._find(), key=lambda found: -found[1]):
            with suppress(FileNotFoundError):  # another writer was faster
                left -= path.stat().st_size
                if left < 0 or now_s - begun_s > self._max_age_s:
                    path.unlink()

    def _find(self) -> list[tuple[Path, float]]:
        """Return the files of the name, and when each was begun."""
        with suppress(FileNotFoundError, NotADirectoryError):
            found = [(path, parse_name(path)) for path in self._options.folder.iterdir()]
            return [(path, parsed[1]) for path, parsed in found if parsed and parsed[0] == self._options.name]
        return []


def parse_name(path: Path) -> tuple[str, float] | None:
    """Return the name of a file's writer and the time at which it was begun; `None` of another file."""
    match = _FILE.fullmatch(path.name)
    if not match:
        return None
    try:
        begun = datetime.strptime(match["begun"], _BEGUN).replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    return match["name"], begun.timestamp() + int(match["micros"]) / 1e6
