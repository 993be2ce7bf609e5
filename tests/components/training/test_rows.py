"""Features that stay on disk: the rows, moments and batches that memory would hold, and the training from them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components import trainer
from components.artifacts.features import memory_bytes, read_features
from components.artifacts.training import CHECKPOINTS_DIR, read_history
from components.data.transform import TransformOptions
from components.trainer import TrainerOptions
from components.training import batches
from components.training.hardware import Replicas
from components.training.rows import RowsOnDisk

REPLICAS = Replicas(tf.distribute.get_strategy())
OPTIONS: dict[str, Any] = {"hidden_units": (8,), "num_heads": 2, "epochs": 4, "batch_size": 16, "learning_rate": 1e-2}


@pytest.fixture
def rows(features_dir: Path, tmp_path: Path) -> RowsOnDisk:
    return RowsOnDisk(features_dir, "train", tmp_path / "train.f16")


def test_rows_and_their_moments_are_those_in_memory(rows: RowsOnDisk, features_dir: Path) -> None:
    features, labels = read_features(features_dir, "train")
    expected = features.reshape(-1, features.shape[-1])
    assert memory_bytes(features_dir, "train") > expected.nbytes
    numbers = np.random.default_rng(0).permutation(len(expected))
    assert len(rows) == len(expected)
    np.testing.assert_array_equal(rows.read(numbers), expected[numbers])
    np.testing.assert_array_equal(rows.labels, labels.repeat(features.shape[1]))
    np.testing.assert_array_equal(rows.moments().mean, expected.mean(axis=0))
    np.testing.assert_array_equal(rows.moments().variance, expected.var(axis=0))


def test_some_photos_and_some_views_can_be_taken(features_dir: Path, tmp_path: Path) -> None:
    features, labels = read_features(features_dir, "train")
    are_kept = np.arange(len(labels)) % 3 == 0
    rows = RowsOnDisk(features_dir, "train", tmp_path / "some", num_views=1, are_kept=are_kept)
    np.testing.assert_array_equal(rows.read(np.arange(len(rows))), features[are_kept, 0])
    np.testing.assert_array_equal(rows.labels, labels[are_kept])


def test_file_that_is_there_is_not_written_again(rows: RowsOnDisk, features_dir: Path, tmp_path: Path) -> None:
    written = (tmp_path / "train.f16").stat()
    again = RowsOnDisk(features_dir, "train", tmp_path / "train.f16")
    assert (tmp_path / "train.f16").stat() == written
    np.testing.assert_array_equal(again.labels, rows.labels)


def test_every_epoch_has_each_row_once_in_an_order_of_its_own(
    rows: RowsOnDisk, features_dir: Path, tmp_path: Path
) -> None:
    clean = RowsOnDisk(features_dir, "validation", tmp_path / "clean", num_views=1)
    data = batches.of_rows_on_disk(rows, clean, 5, batch_size=16, seed=3, replicas=REPLICAS)
    expected = np.hstack([rows.read(np.arange(len(rows))), np.eye(5, dtype=np.float32)[rows.labels]])
    orders = []
    for epoch in (0, 0, 1):
        found = list(data.of_epoch(epoch).as_numpy_iterator())
        assert [len(inputs) for inputs, _ in found[:-1]] == [16] * (data.num_steps - 1)
        orders.append(np.hstack([np.concatenate(part) for part in zip(*found, strict=True)]))
        np.testing.assert_array_equal(np.unique(orders[-1], axis=0), np.unique(expected, axis=0))
        assert len(orders[-1]) == len(expected)
    np.testing.assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    inputs, targets = next(data.validation.as_numpy_iterator())
    features, labels = read_features(features_dir, "validation")
    np.testing.assert_array_equal(inputs, features[: len(inputs), 0])
    np.testing.assert_array_equal(targets.argmax(axis=1), labels[: len(inputs)])


def test_in_the_same_order_training_from_disk_ends_with_the_bits_of_memory(
    examples_dir: Path, features_dir: Path, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shuffle(row: tf.Tensor, seed: Any, last: int) -> tf.Tensor:
        with tf.init_scope():
            numbers = tf.data.Dataset.range(last + 1).shuffle(last + 1, seed=sum(seed), reshuffle_each_iteration=False)
            order = list(numbers.as_numpy_iterator())
        return tf.constant(order, tf.int64)[row]

    def train(name: str, **options: Any) -> Path:
        (out_dir := tmp_path / name).mkdir()
        trainer.train(
            examples_dir=examples_dir,
            features_dir=features_dir,
            model_dir=model_dir,
            out_dir=out_dir,
            options=TrainerOptions(**{**OPTIONS, **options}),
            transform=TransformOptions(),
        )
        assert not (out_dir / CHECKPOINTS_DIR).exists()
        return out_dir

    memory, disk, again = train("memory"), train("disk", max_features_mb=0), train("again", max_features_mb=0)
    assert (disk / "model.keras").read_bytes() == (again / "model.keras").read_bytes()
    assert read_history(disk)["head"]["val_loss"] != read_history(memory)["head"]["val_loss"]
    monkeypatch.setattr(tf.random.experimental, "index_shuffle", shuffle)
    same = train("same", max_features_mb=0)
    assert (same / "model.keras").read_bytes() == (memory / "model.keras").read_bytes()
