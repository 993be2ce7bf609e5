"""Augmentation as one Keras preprocessing layer: six random changes composed into a single affine warp.

The ranges and the order of composition are those of Keras' `ImageDataGenerator` (rotation, shift, shear, zoom, about
the image's centre, then the flip), so a recipe written for it means the same here. Composing the matrices first
costs one resampling of the pixels instead of six, and no blur from repeated interpolation.
"""

import math
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="flowers")
class RandomAffine(keras.layers.Layer):
    """Rotate, shift, shear, zoom and mirror a batch of images at random.

    Input and output: `uint8` or `float32` `[N, height, width, channels]`, 0–255; pixels that come from outside the
    image take the nearest edge's value. Outside training (`training=False`) images pass unchanged.

    Args:
        rotation_deg: largest rotation either way, in degrees.
        width_shift: largest shift sideways, as a fraction of the width.
        height_shift: largest shift up or down, as a fraction of the height.
        shear_deg: largest shear either way, in degrees as in `ImageDataGenerator`.
        zoom: each side is scaled on its own, by a factor between `1 - zoom` and `1 + zoom`.
        horizontal_flip: mirror left to right, with probability one half.
        seed: of the random numbers of calls without a seed of their own.

    Raises:
        ValueError: a range is negative, or `zoom` is not below 1.

    >>> import numpy as np
    >>> images = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(1, 8, 8, 3)
    >>> mirror = RandomAffine(rotation_deg=0, width_shift=0, height_shift=0, shear_deg=0, zoom=0)
    >>> mirrored = mirror(images, training=True, seed=[0, 0]).numpy()
    >>> np.array_equal(mirrored, images[:, :, ::-1])
    True
    >>> np.array_equal(mirror(images), images)  # outside training
    True
    """

    def __init__(
        self,
        *,
        rotation_deg: float = 20.0,
        width_shift: float = 0.2,
        height_shift: float = 0.2,
        shear_deg: float = 0.2,
        zoom: float = 0.2,
        horizontal_flip: bool = True,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.ranges = {
            "rotation_deg": rotation_deg,
            "width_shift": width_shift,
            "height_shift": height_shift,
            "shear_deg": shear_deg,
            "zoom": zoom,
        }
        for name, value in self.ranges.items():
            if value < 0 or (name == "zoom" and value >= 1):
                raise ValueError(f"`{name}` must be at least 0 (zoom: below 1). Received: {name}={value}")
        self.horizontal_flip = horizontal_flip
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: tf.Tensor, training: bool = False, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Warp `[N, height, width, channels]`; the same `seed` (`int32 [2]`) gives the same images."""
        if not training:
            return images
        seed = self.seed_generator.next() if seed is None else seed
        shape = tf.shape(images)
        return warp(images, self.matrices(shape[0], shape[1], shape[2], seed=tf.cast(seed, tf.int32)))

    def matrices(self, num_images: tf.Tensor, height: tf.Tensor, width: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
        """Draw `float32 [N, 3, 3]`, each mapping an output pixel's (x, y, 1) to the point it is read from."""
        names = [*self.ranges, "zoom_y", "flip"]
        seeds = tf.random.split(seed, len(names))

        def draw(name: str, limit: float) -> tf.Tensor:
            return tf.random.stateless_uniform([num_images], seeds[names.index(name)], -limit, limit)

        return affine_matrices(
            height=height,
            width=width,
            rotation=draw("rotation_deg", self.ranges["rotation_deg"] * math.pi / 180),
            shift_x=draw("width_shift", self.ranges["width_shift"]),
            shift_y=draw("height_shift", self.ranges["height_shift"]),
            shear=draw("shear_deg", self.ranges["shear_deg"] * math.pi / 180),
            zoom_x=1 + draw("zoom", self.ranges["zoom"]),
            zoom_y=1 + draw("zoom_y", self.ranges["zoom"]),
            flip=(draw("flip", 1.0) < 0) & self.horizontal_flip,
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.ranges, "horizontal_flip": self.horizontal_flip, "seed": self.seed}


def affine_matrices(
    *,
    height: tf.Tensor,
    width: tf.Tensor,
    rotation: tf.Tensor,
    shift_x: tf.Tensor,
    shift_y: tf.Tensor,
    shear: tf.Tensor,
    zoom_x: tf.Tensor,
    zoom_y: tf.Tensor,
    flip: tf.Tensor,
) -> tf.Tensor:
    """Compose the inverse map of each image: centre⁻¹ · rotation · shift · shear · zoom · centre · flip.

    Angles are in radians, shifts in fractions of the side, everything `float32 [N]` but `flip`, `bool [N]`.
    The product is that of Keras' `apply_affine_transform`, with `tx` and `ty` for the shifts in pixels.

    Returns:
        `float32 [N, 3, 3]`, output (x, y, 1) to input (x, y, 1), in pixels.
    """
    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    one, zero = tf.ones_like(rotation), tf.zeros_like(rotation)

    def matrix(*rows: list[tf.Tensor]) -> tf.Tensor:
        return tf.stack([tf.stack([x * one for x in row], axis=-1) for row in (*rows, [zero, zero, one])], axis=-2)

    center = matrix([one, zero, width / 2 - 0.5], [zero, one, height / 2 - 0.5])
    turn = matrix([tf.cos(rotation), -tf.sin(rotation), zero], [tf.sin(rotation), tf.cos(rotation), zero])
    shift = matrix([one, zero, shift_x * width], [zero, one, shift_y * height])
    slant = matrix([one, -tf.sin(shear), zero], [zero, tf.cos(shear), zero])
    scale = matrix([zoom_x, zero, zero], [zero, zoom_y, zero])
    back = matrix([one, zero, 0.5 - width / 2], [zero, one, 0.5 - height / 2])
    mirror = matrix([tf.where(flip, -one, one), zero, tf.where(flip, width - 1, zero)], [zero, one, zero])
    return center @ turn @ shift @ slant @ scale @ back @ mirror


def warp(images: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    """Resample `[N, height, width, channels]` through `float32 [N, 3, 3]`: bilinear, edges repeated, same dtype."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.reshape(matrices, [-1, 9])[:, :8],
        output_shape=tf.shape(images)[1:3],
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )
