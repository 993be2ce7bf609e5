"""Rows of features on disk, for those that do not fit into memory: each is read when it is learned from.

Reads `components.artifacts.features`; writes one file, `float16 [N, D]`, with nothing around it.
"""

import os
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.artifacts.features import read_shards
from components.storage.files import atomic_write

_CHUNK = 4096


class Moments(NamedTuple):
    """The mean and the variance of each feature, `float32 [D]`."""

    mean: NDArray[np.float32]
    variance: NDArray[np.float32]


class RowsOnDisk:
    """The rows of a split in all their views: those of the first photo, then those of the second.

    Pages of the file that are read are the system's cache, and not this process' memory.

    Attributes:
        labels: `int64 [N]`.
        num_features: D.

    Args:
        features_dir: an output of `components.features`.
        split: of its examples.
        path: of the file, which is written unless it is there.
        num_views: of each photo, from the clean one on; `None` for all.
        are_kept: which photos of the split are taken, `bool`, in their order; `None` for all.
    """

    def __init__(
        self,
        features_dir: Path,
        split: str,
        path: Path,
        *,
        num_views: int | None = None,
        are_kept: NDArray[np.bool_] | None = None,
    ) -> None:
        labels: list[NDArray[np.int64]] = []
        with ExitStack() as stack:
            file = None
            if not path.exists():
                file = stack.enter_context(stack.enter_context(atomic_write(path)).open("wb"))
            first = 0
            for features, of_shard in read_shards(features_dir, split):
                kept = slice(None) if are_kept is None else are_kept[first : first + len(features)]
                first += len(features)
                views = features[kept, :num_views]
                labels.append(of_shard[kept].repeat(views.shape[1]))
                self.num_features = views.shape[-1]
                if file:
                    file.write(views.tobytes())
        self.labels = np.concatenate(labels)
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read rows by their numbers: `float32 [n, D]`."""
        size = 2 * self.num_features
        read = b"".join(os.pread(self._file.fileno(), size, int(row) * size) for row in rows)
        return np.frombuffer(read, np.float16).reshape(len(rows), self.num_features).astype(np.float32)

    def moments(self) -> Moments:
        """Return the moments of all rows, with the bits that numpy has for an array of them."""
        count = np.float32(len(self))
        mean = self._add(self._chunks()) / count
        return Moments(mean, self._add(np.square(chunk - mean) for chunk in self._chunks()) / count)

    def _add(self, chunks: Iterator[NDArray[np.float32]]) -> NDArray[np.float32]:
        total = np.zeros(self.num_features, np.float32)
        for chunk in chunks:
            total = np.add.reduce(np.concatenate([total[np.newaxis], chunk]), axis=0)
        return total

    def _chunks(self) -> Iterator[NDArray[np.float32]]:
        for first in range(0, len(self), _CHUNK):
            yield self.read(np.arange(first, min(first + _CHUNK, len(self))))
