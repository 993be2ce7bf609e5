"""Candidates on their way into splits, of which memory holds only what is compared: 76 bytes each.

All else, names and encoded images too, waits in one file on disk, in the order in which it came.
"""

import pickle
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.artifacts.examples import SPLITS
from components.data.duplicates import Looks
from components.data.examination import Candidate

_PACKED = struct.Struct("=Q32s16s3hd?bi")
_COLUMNS = np.dtype(
    [
        ("offset", "u8"),
        ("sha256", ">u8", 4),
        ("hash", "u4", 4),
        ("colour", "i2", 3),
        ("contrast", "f8"),
        ("is_added", "?"),
        ("split", "i1"),
        ("label", "i4"),
    ]
)
_SHARE_BITS = 52  # of a digest, which a float64 holds exactly


class Candidates:
    """A table of candidates; a row is known by its number, from 0.

    A candidate is added before any column is looked at. `labels` and `splits` can be changed in place, and `read`
    returns each candidate with those that it has by then.

    Args:
        pool: the file for the rest, which is made here.
    """

    def __init__(self, pool: Path) -> None:
        self._packed = bytearray()
        self._file = pool.open("w+b")

    def __enter__(self) -> "Candidates":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._packed) // _PACKED.size

    def add(self, candidate: Candidate, encoded: bytes = b"", *, is_added: bool = False) -> None:
        """Add a candidate and its encoded image; `is_added` is one that is not of the source."""
        offset = self._file.seek(0, 2)
        pickle.dump(replace(candidate, length=len(encoded)), self._file)
        self._file.write(encoded)
        self._packed += _PACKED.pack(
            offset,
            bytes.fromhex(candidate.sha256),
            candidate.hash,
            *candidate.colour,
            candidate.contrast,
            is_added,
            SPLITS.index(candidate.split),
            candidate.label,
        )

    @property
    def labels(self) -> NDArray[np.int32]:
        """The labels, `int32 [N]`."""
        return self._column("label")

    @property
    def splits(self) -> NDArray[np.int8]:
        """The splits, `int8 [N]`: positions in `SPLITS`."""
        return self._column("split")

    @property
    def are_added(self) -> NDArray[np.bool_]:
        """Which are not of the source, `bool [N]`."""
        return self._column("is_added")

    def shares(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return for each row a number of 0 to below 1 that its content decides."""
        return (self._column("sha256")[rows, 0] >> np.uint64(64 - _SHARE_BITS)) / 2.0**_SHARE_BITS

    def looks(self, rows: NDArray[np.intp]) -> Looks:
        """Return what rows look like."""
        return Looks(*(self._column(name)[rows] for name in ("hash", "colour", "contrast")))

    def order(self, rows: NDArray[np.intp], *first: NDArray[Any]) -> NDArray[np.intp]:
        """Return rows in the order of their digests, or first of columns `[N]`; equal ones stay in their order."""
        sha256 = self._column("sha256")
        digits = [sha256[rows, place].astype(np.uint64) for place in (3, 2, 1, 0)]
        return rows[np.lexsort([*digits, *(column[rows] for column in reversed(first))])]

    def are_same_file(self, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return which rows are the same file as the row before: `bool [N - 1]`."""
        sha256 = self._column("sha256")
        return (sha256[rows[1:]] == sha256[rows[:-1]]).all(axis=1)

    def find(self, labels: Mapping[str, Any]) -> dict[int, str]:
        """Return the rows whose SHA-256 is a key of a mapping, in order, each with it."""
        wanted = {bytes.fromhex(sha256): sha256 for sha256 in labels}
        digests = self._column("sha256")
        found = ((row, wanted.get(digests[row].tobytes())) for row in range(len(self) if wanted else 0))
        return {row: sha256 for row, sha256 in found if sha256 is not None}

    def read(self, row: int) -> Candidate:
        """Read a candidate."""
        self._file.seek(int(self._column("offset")[row]))
        candidate: Candidate = pickle.load(self._file)
        return replace(candidate, label=int(self.labels[row]), split=SPLITS[self.splits[row]])

    def read_encoded(self, row: int) -> tuple[Candidate, bytes]:
        """Read a candidate and its encoded image."""
        candidate = self.read(row)
        return candidate, self._file.read(candidate.length)

    def _column(self, name: str) -> NDArray[Any]:
        return np.frombuffer(self._packed, _COLUMNS)[name]
