"""The `litert` step: the trained classifier as LiteRT (TFLite) files, for phones and small computers.

Reads the trained classifier, the spec of its SavedModel, and photos to calibrate on.
Writes `<model name>_{float32,float16,dynamic,int8}.tflite`.
"""

from dataclasses import dataclass
from pathlib import Path

from components.artifacts.examples import shards
from components.artifacts.summary import Summary
from components.artifacts.training import read_classifier
from components.data import transform
from components.options import check_at_least
from export.spec import read_spec


@dataclass(frozen=True)
class LiteRTOptions:
    """How the files are made.

    Attributes:
        num_calibration_images: training photos on which the int8 file's ranges are measured.
    """

    num_calibration_images: int = 100

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
    import numpy as np

    from export import litert
    from export.limits import read_limits

    spec = read_spec(export_dir)
    # Examples are in a mixed order: the first ones are of all classes.
    photos = transform.read(shards(examples_dir, "train"), image_size_px=spec["image_size_px"])
    chosen = photos.take(options.num_calibration_images)
    files = litert.convert(
        read_classifier(training_dir),
        limits=read_limits(limits_dir),
        calibration_images=np.stack([image for image, _ in chosen.as_numpy_iterator()]),
        spec=spec,
        out_dir=out_dir,
    )
    return {"num_files": len(files), **{f"{kind}_mb": _megabytes(path) for kind, path in files.items()}}


def _megabytes(path: Path) -> float:
    return round(path.stat().st_size / 1e6, 1)
