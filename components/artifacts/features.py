"""A backbone's features of each example: `<shard>.view<k>.npz`, written atomically.

Each holds `features` `float16 [N, D]` and `labels` `int64 [N]` of one shard. View 0 is the clean photo, the others are
augmented.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.storage.files import atomic_write


def features_path(features_dir: Path, shard: Path, view: int) -> Path:
    """Return the path of one view of a shard."""
    return features_dir / f"{shard.stem}.view{view}.npz"


def write_features(path: Path, features: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    """Write the features `[N, D]` of one view of a shard."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, features=features.astype(np.float16), labels=labels)


def read_features(features_dir: Path, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read the features of a split: `float32 [N, views, D]`, the clean view first, and labels `int64 [N]`."""
    views = sorted({path.suffixes[-2] for path in features_dir.glob(f"{split}-*.view*.npz")}, key=lambda s: int(s[5:]))
    columns, labels = [], np.empty(0, np.int64)
    for view in views:
        files = [np.load(path) for path in sorted(features_dir.glob(f"{split}-*{view}.npz"))]
        columns.append(np.concatenate([file["features"] for file in files]).astype(np.float32))
        labels = np.concatenate([file["labels"] for file in files])
    return np.stack(columns, axis=1), labels
