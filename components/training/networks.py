"""The classifier: a backbone, pooled, and a small head that learns the classes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.training.backbones import BACKBONES, build_backbone

if TYPE_CHECKING:
    import keras

    from components.training.rows import Moments

POOL = "pool"
"""The layer between the last feature map and the features."""

CENTER = "center"
"""The layer of a head that centres its features."""

_OUTPUT = "probabilities"


def build_extractor(name: str, *, image_size_px: int, weights: Path | None = None) -> "keras.Model":
    """Build the part that is frozen: `uint8 [N, size, size, 3]`, RGB, 0–255, to features `float32 [N, D]`.

    Colour normalization is inside; batch normalization keeps the moments it came with.
    """
    import keras

    backbone = build_backbone(name, image_size_px=image_size_px)
    if weights:
        backbone.load_weights(weights)
    backbone.trainable = False
    images = keras.Input((image_size_px, image_size_px, 3), dtype="uint8", name="images")
    pixels = keras.applications.imagenet_utils.preprocess_input(
        keras.ops.cast(images, "float32"), data_format="channels_last", mode=BACKBONES[name].colours
    )
    features = keras.layers.GlobalAveragePooling2D(name=POOL, dtype="float32")(backbone(pixels, training=False))
    return keras.Model(images, features, name="extractor")


def build_head(
    *, num_features: int, num_classes: int, hidden_units: Sequence[int], dropout: float, seed: int
) -> "keras.Model":
    """Build the part that learns first: features `float32 [N, D]` to probabilities `float32 [N, C]`.

    Features are centred (see `center`), then go through Dense (ReLU) and Dropout for each entry of `hidden_units`, then
    through a softmax.
    """
    import keras

    layers = [keras.Input((num_features,)), build_centering()]
    for number, units in enumerate(hidden_units):
        layers.append(keras.layers.Dense(units, activation="relu", name=f"hidden_{number}"))
        layers.append(keras.layers.Dropout(dropout, seed=seed + number))
    layers.append(keras.layers.Dense(num_classes, activation="softmax", name=_OUTPUT))
    return keras.Sequential([_in_float32(layer) for layer in layers], name="head")


def build_centering() -> "keras.layers.Layer":
    """Build the layer that `center` sets, in float32: frozen, so that it applies the moments it is given."""
    import keras

    return keras.layers.BatchNormalization(center=False, scale=False, trainable=False, dtype="float32", name=CENTER)


def center(head: "keras.Model", moments: "Moments") -> None:
    """Set the mean that a head subtracts from its features, and one scale for all of them.

    Random weights give features far from zero, from which nothing is learned. A scale for each feature would blow up
    those that are rarely there.
    """
    layer = head.get_layer(CENTER)
    layer.moving_mean.assign(moments.mean)
    layer.moving_variance.assign(np.full(len(moments.mean), moments.variance.mean()))


def set_temperature(head: "keras.Model", temperature: float) -> None:
    """Divide the logits of a head by a temperature, in the weights of its last layer."""
    layer = head.get_layer(_OUTPUT)
    layer.set_weights([weights / np.float32(temperature) for weights in layer.get_weights()])


def build_classifier(extractor: "keras.Model", head: "keras.Model") -> "keras.Model":
    """Join both parts: `uint8 [N, size, size, 3]` to probabilities `float32 [N, C]`."""
    import keras

    return keras.Model(extractor.input, head(extractor.output), name="classifier")


def unfreeze(extractor: "keras.Model", name: str, *, num_stages: int) -> None:
    """Let the last stages of the backbone learn; batch normalization stays as it is.

    Raises:
        ValueError: the backbone has fewer stages.
    """
    import keras

    stages = BACKBONES[name].stages
    if not 0 < num_stages <= len(stages):
        raise ValueError(f"fine_tune must be 0 to {len(stages)} for {name}. Received: {num_stages}")
    backbone = extractor.get_layer(name)
    backbone.trainable = True
    for layer in backbone.layers:
        is_normalization = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = layer.name.startswith(stages[-num_stages:]) and not is_normalization


def restart_names() -> None:
    """Let Keras count layers from the first again: it writes their names, and equal models have the same bytes."""
    import keras

    keras.utils.clear_session()


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Build layers under a dtype policy of Keras, such as `mixed_float16`, while inside."""
    import keras

    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)


def _in_float32(layer: Any) -> Any:
    """Keep a small layer at full precision under a mixed precision policy."""
    import keras

    if isinstance(layer, keras.layers.Layer):
        layer.dtype_policy = keras.DTypePolicy("float32")
    return layer
