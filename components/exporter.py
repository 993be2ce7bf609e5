"""The `export` step: the trained classifier as the SavedModel that is judged, pushed and served."""

import importlib.metadata
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from components import examples
from components.artifacts.training import read_training
from components.storage.files import size_bytes


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
        if not 0 <= self.num_warmup_images <= 500:
            raise ValueError(f"num_warmup_images must be 0 to 500. Received: {self.num_warmup_images}")


def export(*, examples_dir: Path, training_dir: Path, out_dir: Path, options: ExportOptions) -> dict[str, Any]:
    """Write the SavedModel with its signatures, warmup requests and `model_spec.json`."""
    import keras

    from components.data import transform
    from export import saved_model

    training, data = read_training(training_dir), examples.describe(examples_dir)
    classifier = keras.models.load_model(training_dir / "model.keras", compile=False)
    photos = transform.encoded(examples.shards(examples_dir, "train"))
    images = list(islice(photos, options.num_warmup_images))
    spec = {
        "model_name": options.model_name,
        "backbone": training["backbone"],
        "weights": training["weights"],
        "data": {name: data[name] for name in ("source", "resolved", "fallback")},
        "preprocessing": "RGB, upright, bilinear antialiased resize to a square, uint8 0–255; normalized inside",
        "tensorflow": importlib.metadata.version("tensorflow"),
    }
    saved_model.save(
        classifier,
        class_names=training["class_names"],
        spec=spec,
        model_name=options.model_name,
        warmup_images=images,
        out_dir=out_dir,
    )
    return {"signatures": "serving_default images", "size_mb": round(size_bytes(out_dir) / 1e6, 1)}
