"""The network: a backbone with published weights, pooled, and a small head that learns the classes.

The `model` step gets hold of the backbone's weights and proves that they fit, before anything expensive runs. It writes
`backbone.weights.h5` and `model.json`. Every other step builds the network through the functions here.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.artifacts.manifest import MISSING
from components.errors import WeightsError
from components.storage.bucket import is_url
from components.storage.cache import fetch_file
from components.storage.files import read_json, write_json

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

AUTO, IMAGENET, NONE = "auto", "imagenet", "none"
POOL = "pool"
"""The layer between the last feature map and the features."""


@dataclass(frozen=True)
class Backbone:
    """A network without its top.

    Attributes:
        application: class below `keras.applications`, or `None` for one of our own.
        stages: prefixes of the layers' names, from the pixels to the last feature map.
        min_size_px: the smallest side it can see.
        colours: the mode of `keras.applications.imagenet_utils.preprocess_input` it was trained with.
        arguments: of the class, so that the network begins with its first convolution and the colours stay outside.
    """

    application: str | None
    stages: tuple[str, ...]
    min_size_px: int
    colours: str = "tf"
    arguments: Mapping[str, Any] = field(default_factory=dict)


BACKBONES = {
    "resnet50": Backbone("ResNet50", ("conv1", "conv2", "conv3", "conv4", "conv5"), 32, colours="caffe"),
    # For the device, fast: 300 million multiplications a photo, 75 ms on a phone of 2016 (Sandler et al. 2018,
    # table 4), and nothing but convolution, ReLU6 and addition, which suits int8.
    "mobilenet_v2": Backbone(
        "MobileNetV2", ("Conv1", "expanded_conv", *(f"block_{n}_" for n in range(1, 17)), "Conv_1"), 32
    ),
    # For the device, accurate: ImageNet top-1 78.7 % with 7.2 million parameters, where MobileNetV2 has 71.3 % with 3.5
    # and ResNet50 74.9 % with 25.6 (https://keras.io/api/applications).
    "efficientnet_v2_b0": Backbone(
        "EfficientNetV2B0",
        ("stem", "block1", "block2", "block3", "block4", "block5", "block6", "top"),
        32,
        colours="torch",
        arguments={"include_preprocessing": False},
    ),
    # Four small layers without published weights: for tests, and to try a pipeline in seconds.
    "small_cnn": Backbone(None, ("conv1", "conv2", "conv3", "conv4"), 16),
}


@dataclass(frozen=True)
class ModelOptions:
    """The backbone.

    Attributes:
        backbone: a name in `BACKBONES`.
        weights: `imagenet`, a weights file or its URL, `none` (random), or `auto`: ImageNet's where they can be had,
            else random.
        image_size_px: side of the square that photos are resized to.
        seed: of random weights.
    """

    backbone: str = "resnet50"
    weights: str = AUTO
    image_size_px: int = 224
    seed: int = 0

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}. Received: {self.backbone!r}")
        if self.image_size_px < BACKBONES[self.backbone].min_size_px:
            raise ValueError(
                f"image_size_px must be at least {BACKBONES[self.backbone].min_size_px} for {self.backbone}. "
                f"Received: {self.image_size_px}"
            )


def describe_source(options: ModelOptions) -> dict[str, str]:
    """Say which weights are meant; a file counts by its content.

    Raises:
        WeightsError: the file does not exist.
        StorageError: it cannot be fetched from its URL.
    """
    if options.weights in (AUTO, IMAGENET, NONE):
        return {"kind": options.weights}
    path = _weights_file(options)
    if not path.is_file():
        raise WeightsError(
            f"The weights file does not exist: {options.weights} (looked for {path.absolute()}). "
            f"Give a file saved by Keras, {IMAGENET}, {NONE} or {AUTO}."
        )
    return {"kind": "file", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _weights_file(options: ModelOptions) -> Path:
    return fetch_file(options.weights) if is_url(options.weights) else Path(options.weights).expanduser()


def fetch(*, out_dir: Path, options: ModelOptions) -> dict[str, str | int]:
    """Build the backbone with the weights asked for, and save it.

    Raises:
        WeightsError: named weights cannot be fetched or do not fit the backbone.
    """
    import keras

    keras.utils.set_random_seed(options.seed)
    backbone = build_backbone(options.backbone, image_size_px=options.image_size_px)
    fallback = _load_weights(backbone, options)
    backbone.save_weights(out_dir / "backbone.weights.h5")
    description = {
        "backbone": options.backbone,
        "image_size_px": options.image_size_px,
        "weights": {"source": NONE if fallback else options.weights, "fallback": fallback},
        "num_features": backbone.output_shape[-1],
        "num_parameters": backbone.count_params(),
    }
    write_json(out_dir / "model.json", description)
    return {
        "backbone": options.backbone,
        "weights": description["weights"]["source"],
        "num_parameters": backbone.count_params(),
    }


def fetch_or_explain(*, out_dir: Path, options: ModelOptions) -> dict[str, Any]:
    """Do as `fetch` does; where the weights cannot be had, leave the reason for those who can do without."""
    try:
        return fetch(out_dir=out_dir, options=options)
    except WeightsError as exc:
        write_json(out_dir / MISSING, {"what": options.backbone, "reason": str(exc)})
        return {"backbone": options.backbone, "missing": "its weights"}


def describe(model_dir: Path) -> dict[str, Any]:
    """Read the description that `fetch` wrote."""
    return read_json(model_dir / "model.json")


def build_backbone(name: str, *, image_size_px: int) -> "keras.Model":
    """Build a backbone with random weights: normalized `float [N, size, size, 3]` to a feature map `[N, h, w, D]`."""
    import keras

    spec = BACKBONES[name]
    if spec.application:
        build = getattr(keras.applications, spec.application)
        shape = (image_size_px, image_size_px, 3)
        network = build(weights=None, include_top=False, input_shape=shape, **spec.arguments)
        # Not every one of the classes can be given a name.
        return keras.Model(network.input, network.output, name=name)
    layers = [keras.Input((image_size_px, image_size_px, 3))]
    for stage, filters in zip(spec.stages, (16, 24, 32, 48), strict=True):
        layers.append(keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu", name=stage))
    return keras.Sequential(layers, name=name)


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

    # Frozen, so that it applies the moments it is given.
    centering = keras.layers.BatchNormalization(center=False, scale=False, trainable=False, name="center")
    layers = [keras.Input((num_features,)), centering]
    for number, units in enumerate(hidden_units):
        layers.append(keras.layers.Dense(units, activation="relu", name=f"hidden_{number}"))
        layers.append(keras.layers.Dropout(dropout, seed=seed + number))
    layers.append(keras.layers.Dense(num_classes, activation="softmax", name="probabilities"))
    return keras.Sequential([_in_float32(layer) for layer in layers], name="head")


def center(head: "keras.Model", features: NDArray[np.float32]) -> None:
    """Tell a head the mean of its features `float32 [N, D]`, and one scale for all of them.

    Random weights give features far from zero, from which nothing is learned. A scale for each feature would blow up
    those that are rarely there.
    """
    layer = head.get_layer("center")
    layer.moving_mean.assign(features.mean(axis=0))
    layer.moving_variance.assign(np.full(features.shape[1], features.var(axis=0).mean()))


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


def _in_float32(layer: Any) -> Any:
    """Keep a small layer at full precision under a mixed precision policy."""
    import keras

    if isinstance(layer, keras.layers.Layer):
        layer.dtype_policy = keras.DTypePolicy("float32")
    return layer


def _load_weights(backbone: "keras.Model", options: ModelOptions) -> str | None:
    """Load the weights that the options ask for; say why where `auto` had to go without."""
    if options.weights == NONE:
        return None
    if options.weights in (AUTO, IMAGENET):
        try:
            _load_imagenet(backbone, options)
        except WeightsError as exc:
            if options.weights == IMAGENET:
                raise
            reason = f"{exc} Random weights instead: good for trying the pipeline, not for photos."
            log.warning("WEIGHTS FELL BACK TO RANDOM ONES. %s", reason)
            return reason
        return None
    path = _weights_file(options)
    try:
        backbone.load_weights(path)
    except Exception as exc:  # h5py, Keras and zipfile each raise their own for a file that does not fit
        raise WeightsError(
            f"The weights do not fit {options.backbone} without its top: {options.weights} "
            f"({str(exc).strip().splitlines()[0][:200]}). Give a file of this architecture, or set model.backbone."
        ) from exc
    return None


def _load_imagenet(backbone: "keras.Model", options: ModelOptions) -> None:
    import keras

    spec = BACKBONES[options.backbone]
    if spec.application is None:
        raise WeightsError(f"No ImageNet weights are published for {options.backbone}. Set model.weights={NONE}.")
    build = getattr(keras.applications, spec.application)
    try:
        published = build(weights=IMAGENET, include_top=False, input_shape=backbone.input_shape[1:], **spec.arguments)
    except Exception as exc:  # Keras raises a bare Exception for a failed download
        raise WeightsError(
            f"The ImageNet weights of {options.backbone} cannot be downloaded ({str(exc)[:200]}). Go online once, or "
            f"give a weights file, or {NONE}."
        ) from exc
    backbone.set_weights(published.get_weights())
