"""Where brightness changes in each photo: Canny edges, which classical models can learn from without a backbone.

Reads examples; writes, for each shard of train and test, `<shard>.edges.npz` with `edges` `uint8 [N, size² / 8]`, a bit
a pixel (`numpy.packbits`, row by row), and `labels` `int64 [N]`. A file is complete as soon as it has its name, so a
killed step goes on with the next one.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components import examples
from components.data import transform
from components.storage.files import atomic_write

SPLITS = ("train", "test")


@dataclass(frozen=True)
class EdgesOptions:
    """How edges are found.

    Attributes:
        image_size_px: side of the grey square that a photo is resized to; the original project's is 500.
        low_threshold: gradient above which a pixel goes on an edge. The original's two are not known: OpenCV's tutorial
            has these.
        high_threshold: gradient above which a pixel begins an edge.
    """

    image_size_px: int = 500
    low_threshold: int = 100
    high_threshold: int = 200

    def __post_init__(self) -> None:
        if self.image_size_px < 8 or self.image_size_px**2 % 8:
            raise ValueError(
                f"image_size_px must be at least 8, and its square a multiple of 8. Received: {self.image_size_px}"
            )
        if not 0 <= self.low_threshold <= self.high_threshold:
            raise ValueError(
                f"low_threshold must be 0 to high_threshold. Received: {self.low_threshold} and {self.high_threshold}"
            )


def extract(
    *,
    examples_dir: Path,
    validation_dir: Path,  # nothing is computed from data that was not validated
    out_dir: Path,
    options: EdgesOptions,
) -> dict[str, int | float]:
    """Find the edges of the photos to train on and to test with."""
    from tqdm import tqdm

    shards = [shard for split in SPLITS for shard in examples.shards(examples_dir, split)]
    for shard in tqdm(shards, desc="edges", unit="file", disable=None, leave=False):
        path = out_dir / f"{shard.stem}.edges.npz"
        if path.exists():
            continue
        photos = transform.read([shard], image_size_px=options.image_size_px)
        found = [(np.packbits(find(photo, options)), label) for photo, label in photos.as_numpy_iterator()]
        edges, labels = zip(*found, strict=True)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, edges=np.stack(edges), labels=np.array(labels))
    packed, _ = load(out_dir, "train")
    density = np.bitwise_count(packed).sum() / (8 * packed.size)
    return {"num_pixels": 8 * packed.shape[1], "share_of_edges": round(float(density), 4)}


def find(photo: NDArray[np.uint8], options: EdgesOptions) -> NDArray[np.bool_]:
    """Find the edges of one photo: `uint8 [size, size, 3]`, RGB, to `bool [size²]`, row by row (J. Canny, 1986)."""
    import cv2

    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    return cv2.Canny(grey, options.low_threshold, options.high_threshold).ravel() > 0


def load(edges_dir: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read the packed edges of a split, `uint8 [N, size² / 8]`, and labels `int64 [N]`."""
    files = [np.load(path) for path in sorted(edges_dir.glob(f"{split}-*.edges.npz"))]
    return np.concatenate([f["edges"] for f in files]), np.concatenate([f["labels"] for f in files])


def unpack(edges: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Give packed edges, `uint8 [N, D / 8]`, a number a pixel: `float32 [N, D]`, 0 or 1."""
    return np.unpackbits(edges, axis=1).astype(np.float32)
