"""The `litert` step: the trained classifier as LiteRT (TFLite) files, for phones and small computers.

Reads the trained classifier, the spec of its SavedModel, and photos to calibrate on.
Writes `<model name>_{float32,float16,dynamic,int8}.tflite`.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts.examples import read_index, shards
from components.artifacts.manifest import read_manifest
from components.artifacts.summary import Summary
from components.artifacts.training import read_classifier
from components.data import transform
from components.options import check_at_least
from export.spec import read_spec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LiteRTOptions:
    """How the files are made.

    Attributes:
        num_calibration_images: training photos on which the int8 file's ranges are measured, as many of each class as
            there are.
        author: of the model, in the files' metadata; empty where nothing is said.
        license: of the model, in the files' metadata, such as `Apache-2.0`.
    """

    num_calibration_images: int = 100
    author: str = ""
    license: str = ""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_calibration_images")


def convert(
    *,
    examples_dir: Path,
    training_dir: Path,
    limits_dir: Path,
    export_dir: Path,
    out_dir: Path,
    options: LiteRTOptions,
) -> Summary:
    """Convert a model, whether it will be blessed or not: that is found out at the same time."""
    from export import litert
    from export.limits import read_limits

    spec = read_spec(export_dir)
    files = litert.convert(
        read_classifier(training_dir),
        limits=read_limits(limits_dir),
        calibration_images=_read_calibration_images(
            examples_dir, options.num_calibration_images, image_size_px=spec["image_size_px"]
        ),
        spec=spec,
        version=read_manifest(export_dir)["digest"],
        author=options.author,
        license=options.license,
        out_dir=out_dir,
    )
    return {"num_files": len(files), **{f"{kind}_mb": _megabytes(path) for kind, path in files.items()}}


def _read_calibration_images(examples_dir: Path, count: int, *, image_size_px: int) -> "NDArray[np.uint8]":
    import numpy as np
    import tensorflow as tf

    chosen = set(
        choose_stratified((row["label"] for row in read_index(examples_dir) if row["split"] == "train"), count)
    )
    records = transform.records(shards(examples_dir, "train")).take(max(chosen) + 1)
    kept = [record for position, record in enumerate(records.as_numpy_iterator()) if position in chosen]
    photos = transform.parse(tf.data.Dataset.from_tensor_slices(kept), image_size_px=image_size_px)
    return np.stack([image for image, _ in photos.as_numpy_iterator()])


def choose_stratified(labels: Iterable[int], count: int) -> list[int]:
    """Return the positions of the first examples of each class, as many of each as there are.

    >>> choose_stratified([7, 7, 7, 7, 8, 9, 7, 9], 6)
    [0, 1, 2, 4, 5, 7]
    """
    num_seen: Counter[int] = Counter()
    turns = []
    for position, label in enumerate(labels):
        turns.append((num_seen[label], position))
        num_seen[label] += 1
    return sorted(position for _, position in sorted(turns)[:count])


def _megabytes(path: Path) -> float:
    return round(path.stat().st_size / 1e6, 1)
