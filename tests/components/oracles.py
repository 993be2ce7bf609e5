"""SavedModels that know some photos by heart, and what to return for each: what tests of judging share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from components.storage.files import write_json
from export.spec import SPEC


class Oracle(tf.Module):
    """Returns what it was given for a photo, and for one that it does not know what it was given for the first."""

    def __init__(self, photos: Sequence[bytes], outputs: Mapping[str, Any]) -> None:
        super().__init__()
        self.photos = tf.constant(list(photos))
        self.outputs = {name: tf.constant(values) for name, values in outputs.items()}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")], autograph=False)
    def serve(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        number = tf.argmax(image_bytes[:, tf.newaxis] == self.photos[tf.newaxis], axis=1)
        return {name: tf.gather(values, number) for name, values in self.outputs.items()}


def save_oracle(folder: Path, photos: Sequence[bytes], outputs: Mapping[str, Any]) -> None:
    """Save a model that returns the outputs, by name and `[N, …]`, for the encoded photos `[N]`."""
    module = Oracle(photos, outputs)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})


def write_spec(folder: Path, class_names: Sequence[str], **changes: Any) -> None:
    """Write the spec of such a model."""
    spec = {"class_names": list(class_names), "data": {"source": "drawn"}, "weights": {"source": "none"}}
    write_json(folder / SPEC, {**spec, "temperature": 0.5, **changes})
