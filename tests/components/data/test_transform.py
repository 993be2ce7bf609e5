"""The input pipeline, on the shards of drawn flowers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from components import examples
from components.data import transform
from components.data.transform import TransformOptions
from export import preprocessing


def read_index(examples_dir: Path, split: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (examples_dir / "index.jsonl").read_text().splitlines()]
    return [row for row in rows if row["split"] == split]


def augment(examples_dir: Path, *, layer_seed: int = 0, seed: int = 0, batch_size: int = 8) -> NDArray[np.uint8]:
    batches = transform.read(examples.shards(examples_dir, "train"), image_size_px=32).batch(batch_size)
    layer = transform.make_augmentation(TransformOptions(seed=layer_seed))
    return np.concatenate([images.numpy() for images, _ in transform.augment(batches, layer, seed=seed)])


def test_photos_are_read_in_their_stored_order_as_pixels_and_labels(examples_dir: Path) -> None:
    dataset = transform.read(examples.shards(examples_dir, "train"), image_size_px=32)
    assert dataset.element_spec == (tf.TensorSpec([32, 32, 3], tf.uint8), tf.TensorSpec([], tf.int64))
    images, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    assert list(labels) == [row["label"] for row in read_index(examples_dir, "train")]
    stored = [
        tf.train.Example.FromString(record).features.feature["image/encoded"].bytes_list.value[0]
        for record in transform.records(examples.shards(examples_dir, "train")).as_numpy_iterator()
    ]
    expected = [preprocessing.load(tf.constant(encoded), 32).numpy() for encoded in stored[:4]]
    np.testing.assert_array_equal(images[:4], expected)


def test_pixels_span_0_to_255(examples_dir: Path) -> None:
    dataset = transform.read(examples.shards(examples_dir, "train"), image_size_px=32)
    images = np.stack([image for image, _ in dataset.as_numpy_iterator()])
    assert images.min() < 50
    assert images.max() > 200


def test_augmented_pictures_are_the_same_in_every_run(examples_dir: Path) -> None:
    np.testing.assert_array_equal(augment(examples_dir), augment(examples_dir))


def test_augmented_pictures_depend_on_both_seeds(examples_dir: Path) -> None:
    first = augment(examples_dir)
    assert (augment(examples_dir, seed=1) != first).any()
    assert (augment(examples_dir, layer_seed=1) != first).any()


def test_batches_are_augmented_differently_and_keep_shape_and_labels(examples_dir: Path) -> None:
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
