"""The affine augmentation: its matrices, its pixels beside Keras' old ones, and its life as a layer."""

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.legacy.preprocessing.image import apply_affine_transform
from numpy.typing import NDArray

from components.data import augmentation, drawn_flowers
from components.data.augmentation import RandomAffine

HEIGHT, WIDTH = 48, 64
STILL = {"rotation": 0.0, "shift_x": 0.0, "shift_y": 0.0, "shear": 0.0, "zoom_x": 1.0, "zoom_y": 1.0, "flip": False}
CASES = [
    {"rotation": math.radians(17)},
    {"rotation": math.radians(-20)},
    {"shift_x": 0.17},
    {"shift_y": -0.11},
    {"shear": math.radians(12)},
    {"zoom_x": 0.83, "zoom_y": 1.19},
    {"rotation": 0.2, "shift_x": -0.1, "shift_y": 0.2, "shear": -0.15, "zoom_x": 1.1, "zoom_y": 0.9},
    {"rotation": -0.3, "shift_x": 0.05, "shift_y": 0.1, "shear": 0.003, "zoom_x": 0.8, "zoom_y": 1.2, "flip": True},
]


def compose(height: int = HEIGHT, width: int = WIDTH, **changes: Any) -> NDArray[np.float32]:
    """Return the layer's matrix for one image."""
    values = {name: tf.constant([value]) for name, value in (STILL | changes).items()}
    matrices: NDArray[np.float32] = augmentation.affine_matrices(height=height, width=width, **values).numpy()
    return matrices[0]


def image() -> NDArray[np.uint8]:
    drawn = drawn_flowers.draw(drawn_flowers.CLASS_NAMES[0], seed=2, size_px=64)
    return drawn[:HEIGHT]


def move(images: NDArray[Any], **changes: Any) -> NDArray[Any]:
    matrix = compose(*images.shape[:2], **changes)
    moved: NDArray[Any] = augmentation.warp(tf.constant(images[None]), tf.constant(matrix[None]))[0].numpy()
    return moved


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_matrix_is_the_product_written_out(changes: dict[str, Any]) -> None:
    p = STILL | changes
    sin, cos = math.sin(p["rotation"]), math.cos(p["rotation"])
    product = np.linalg.multi_dot(
        [
            np.array([[1, 0, WIDTH / 2 - 0.5], [0, 1, HEIGHT / 2 - 0.5], [0, 0, 1]]),
            np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]),
            np.array([[1, 0, p["shift_x"] * WIDTH], [0, 1, p["shift_y"] * HEIGHT], [0, 0, 1]]),
            np.array([[1, -math.sin(p["shear"]), 0], [0, math.cos(p["shear"]), 0], [0, 0, 1]]),
            np.diag([p["zoom_x"], p["zoom_y"], 1]),
            np.array([[1, 0, 0.5 - WIDTH / 2], [0, 1, 0.5 - HEIGHT / 2], [0, 0, 1]]),
            np.array([[-1, 0, WIDTH - 1], [0, 1, 0], [0, 0, 1]]) if p["flip"] else np.eye(3),
        ]
    )
    # float32 keeps seven digits and the entries are below 100.
    np.testing.assert_allclose(compose(**changes), product, atol=5e-5)


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_pixels_are_those_of_keras_image_data_generator(changes: dict[str, Any]) -> None:
    p = STILL | changes
    # Square, as in the pipeline: Keras swaps height and width when it looks for the centre of another shape.
    image = drawn_flowers.draw(drawn_flowers.CLASS_NAMES[0], seed=2, size_px=WIDTH).astype(np.float32)
    expected = apply_affine_transform(
        image,
        theta=math.degrees(p["rotation"]),
        tx=p["shift_x"] * WIDTH,
        ty=p["shift_y"] * WIDTH,
        shear=math.degrees(p["shear"]),
        zx=p["zoom_x"],
        zy=p["zoom_y"],
        row_axis=0,
        col_axis=1,
        channel_axis=2,
        fill_mode="nearest",
        order=1,
    )
    expected = expected[:, ::-1] if p["flip"] else expected
    # Both interpolate linearly; float32 positions differ from float64 ones by 1e-5 pixel, a step of 255 by a hundredth.
    np.testing.assert_allclose(move(image, **changes), expected, atol=0.05)


def test_nothing_drawn_changes_nothing() -> None:
    np.testing.assert_array_equal(compose(), np.eye(3))
    np.testing.assert_array_equal(move(image()), image())


def test_flip_is_exact() -> None:
    np.testing.assert_array_equal(move(image(), flip=True), image()[:, ::-1])


def test_pixels_from_outside_repeat_the_edge() -> None:
    moved = move(image(), shift_x=0.25)
    np.testing.assert_array_equal(moved[:, : WIDTH - 16], image()[:, 16:])
    np.testing.assert_array_equal(moved[:, WIDTH - 16 :], np.repeat(image()[:, -1:], 16, axis=1))


def draw_matrices(seed: int = 1, num_images: int = 4000, **ranges: Any) -> NDArray[np.float64]:
    nothing = dict.fromkeys(("rotation_deg", "width_shift", "height_shift", "shear_deg", "zoom"), 0.0)
    layer = RandomAffine(**{**nothing, "horizontal_flip": False, **ranges})
    drawn = layer.matrices(num_images, HEIGHT, WIDTH, seed=tf.constant([seed, 0])).numpy()
    return drawn.astype(np.float64)


