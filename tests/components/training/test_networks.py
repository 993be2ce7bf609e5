"""The parts of the classifier, for each backbone."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from components.training import networks
from components.training.backbones import BACKBONES

NUM_FEATURES = {"small_cnn": 48, "resnet50": 2048, "mobilenet_v2": 1280, "efficientnet_v2_b0": 1280}


@pytest.fixture(scope="module")
def extractors() -> dict[str, keras.Model]:
    """Each backbone with random weights at 32 px."""
    keras.utils.set_random_seed(0)
    return {name: networks.build_extractor(name, image_size_px=32) for name in NUM_FEATURES}


def draw_images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def run(network: keras.Model, inputs: NDArray[Any]) -> NDArray[np.float32]:
    """Predict eagerly, since `predict` would trace each network for one batch."""
    return np.asarray(network(inputs, training=False))


@pytest.mark.parametrize("name", NUM_FEATURES)
def test_extractor_takes_uint8_pixels_and_gives_float32_features(name: str, extractors: dict[str, Any]) -> None:
    extractor = extractors[name]
    assert extractor.input.dtype == "uint8"
    assert extractor.input_shape == (None, 32, 32, 3)
    features = run(extractor, draw_images(2))
    assert features.dtype == np.float32
    assert features.shape == (2, NUM_FEATURES[name])
    assert np.isfinite(features).all()
    assert (features[0] != features[1]).any()
    assert not extractor.trainable_variables


@pytest.mark.parametrize(
    ("name", "channels", "mean", "scale", "tolerance"),
    [
        # As `keras.applications.imagenet_utils` has them: "caffe" is BGR, less the means of ImageNet.
        ("resnet50", (2, 1, 0), [103.939, 116.779, 123.68], [1, 1, 1], {"rtol": 1e-4, "atol": 1e-4}),
        ("mobilenet_v2", (0, 1, 2), [127.5] * 3, [127.5] * 3, {"rtol": 1e-3, "atol": 1e-5}),
        (
            "efficientnet_v2_b0",
            (0, 1, 2),
            [123.675, 116.28, 103.53],
            [58.395, 57.12, 57.375],
            {"rtol": 1e-3, "atol": 1e-5},
        ),
    ],
)
def test_extractor_normalizes_colours_as_the_backbone_was_trained(
    name: str,
    channels: tuple[int, ...],
    mean: list[float],
    scale: list[float],
    tolerance: dict[str, float],
    extractors: dict[str, Any],
) -> None:
    image = draw_images(1)
    normalized = (image[..., channels].astype(np.float32) - np.float32(mean)) / np.float32(scale)
    expected = run(extractors[name].get_layer(name), normalized).mean(axis=(1, 2))
    np.testing.assert_allclose(run(extractors[name], image), expected, **tolerance)


def test_normalization_of_efficientnet_v2_b0_is_the_one_keras_puts_inside() -> None:
    whole = keras.applications.EfficientNetV2B0(weights=None, include_top=False, input_shape=(32, 32, 3))
    image = draw_images(1).astype(np.float32)
    inside = run(keras.Model(whole.input, whole.get_layer("normalization").output), image)
    outside = keras.applications.imagenet_utils.preprocess_input(image.copy(), mode="torch")
    np.testing.assert_allclose(inside, outside, atol=1e-5)


@pytest.fixture
def frozen_again(extractors: dict[str, keras.Model]) -> Iterator[dict[str, keras.Model]]:
    yield extractors
    for name, extractor in extractors.items():
        extractor.get_layer(name).trainable = False


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_v2_b0"])
def test_every_layer_of_a_device_backbone_belongs_to_a_stage(name: str, frozen_again: dict[str, keras.Model]) -> None:
    extractor = frozen_again[name]
    stages = BACKBONES[name].stages
    networks.unfreeze(extractor, name, num_stages=len(stages))
    for layer in extractor.get_layer(name).layers:
        is_normalization = isinstance(layer, keras.layers.BatchNormalization)
        assert layer.trainable != is_normalization or not layer.weights, layer.name
    networks.unfreeze(extractor, name, num_stages=2)
    learning = [each.name for each in extractor.get_layer(name).layers if each.weights and each.trainable]
    assert learning
    assert all(each.startswith(stages[-2:]) for each in learning)


@pytest.mark.parametrize("name", ["small_cnn", "resnet50"])
def test_unfreezing_lets_exactly_the_last_stages_learn(name: str, frozen_again: dict[str, keras.Model]) -> None:
    extractor = frozen_again[name]
    stages = BACKBONES[name].stages
    for num_stages in range(1, len(stages) + 1):
        networks.unfreeze(extractor, name, num_stages=num_stages)
        learning = [
            layer for layer in extractor.get_layer(name).layers if layer.trainable_variables and layer.trainable
        ]
        assert {layer.name.split("_")[0] for layer in learning} == set(stages[-num_stages:])
        assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in learning)
        assert len(extractor.trainable_variables) == 2 * len(learning), "a kernel and a bias each"


@pytest.mark.parametrize("num_stages", [-1, 0, 5])
def test_unfreezing_stages_that_are_not_there_is_an_error(num_stages: int, extractors: dict[str, keras.Model]) -> None:
    with pytest.raises(ValueError, match=f"fine_tune must be 0 to 4 for small_cnn. Received: {num_stages}"):
        networks.unfreeze(extractors["small_cnn"], "small_cnn", num_stages=num_stages)


def test_classifier_joins_extractor_and_head(extractors: dict[str, keras.Model]) -> None:
    head = networks.build_head(num_features=48, num_classes=3, hidden_units=(8, 4), dropout=0.5, seed=0)
    classifier = networks.build_classifier(extractors["small_cnn"], head)
    probabilities = run(classifier, draw_images(2))
    assert probabilities.shape == (2, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
