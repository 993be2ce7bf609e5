"""Grad-CAM finds what speaks for a class, and draws it beside the photo."""

import keras
import numpy as np
import pytest

from components.reporting.grad_cam import draw, grad_cam
from components.training.networks import build_classifier, build_extractor, build_head


@pytest.fixture(scope="module")
def red_or_blue() -> keras.Model:
    """A classifier whose features are how red and how blue an image is: each speaks for a class of its own."""
    extractor = build_extractor("small_cnn", image_size_px=32)
    for number, layer in enumerate(extractor.get_layer("small_cnn").layers[1:]):  # the first is the input
        kernel = np.zeros(layer.kernel.shape, np.float32)
        # Colours come as -1 to 1; the layers after the first pass both values on.
        for channel, colour in enumerate((0, 2) if number == 0 else (0, 1)):
            kernel[1, 1, colour, channel] = 1
        layer.set_weights([kernel, np.zeros(kernel.shape[-1], np.float32)])
    num_features = extractor.output_shape[-1]
    head = build_head(num_features=num_features, num_classes=2, hidden_units=(), dropout=0.0, seed=0)
    weights = np.zeros((num_features, 2), np.float32)
    weights[0] = [1, -1]
    weights[1] = [-1, 1]
    head.get_layer("probabilities").set_weights([weights, np.zeros(2, np.float32)])
    return build_classifier(extractor, head)


def test_evidence_lies_where_the_class_is(red_or_blue: keras.Model) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, :16, 0] = 255  # red on the left
    image[:, 16:, 2] = 255  # blue on the right
    for_red, for_blue = grad_cam(red_or_blue, np.stack([image, image]), [0, 1])
    np.testing.assert_array_equal(for_red, [[1, 0], [1, 0]])
    np.testing.assert_array_equal(for_blue, [[0, 1], [0, 1]])


def test_no_evidence_is_no_light(red_or_blue: keras.Model) -> None:
    black = np.zeros((1, 32, 32, 3), np.uint8)
    (evidence,) = grad_cam(red_or_blue, black, [0])
    np.testing.assert_array_equal(evidence, np.zeros((2, 2)))
    np.testing.assert_array_equal(draw(black[0], evidence), np.zeros((32, 64, 3)))


def test_evidence_is_drawn_beside_the_photo() -> None:
    image = np.full((32, 32, 3), 128, np.uint8)
    drawn = np.asarray(draw(image, np.array([[1, 0], [0, 0]], np.float32))).astype(int)
    np.testing.assert_array_equal(drawn[:, :32], image)
    # Yellow at the top left, grey at the bottom right.
    assert drawn[2, 34, 0] > drawn[2, 34, 2] + 50
    np.testing.assert_allclose(drawn[30, 62], 128, atol=2)  # bicubic, then rounded
