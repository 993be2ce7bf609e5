"""The input pipeline, on the shards of drawn flowers."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from components.artifacts.examples import read_encoded, read_index, shards
from components.data import transform
from components.data.transform import TransformOptions
from export import preprocessing


def augment(photos: tf.data.Dataset, *, layer_seed: int = 0, seed: int = 0) -> NDArray[np.uint8]:
    layer = transform.make_augmentation(TransformOptions(seed=layer_seed))
    return np.concatenate([images.numpy() for images, _ in transform.augment(photos.batch(8), layer, seed=seed)])


@pytest.fixture(scope="module")
def photos(examples_dir: Path) -> tf.data.Dataset:
    """The train split, decoded once."""
    dataset = transform.read(shards(examples_dir, "train"), image_size_px=32)
    assert dataset.element_spec == (tf.TensorSpec([32, 32, 3], tf.uint8), tf.TensorSpec([], tf.int64))
    images, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    return tf.data.Dataset.from_tensor_slices((np.stack(images), np.stack(labels)))


def test_photos_are_read_in_their_stored_order_as_pixels_and_labels(
    photos: tf.data.Dataset, examples_dir: Path
) -> None:
    images, labels = zip(*photos.as_numpy_iterator(), strict=True)
    assert list(labels) == [row["label"] for row in read_index(examples_dir) if row["split"] == "train"]
    stored = islice(read_encoded(examples_dir, "train"), 4)
    expected = [preprocessing.load(tf.constant(encoded), 32).numpy() for _, encoded in stored]
    np.testing.assert_array_equal(images[:4], expected)
    assert np.min(images) < 50
    assert np.max(images) > 200


def test_augmented_images_are_the_same_in_every_run_and_depend_on_both_seeds(photos: tf.data.Dataset) -> None:
    first = augment(photos)
    np.testing.assert_array_equal(augment(photos), first)
    assert (augment(photos, seed=1) != first).any()
    assert (augment(photos, layer_seed=1) != first).any()


def test_batches_are_augmented_differently_and_keep_shape_and_labels() -> None:
    images, labels = np.zeros((32, 32, 3), np.uint8), np.arange(8)
    images[8:16, 4:20] = 255
    batches = tf.data.Dataset.from_tensor_slices((images[None].repeat(8, axis=0), labels)).batch(4)
    changed = list(transform.augment(batches, transform.make_augmentation(TransformOptions()), seed=0))
    assert [y.numpy().tolist() for _, y in changed] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert all(x.dtype == tf.uint8 and x.shape == (4, 32, 32, 3) for x, _ in changed)
    assert (changed[0][0].numpy() != changed[1][0].numpy()).any()


@pytest.mark.parametrize("wrong", [{"rotation_deg": -1.0}, {"width_shift": -0.1}, {"zoom": 1.0}, {"shear_deg": -0.2}])
def test_range_that_makes_no_sense_is_an_error(wrong: dict[str, float]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name} must be at least 0.*Received: {value}"):
        TransformOptions(**wrong)
