"""What a network is trained on: batches of feature rows or of photos, in an order drawn from a seed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.artifacts.examples import read_examples, shards
from components.data import transform as transforms
from components.data.transform import TransformOptions
from components.training.hardware import Replicas
from components.training.rows import RowsOnDisk

if TYPE_CHECKING:
    import tensorflow as tf

    from components.data.augmentation import RandomAffine
    from components.training.replicas import Sharding

_Read = Callable[["tf.Tensor"], tuple["tf.Tensor", ...]]
"""Row numbers `int64 [N]` to inputs and targets."""

_SHUFFLED_PHOTOS = 10_000
"""How many encoded photos are in memory at most, from which the next one is drawn."""


@dataclass(frozen=True)
class Batches:
    """The batches of a training.

    Attributes:
        of_epoch: returns the batches of (inputs, one-hot targets) of an epoch; what it sees depends on nothing else.
        num_steps: how many an epoch has.
        validation: what the network is validated on, in a form that its `fit` takes.
    """

    of_epoch: Callable[[int], "tf.data.Dataset"]
    num_steps: int
    validation: Any

    def of_epochs(self, first: int, end: int) -> "tf.data.Dataset":
        """Return the batches of one epoch after the other; those of `first` in any case."""
        batches = self.of_epoch(first)
        for epoch in range(first + 1, end):
            batches = batches.concatenate(self.of_epoch(epoch))
        return batches


def of_rows(
    inputs: NDArray[np.float32],
    targets: NDArray[np.float32],
    validation: tuple[NDArray[np.float32], NDArray[np.float32]],
    *,
    batch_size: int,
    seed: int,
    replicas: Replicas,
) -> Batches:
    """Return batches of rows that are in memory: inputs `float32 [N, D]`, one-hot targets `float32 [N, C]`."""
    import tensorflow as tf

    def make_reader(*arrays: NDArray[np.float32]) -> _Read:
        tensors = [tf.constant(array) for array in arrays]
        return lambda rows: tuple(tf.gather(tensor, rows) for tensor in tensors)

    num_rows, sharding, read = len(inputs), _sharding(batch_size, replicas), make_reader(inputs, targets)
    clean: Any = validation
    if replicas.are_several:
        clean = sharding.rows(tf.data.Dataset.range(len(validation[0])), make_reader(*validation))

    def of_epoch(epoch: int) -> tf.data.Dataset:
        order = tf.data.Dataset.range(num_rows).shuffle(num_rows, seed=seed + epoch, reshuffle_each_iteration=False)
        return sharding.rows(order, read)

    return Batches(of_epoch, -(-num_rows // batch_size), clean)


def of_rows_on_disk(
    train: RowsOnDisk,
    validation: RowsOnDisk,
    num_classes: int,
    *,
    batch_size: int,
    seed: int,
    replicas: Replicas,
) -> Batches:
    """Return batches of rows that are on disk, in an order that takes no memory either."""
    import tensorflow as tf

    def make_reader(source: RowsOnDisk) -> _Read:
        def read(rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
            inputs, labels = tf.numpy_function(
                lambda numbers: (source.read(numbers), source.labels[numbers]),
                [rows],
                (tf.float32, tf.int64),
                stateful=False,
            )
            inputs, labels = tf.ensure_shape(inputs, [None, source.num_features]), tf.ensure_shape(labels, [None])
            return inputs, tf.one_hot(labels, num_classes)

        return read

    num_rows, sharding, read = len(train), _sharding(batch_size, replicas), make_reader(train)

    def of_epoch(epoch: int) -> tf.data.Dataset:
        order = tf.data.Dataset.range(num_rows).map(
            lambda row: tf.random.experimental.index_shuffle(row, [seed, epoch], num_rows - 1)
        )
        return sharding.rows(order, read)

    clean = sharding.rows(tf.data.Dataset.range(len(validation)), make_reader(validation))
    return Batches(of_epoch, -(-num_rows // batch_size), clean)


def of_photos(
    examples_dir: Path,
    *,
    image_size_px: int,
    batch_size: int,
    transform: TransformOptions,
    seed: int,
    replicas: Replicas,
    are_kept: NDArray[np.bool_] | None = None,
) -> Batches:
    """Return batches of photos: augmented `uint8 [N, size, size, 3]`, one-hot targets `float32 [N, C]`.

    Those of validation are not augmented. Of those to train on some may be left out: `are_kept` is `bool [N]`.
    """
    import tensorflow as tf

    examples = read_examples(examples_dir)
    num_classes = len(examples["class_names"])
    num_train, num_validation = (examples["splits"][split]["num_examples"] for split in ("train", "validation"))
    sharding = _sharding(batch_size, replicas)
    layer = transforms.make_augmentation(transform)
    train = transforms.records(shards(examples_dir, "train"))
    if are_kept is not None:
        kept, num_train = tf.constant(are_kept), int(are_kept.sum())
        train = train.enumerate().filter(lambda index, _: kept[index]).map(lambda _, record: record)

    def finish(batches: tf.data.Dataset, num_examples: int) -> tf.data.Dataset:
        one_hot = batches.map(lambda images, labels: (images, tf.one_hot(labels, num_classes)))
        return sharding.weigh(one_hot, num_examples)

    def of_epoch(epoch: int) -> tf.data.Dataset:
        shuffled = train.shuffle(min(num_train, _SHUFFLED_PHOTOS), seed=seed + epoch, reshuffle_each_iteration=False)
        photos = sharding.parse(shuffled, image_size_px=image_size_px)
        return finish(sharding.augment(photos, layer, seed=seed + epoch), num_train)

    clean = sharding.parse(transforms.records(shards(examples_dir, "validation")), image_size_px=image_size_px)
    return Batches(of_epoch, -(-num_train // batch_size), finish(clean, num_validation))


def _sharding(batch_size: int, replicas: Replicas) -> "Sharding | Unsharded":
    """Return the part of each batch that is for the replicas of this process."""
    if not replicas.are_several:
        return Unsharded(batch_size)
    from components.training.replicas import Sharding

    return Sharding.of(replicas.strategy, batch_size)


@dataclass(frozen=True)
class Unsharded:
    """The sharding of a single replica: all of each batch, each row with the same weight. See `Sharding`."""

    batch_size: int

    def rows(self, order: "tf.data.Dataset", read: _Read) -> "tf.data.Dataset":
        return order.batch(self.batch_size).map(read)

    def parse(self, records: "tf.data.Dataset", *, image_size_px: int) -> "tf.data.Dataset":
        return transforms.parse(records, image_size_px=image_size_px).batch(self.batch_size)

    def augment(self, batches: "tf.data.Dataset", layer: "RandomAffine", *, seed: int) -> "tf.data.Dataset":
        return transforms.augment(batches, layer, seed=seed)

    def weigh(self, batches: "tf.data.Dataset", num_examples: int) -> "tf.data.Dataset":
        import tensorflow as tf

        return batches.apply(tf.data.experimental.assert_cardinality(-(-num_examples // self.batch_size)))
