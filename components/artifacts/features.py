"""A backbone's features of each example: `<shard>.view<k>.npz`, written atomically.

Each holds `features` `float16 [N, D]`, `labels` `int64 [N]` and `photos` `uint8 [N, 32]`, their SHA-256, of one shard.
View 0 is the clean photo, the others are augmented. With view 0 there are `embeddings` `float16 [N, E]`, see
`export.embedding`.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.storage.files import atomic_write

_DIGEST_BYTES = 32


def features_path(features_dir: Path, shard: Path, view: int) -> Path:
    """Return the path of one view of a shard."""
    return features_dir / f"{shard.stem}.view{view}.npz"


def write_features(
    path: Path,
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    *,
    photos: Sequence[str] = (),
    embeddings: NDArray[np.floating] | None = None,
) -> None:
    """Write the features `[N, D]` of one view of a shard, its photos' SHA-256, and its embeddings `[N, E]` if any."""
    digests = np.frombuffer(b"".join(map(bytes.fromhex, photos)), np.uint8).reshape(-1, _DIGEST_BYTES)
    arrays = {"features": features.astype(np.float16), "labels": labels, "photos": digests}
    if embeddings is not None:
        arrays["embeddings"] = embeddings.astype(np.float16)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_features(features_dir: Path, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read the features of a split: `float32 [N, views, D]`, the clean view first, and labels `int64 [N]`."""
    features, labels = zip(*read_shards(features_dir, split), strict=True)
    return np.concatenate(features).astype(np.float32), np.concatenate(labels)


def read_shards(features_dir: Path, split: str) -> Iterator[tuple[NDArray[np.float16], NDArray[np.int64]]]:
    """Read the features of a split shard by shard: `float16 [N, views, D]`, the clean view first, and labels."""
    for clean in sorted(features_dir.glob(f"{split}-*.view0.npz")):
        shard = clean.name.removesuffix(".view0.npz")
        num_views = sum(1 for _ in features_dir.glob(f"{shard}.view*.npz"))
        files = [np.load(features_dir / f"{shard}.view{view}.npz") for view in range(num_views)]
        yield np.stack([file["features"] for file in files], axis=1), files[0]["labels"]


def memory_bytes(features_dir: Path, split: str) -> int:
    """Return how much memory the features of a split take, as `read_features` reads them."""
    return sum(2 * path.stat().st_size for path in features_dir.glob(f"{split}-*.view*.npz"))


class KnownFeatures:
    """Features of one view that were computed before, by photo.

    Args:
        features_dir: an earlier output of the step; `None` for none.
        view: of the photos.
    """

    def __init__(self, features_dir: Path | None, view: int) -> None:
        self._rows: dict[bytes, tuple[Path, int]] = {}
        for path in sorted(features_dir.glob(f"*.view{view}.npz")) if features_dir else ():
            with np.load(path) as file:
                self._rows |= {digest.tobytes(): (path, row) for row, digest in enumerate(file["photos"])}

    def __contains__(self, sha256: str) -> bool:
        return bytes.fromhex(sha256) in self._rows

    def read(self, sha256: str) -> dict[str, NDArray[np.float16]]:
        """Read the features `float16 [D]` of a photo, and its embedding `float16 [E]` if any."""
        path, row = self._rows[bytes.fromhex(sha256)]
        return {name: array[row] for name, array in _load(path).items() if name in ("features", "embeddings")}


@lru_cache(maxsize=4)
def _load(path: Path) -> Mapping[str, NDArray[np.float16]]:
    """Load a file; photos are in the order of their digests, so the next one is most often in the same."""
    with np.load(path) as file:
        return dict(file)


def read_clean(
    features_dir: Path, split: str
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]]:
    """Read the clean view of a split, shard by shard: features `[N, D]`, embeddings `[N, E]` and labels `[N]`."""
    for path in sorted(features_dir.glob(f"{split}-*.view0.npz")):
        with np.load(path) as file:
            yield file["features"].astype(np.float32), file["embeddings"].astype(np.float32), file["labels"]
