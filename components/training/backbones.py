"""The backbones: networks without their top, and how each is built."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


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

    def build_application(self, *, image_size_px: int, weights: str | None = None) -> "keras.Model":
        """Build the network of `keras.applications`, with random or published weights."""
        import keras

        build = getattr(keras.applications, self.application or "")
        shape = (image_size_px, image_size_px, 3)
        return build(weights=weights, include_top=False, input_shape=shape, **self.arguments)


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


def build_backbone(name: str, *, image_size_px: int) -> "keras.Model":
    """Build a backbone with random weights: normalized `float [N, size, size, 3]` to a feature map `[N, h, w, D]`."""
    import keras

    backbone = BACKBONES[name]
    if backbone.application:
        network = backbone.build_application(image_size_px=image_size_px)
        # Not every one of the classes can be given a name.
        return keras.Model(network.input, network.output, name=name)
    pixels = maps = keras.Input((image_size_px, image_size_px, 3), name="pixels")
    for stage, filters in zip(backbone.stages, (16, 24, 32, 48), strict=True):
        maps = keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu", name=stage)(maps)
    return keras.Model(pixels, maps, name=name)
