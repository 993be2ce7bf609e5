"""Grad-CAM: which regions of an image speak for the class that a classifier predicts.

The method is R. R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization"
(2017), equations 1 and 2, on the last feature map of the backbone.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    import keras

_STRENGTH = 0.8
"""How much of the colour covers the image where the evidence is greatest."""


def grad_cam(classifier: "keras.Model", images: NDArray[np.uint8], classes: Sequence[int]) -> NDArray[np.float32]:
    """Return the evidence for a class in each region of each image.

    Args:
        classifier: of `training.networks.build_classifier`: a backbone, the mean over its last feature map, a head.
        images: `uint8 [N, size, size, 3]`, RGB, 0–255.
        classes: one for each image.

    Returns:
        `float32 [N, h, w]`, 0–1, the greatest evidence of an image being 1; all 0 where nothing speaks for the class.
    """
    import keras
    import tensorflow as tf

    pool = next(each for each in classifier.layers if isinstance(each, keras.layers.GlobalAveragePooling2D))
    head = classifier.layers[-1]
    maps = keras.Model(classifier.input, pool.input)(images, training=False)
    with tf.GradientTape() as tape:
        tape.watch(maps)
        hidden = pool(maps)
        for layer in head.layers[:-1]:
            hidden = layer(hidden, training=False)
        # The scores before the softmax.
        scores = hidden @ head.layers[-1].kernel + head.layers[-1].bias
        chosen = tf.gather(scores, list(classes), batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(chosen, maps), axis=(1, 2), keepdims=True)
    evidence = tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1)).numpy()
    greatest = evidence.max(axis=(1, 2), keepdims=True)
    return np.divide(evidence, greatest, out=np.zeros_like(evidence), where=greatest > 0)


def draw(image: NDArray[np.uint8], evidence: NDArray[np.float32]) -> Image.Image:
    """Draw an image beside itself in grey, with its evidence over that in colours up to yellow.

    Args:
        image: `uint8 [size, size, 3]`, RGB, 0–255.
        evidence: `float32 [h, w]`, 0–1.

    Returns:
        An RGB image of twice the width.
    """
    size_px = image.shape[0]
    heat = np.asarray(Image.fromarray(evidence).resize((size_px, size_px), Image.Resampling.BICUBIC)).clip(0, 1)
    colours = matplotlib.colormaps["inferno"](heat)[..., :3] * 255
    strength = _STRENGTH * heat[..., np.newaxis]
    grey = np.asarray(Image.fromarray(image).convert("L"))[..., np.newaxis]
    covered = (1 - strength) * grey + strength * colours
    return Image.fromarray(np.concatenate([image, covered.round().astype(np.uint8)], axis=1))
