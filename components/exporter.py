"""The `export` step: the trained classifier as the SavedModel that is judged, pushed and served."""

import importlib.metadata
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from components.artifacts.examples import read_encoded, read_index, read_origin
from components.artifacts.learned_photos import write_learned_photos
from components.artifacts.summary import Summary
from components.artifacts.training import read_classifier, read_training
from components.artifacts.watch_reference import attach_watch_reference
from components.options import check_range
from components.storage.files import size_bytes
from export.spec import ModelSpec


@dataclass(frozen=True)
class ExportOptions:
    """What goes along with the model.

    Attributes:
        model_name: under which it is served.
        num_warmup_images: photos a server is warmed up with, 0 to 500 (two requests each, at most 1,000). After
            sixteen every thread has run the model; after four the first caller may still wait up to twice as long.
    """

    model_name: str = "flowers"
    num_warmup_images: int = 8

    def __post_init__(self) -> None:
        if not self.model_name.isidentifier() or self.model_name == "tflite":
            raise ValueError(f"model_name must be letters, digits and _, and not tflite. Received: {self.model_name!r}")
        check_range(self, 0, 500, "num_warmup_images")


def export(
    *, examples_dir: Path, training_dir: Path, limits_dir: Path, out_dir: Path, options: ExportOptions
) -> Summary:
    """Write the SavedModel with its signatures, warmup requests, `model_spec.json`, what it learned from and what its
    predictions are watched by.
    """
    from export import saved_model
    from export.limits import read_limits

    training, limits = read_training(training_dir), read_limits(limits_dir)
    images = [encoded for _, encoded in islice(read_encoded(examples_dir, "train"), options.num_warmup_images)]
    spec: ModelSpec = {
        "model_name": options.model_name,
        "backbone": training["backbone"],
        "weights": training["weights"],
        "data": read_origin(examples_dir),
        "preprocessing": "RGB, upright, bilinear antialiased resize to a square, uint8 0–255; normalized inside",
        "tensorflow": importlib.metadata.version("tensorflow"),
        "class_names": training["class_names"],
        "image_size_px": training["image_size_px"],
        "temperature": training["temperature"],
        "limits": limits.describe(),
    }
    saved_model.save(read_classifier(training_dir), limits=limits, spec=spec, warmup_images=images, out_dir=out_dir)
    write_learned_photos(out_dir, read_index(examples_dir))
    attach_watch_reference(out_dir, limits_dir)
    return {"signatures": "serving_default images", "size_mb": round(size_bytes(out_dir) / 1e6, 1)}
