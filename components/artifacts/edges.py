"""Canny edges of each example: `<shard>.edges.npz`, written atomically.

Each holds `edges` `uint8 [N, size² / 8]`, a bit a pixel (`numpy.packbits`, row by row), and `labels` `int64 [N]`.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.storage.files import atomic_write


def edges_path(edges_dir: Path, shard: Path) -> Path:
    """Return the path of a shard's edges."""
    return edges_dir / f"{shard.stem}.edges.npz"


def write_edges(path: Path, edges: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Write the packed edges of a shard."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, edges=edges, labels=labels)


def read_edges(edges_dir: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read the packed edges of a split, `uint8 [N, size² / 8]`, and labels `int64 [N]`."""
    files = [np.load(path) for path in sorted(edges_dir.glob(f"{split}-*.edges.npz"))]
    return np.concatenate([f["edges"] for f in files]), np.concatenate([f["labels"] for f in files])


def unpack(edges: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return packed edges as a number a pixel: `float32 [N, D]`, 0 or 1."""
    return np.unpackbits(edges, axis=1).astype(np.float32)