def assert_fills(values: NDArray[np.float64], low: float, high: float) -> None:
    """Of 4,000 uniform draws the extremes come within 1 % of the ends, but for one case in 10^8."""
    slack = 1e-4 * max(abs(low), abs(high))
    assert low - slack <= values.min() < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < values.max() <= high + slack
    assert abs(values.mean() - (low + high) / 2) < 0.03 * (high - low)  # 6 standard errors


def test_draws_fill_their_ranges_and_stay_inside() -> None:
    rotated = draw_matrices(rotation_deg=20)
    assert_fills(np.degrees(np.arctan2(rotated[:, 1, 0], rotated[:, 0, 0])), -20, 20)
    assert_fills(draw_matrices(width_shift=0.2)[:, 0, 2], -0.2 * WIDTH, 0.2 * WIDTH)
    assert_fills(draw_matrices(height_shift=0.1)[:, 1, 2], -0.1 * HEIGHT, 0.1 * HEIGHT)
    assert_fills(np.degrees(np.arcsin(-draw_matrices(shear_deg=5)[:, 0, 1])), -5, 5)
    zoomed = draw_matrices(zoom=0.3)
    assert_fills(zoomed[:, 0, 0], 0.7, 1.3)
    assert_fills(zoomed[:, 1, 1], 0.7, 1.3)
    assert abs(np.corrcoef(zoomed[:, 0, 0], zoomed[:, 1, 1])[0, 1]) < 0.1, "each side is zoomed on its own"
    flipped = draw_matrices(horizontal_flip=True)[:, 0, 0]
    assert set(flipped) == {-1.0, 1.0}
    assert abs((flipped < 0).mean() - 0.5) < 0.05  # 6 standard errors


def test_same_seed_gives_the_same_images_and_another_seed_others() -> None:
    layer, images = RandomAffine(), tf.constant(image()[None].repeat(3, axis=0))
    first, again = (layer(images, training=True, seed=tf.constant([5, 6])).numpy() for _ in range(2))
    np.testing.assert_array_equal(first, again)
    for other in ([5, 7], [6, 6]):
        assert (layer(images, training=True, seed=tf.constant(other)).numpy() != first).any()
    assert (first[0] != first[1]).any(), "each image of a batch is changed in its own way"


def test_calls_without_a_seed_go_on_from_the_layers_seed() -> None:
    images = tf.constant(image()[None])
    layer, twin, other = RandomAffine(seed=3), RandomAffine(seed=3), RandomAffine(seed=4)
    first, second = (layer(images, training=True).numpy() for _ in range(2))
    assert (first != second).any()
    np.testing.assert_array_equal(twin(images, training=True).numpy(), first)
    assert (other(images, training=True).numpy() != first).any()


def test_uint8_and_float32_images_are_warped_alike_and_keep_their_type() -> None:
    layer, seed = RandomAffine(), tf.constant([1, 2])
    images = image()[None].repeat(2, axis=0)
    whole = layer(tf.constant(images), training=True, seed=seed)
    exact = layer(tf.constant(images, tf.float32), training=True, seed=seed)
    assert (whole.dtype, exact.dtype) == (tf.uint8, tf.float32)
    # uint8 pixels are cut off or rounded, no more.
    np.testing.assert_allclose(whole.numpy().astype(float), exact.numpy(), atol=1)
    assert exact.numpy().min() >= 0
    assert exact.numpy().max() <= 255


def test_outside_training_images_pass_unchanged() -> None:
    images = tf.constant(image()[None])
    layer = RandomAffine()
    np.testing.assert_array_equal(layer(images).numpy(), images.numpy())
    np.testing.assert_array_equal(layer(images, training=False).numpy(), images.numpy())


def test_layer_is_made_again_from_its_config() -> None:
    layer = RandomAffine(rotation_deg=7, zoom=0.1, horizontal_flip=False, seed=9, name="wobble")
    twin = RandomAffine.from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()
    images = tf.constant(image()[None])
    np.testing.assert_array_equal(twin(images, training=True).numpy(), layer(images, training=True).numpy())


def test_layer_survives_inside_a_saved_model(tmp_path: Path) -> None:
    inputs = keras.Input((HEIGHT, WIDTH, 3), dtype="uint8")
    keras.Model(inputs, RandomAffine(rotation_deg=11, seed=2, name="wobble")(inputs)).save(tmp_path / "model.keras")
    network = keras.models.load_model(tmp_path / "model.keras")
    assert network.get_layer("wobble").ranges["rotation_deg"] == 11
    images = image()[None]
    np.testing.assert_array_equal(network.predict(images, verbose=0), images)
    assert (network(images, training=True).numpy() != images).any()


@pytest.mark.parametrize(
    "wrong", [{"rotation_deg": -1}, {"width_shift": -0.1}, {"height_shift": -1}, {"shear_deg": -5}, {"zoom": 1.0}]
)
def test_range_that_makes_no_sense_is_an_error(wrong: dict[str, float]) -> None:
    (name, value) = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"`{name}` must be at least 0.*Received: {name}={value}"):
        RandomAffine(**wrong)
