"""The embedding of a network: both maps, each as long as the other, beside predictions that stay what they were."""

from typing import Any

import keras
import numpy as np
import pytest

from components.training import networks
from export.embedding import add_embedding

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


def test_embedding_joins_the_pooled_maps_of_the_last_two_resolutions() -> None:
    keras.utils.set_random_seed(0)
    network = networks.build_extractor("small_cnn", image_size_px=32)
    embeddings, features = (output.numpy() for output in add_embedding(network)(IMAGES, training=False))
    np.testing.assert_allclose(features, network(IMAGES, training=False), atol=1e-5)
    backbone = network.get_layer("small_cnn")
    pixels = keras.applications.imagenet_utils.preprocess_input(
        IMAGES.astype(np.float32), mode=networks.BACKBONES["small_cnn"].colours
    )
    maps = keras.Model(backbone.input, [backbone.get_layer("conv3").output, backbone.output])(pixels)
    pooled = [each.numpy().mean(axis=(1, 2)) for each in maps]
    expected = [each / np.linalg.norm(each, axis=1, keepdims=True) / np.sqrt(2) for each in pooled]
    np.testing.assert_allclose(embeddings, np.concatenate(expected, axis=1), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "efficientnet_v2_b0"])
def test_every_backbone_has_an_embedding(name: str) -> None:
    network = networks.build_extractor(name, image_size_px=32)
    embedding, features = add_embedding(network).outputs
    assert features.shape[1] < embedding.shape[1] <= 2 * features.shape[1]


def build(*layers: Any) -> keras.Model:
    images = keras.Input((32, 32, 3), dtype="uint8")
    features = keras.ops.cast(images, "float32")
    for layer in layers:
        features = layer(features)
    return keras.Model(images, features)


def test_a_backbone_of_one_resolution_has_the_embedding_of_its_one_map() -> None:
    backbone = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(4, 3, padding="same")])
    network = build(backbone, keras.layers.GlobalAveragePooling2D())
    embeddings, features = (output.numpy() for output in add_embedding(network)(IMAGES, training=False))
    np.testing.assert_allclose(embeddings, features / np.linalg.norm(features, axis=1, keepdims=True), atol=1e-5)


def test_maps_that_are_zero_have_an_embedding() -> None:
    network = networks.build_extractor("small_cnn", image_size_px=32)
    network.set_weights([np.zeros_like(weights) for weights in network.get_weights()])
    assert not add_embedding(network)(IMAGES, training=False)[0].numpy().any()


@pytest.mark.parametrize(
    ("layers", "received"),
    [
        ([keras.layers.Flatten()], "none"),
        ([keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten()])], r"\(None, 3072\)"),
    ],
    ids=["no backbone", "no map"],
)
def test_a_network_without_maps_is_refused(layers: list[Any], received: str) -> None:
    with pytest.raises(ValueError, match=rf"must have a backbone that makes a map .*Received: .*{received}"):
        add_embedding(build(*layers))
