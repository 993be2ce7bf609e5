"""Where brightness changes in each photo: Canny edges, which classical models can learn from without a backbone.

Reads examples; writes the edges of each shard of train and test. A file is written atomically, so a killed step goes on
with the next one.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.artifacts.edges import edges_path, read_edges, write_edges
from components.artifacts.examples import shards
from components.artifacts.summary import Summary
from components.data import transform
from components.progress import Progress

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
) -> Summary:
    """Find the edges of the photos to train on and to test with."""
    found = [shard for split in SPLITS for shard in shards(examples_dir, split)]
    for shard in Progress(found, desc="edges", unit="file"):
        path = edges_path(out_dir, shard)
        if not path.exists():
            photos = transform.read([shard], image_size_px=options.image_size_px).as_numpy_iterator()
            edges, labels = zip(*((np.packbits(find(photo, options)), label) for photo, label in photos), strict=True)
            write_edges(path, np.stack(edges), np.array(labels))
    packed, _ = read_edges(out_dir, "train")
    density = np.bitwise_count(packed).sum() / (8 * packed.size)
    return {"num_pixels": 8 * packed.shape[1], "share_of_edges": round(float(density), 4)}


def find(photo: NDArray[np.uint8], options: EdgesOptions) -> NDArray[np.bool_]:
    """Find the edges of one photo: `uint8 [size, size, 3]`, RGB, to `bool [size²]`, row by row (J. Canny, 1986)."""
    import cv2

    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    return cv2.Canny(grey, options.low_threshold, options.high_threshold).ravel() > 0
