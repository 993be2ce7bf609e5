"""A backbone's features of each example: `<shard>.view<k>.npz`, written atomically.

Each holds `features` `float16 [N, D]` and `labels` `int64 [N]` of one shard. View 0 is the clean photo, the others are
augmented. With view 0 there are `embeddings` `float16 [N, E]`, see `export.embedding`.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.storage.files import atomic_write


def features_path(features_dir: Path, shard: Path, view: int) -> Path:
    """Return the path of one view of a shard."""
    return features_dir / f"{shard.stem}.view{view}.npz"


def write_features(
    path: Path,
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    embeddings: NDArray[np.float32] | None = None,
) -> None:
    """Write the features `[N, D]` of one view of a shard, and its embeddings `[N, E]` if any."""
    arrays = {"features": features.astype(np.float16), "labels": labels}
    if embeddings is not None:
        arrays["embeddings"] = embeddings.astype(np.float16)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_features(features_dir: Path, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read the features of a split: `float32 [N, views, D]`, the clean view first, and labels `int64 [N]`."""
    views = sorted({path.suffixes[-2] for path in features_dir.glob(f"{split}-*.view*.npz")}, key=lambda s: int(s[5:]))
    columns, labels = [], np.empty(0, np.int64)
    for view in views:
        files = [np.load(path) for path in sorted(features_dir.glob(f"{split}-*{view}.npz"))]
        columns.append(np.concatenate([file["features"] for file in files]).astype(np.float32))
        labels = np.concatenate([file["labels"] for file in files])
    return np.stack(columns, axis=1), labels


def read_clean(
    features_dir: Path, split: str
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]]:
    """Read the clean view of a split, shard by shard: features `[N, D]`, embeddings `[N, E]` and labels `[N]`."""
    for path in sorted(features_dir.glob(f"{split}-*.view0.npz")):
        with np.load(path) as file:
            yield file["features"].astype(np.float32), file["embeddings"].astype(np.float32), file["labels"]
