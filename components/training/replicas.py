"""Training over several replicas: graphics cards of one machine, or of several workers.

Keras' own `fit` does not run under `MultiWorkerMirroredStrategy` (keras#20585), so the loop is here. Each replica takes
its rows of every global batch, and drops and augments them as one process would: training ends with the same numbers,
but for the order in which they are added up.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.data import transform
from components.data.augmentation import RandomAffine, warp
from components.errors import ClusterError
from components.training import losses

log = logging.getLogger(__name__)

_COLLECTIVE_TIMEOUT_S = 600
"""How long an operation over all workers may take: longer than one of them needs to save a checkpoint."""

_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.FailedPreconditionError,
)
_ABORTED = "Collective ops is aborted"


def join() -> tf.distribute.Strategy:
    """Join the workers of `TF_CONFIG`, before anything else that this process does with TensorFlow; waits for all."""
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=_COLLECTIVE_TIMEOUT_S)
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    log.info("training in parallel on %d replicas of all workers", strategy.num_replicas_in_sync)
    return strategy


def is_lost(exc: tf.errors.OpError) -> bool:
    """Return whether what an operation raised means that another worker is gone, or this one was.

    One that was frozen or cut off until the others had started again is refused by their new coordination service, with
    an error that is one of a wrong argument but for its text.
    """
    return isinstance(exc, _LOST) or _ABORTED in str(exc)


def barrier(strategy: tf.distribute.Strategy, value: int) -> bool:
    """Wait for every replica; return whether all came with the same value."""
    return bool((_gather(strategy)(tf.constant(value, tf.int64)).numpy() == value).all())


@cache
def _gather(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    """Make the function that returns every replica's value of a tensor of one shape, along a new first axis."""

    @tf.function(autograph=False)
    def gather(tensor: tf.Tensor) -> tf.Tensor:
        def run() -> tf.Tensor:
            return tf.distribute.get_replica_context().all_gather(tensor[tf.newaxis], axis=0)

        return strategy.experimental_local_results(strategy.run(run))[0]

    return gather


@dataclass(frozen=True)
class Sharding:
    """The rows of each global batch that the replicas of this process take.

    Attributes:
        batch_size: of the global batch.
        num_replicas: of all workers together; each takes as many rows.
        first: the number of the first replica here.
        num_local: how many are here.
    """

    batch_size: int
    num_replicas: int
    first: int
    num_local: int

    @classmethod
    def of(cls, strategy: tf.distribute.Strategy, batch_size: int) -> "Sharding":
        total = strategy.num_replicas_in_sync
        local = len(strategy.extended.worker_devices)
        workers = strategy.cluster_resolver
        first = workers.task_id * local if workers and workers.task_id else 0
        return cls(batch_size, total, first, local)

    @property
    def num_rows(self) -> int:
        """How many rows a replica takes: the last ones may have rows that are there to fill up and do not count."""
        return -(-self.batch_size // self.num_replicas)

    def take(self, examples: tf.data.Dataset) -> tf.data.Dataset:
        """Pick from examples, in the order one process would see them, those that the replicas here take, in order.

        A global batch that does not fill all replicas is filled with its first example.
        """
        rows = tf.range(self.first * self.num_rows, (self.first + self.num_local) * self.num_rows)

        def pick(batch: tf.Tensor) -> tf.Tensor:
            return tf.gather(batch, tf.where(rows < tf.shape(batch)[0], rows, 0))

        return examples.batch(self.batch_size).map(pick).unbatch()

    def rows(self, order: tf.data.Dataset, read: Callable[[tf.Tensor], tuple[tf.Tensor, ...]]) -> tf.data.Dataset:
        """Return each replica's batches of what is read by row numbers, and their weights."""
        batches = self.take(order).batch(self.num_rows, drop_remainder=True)
        return self.weigh(batches.map(read), int(order.cardinality()))

    def parse(self, records: tf.data.Dataset, *, image_size_px: int) -> tf.data.Dataset:
        """Turn serialized examples into each replica's batches of photos and labels."""
        return transform.parse(self.take(records), image_size_px=image_size_px).batch(
            self.num_rows, drop_remainder=True
        )

    def weigh(self, batches: tf.data.Dataset, num_examples: int) -> tf.data.Dataset:
        """Add to each replica's batch the weights of its rows, `float32 [N]`: 1 / the global batch's size, or 0."""
        num_steps = -(-num_examples // self.batch_size)

        def weights(number: tf.Tensor) -> tf.Tensor:
            step, replica = number // self.num_local, number % self.num_local
            count = tf.minimum(num_examples - step * self.batch_size, self.batch_size)
            rows = (self.first + replica) * self.num_rows + tf.range(self.num_rows, dtype=tf.int64)
            return tf.where(rows < count, 1 / tf.cast(count, tf.float32), 0.0)

        numbers = tf.data.Dataset.range(num_steps * self.num_local)
        weighted = tf.data.Dataset.zip(batches, numbers.map(weights)).map(lambda batch, weight: (*batch, weight))
        return weighted.apply(tf.data.experimental.assert_cardinality(num_steps * self.num_local))

    def augment(self, batches: tf.data.Dataset, layer: RandomAffine, *, seed: int) -> tf.data.Dataset:
        """Augment replicas' batches as `components.data.transform.augment` does the global ones they are from."""

        def change(number: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            images, others = batch
            step, replica = number // self.num_local, number % self.num_local
            shape = tf.shape(images)
            matrices = layer.matrices(
                self.num_rows * self.num_replicas,
                shape[1],
                shape[2],
                seed=tf.stack([seed + layer.seed, tf.cast(step, tf.int32)]),
            )
            first = (self.first + tf.cast(replica, tf.int32)) * self.num_rows
            return warp(images, matrices[first : first + self.num_rows]), others

        return batches.enumerate().map(change, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


class _Dropout(keras.layers.Layer):
    """Drops what `layer` would drop of these rows, did one process hold the whole global batch."""

    def __init__(self, layer: keras.layers.Dropout, num_replicas: int) -> None:
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.layer = layer
        self.num_replicas = num_replicas

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training:
            return inputs
        num_rows = tf.shape(inputs)[0]
        first = tf.distribute.get_replica_context().replica_id_in_sync_group * num_rows
        ones = tf.ones([self.num_replicas * num_rows, *inputs.shape[1:]], inputs.dtype)
        factors = keras.random.dropout(ones, self.layer.rate, seed=self.layer.seed_generator)
        return inputs * factors[first : first + num_rows]


def _with_global_dropout(network: keras.Model, num_replicas: int) -> keras.Model:
    """Return a network of the same layers, and so of the same weights, whose dropout is that of the global batch."""

    def replace(layer: keras.layers.Layer) -> keras.layers.Layer:
        return _Dropout(layer, num_replicas) if isinstance(layer, keras.layers.Dropout) else layer

    return keras.models.clone_model(network, clone_function=replace, recursive=True)


def fit(
    network: keras.Model,
    batches: tf.data.Dataset,
    *,
    validation_data: tf.data.Dataset,
    strategy: tf.distribute.Strategy,
    callbacks: list[keras.callbacks.Callback],
    initial_epoch: int,
    epochs: int,
    steps_per_epoch: int,
) -> None:
    """Do what `network.fit` does, with batches of (inputs, targets, weights) for each replica; see `Sharding`."""
    if not barrier(strategy, initial_epoch):
        raise ClusterError(
            f"Every worker must go on at the chief's newest checkpoint; this one found that of epoch {initial_epoch}, "
            "and another one another. Let them share the folder of runs, and start again."
        )
    trained = _with_global_dropout(network, strategy.num_replicas_in_sync)
    optimizer = network.optimizer
    with strategy.scope():
        optimizer.build(network.trainable_variables)

    def measure(batch: tuple[tf.Tensor, ...], *, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the replica's part of the mean loss, and its sums: of losses, right predictions and examples."""
        inputs, targets, weights = batch
        outputs = trained(inputs, training=training)
        each = network.loss.call(targets, outputs)
        right = losses.accuracy(targets, outputs)
        counts = tf.cast(weights > 0, tf.float32)
        sums = tf.stack([tf.reduce_sum(counts * each), tf.reduce_sum(counts * right), tf.reduce_sum(counts)])
        return tf.reduce_sum(weights * each), sums

    def train(batch: tuple[tf.Tensor, ...]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss, sums = measure(batch, training=True)
            scaled = optimizer.scale_loss(loss)
        variables = network.trainable_variables
        gradients = tape.gradient(scaled, [v.value for v in variables])
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            # It passes over a step whose gradients are not finite: where those of one replica are not, all must.
            zero = tf.add_n([tf.reduce_sum(g * 0) for g in gradients])
            zero = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, zero)
            gradients = [g + zero for g in gradients]
        optimizer.apply(gradients, variables)
        return sums

    def test(batch: tuple[tf.Tensor, ...]) -> tf.Tensor:
        return measure(batch, training=False)[1]

    def repeated(step: Callable[[tuple[tf.Tensor, ...]], tf.Tensor]) -> Callable[..., tf.Tensor]:
        @tf.function(autograph=False)
        def run(iterator: Any, num_steps: tf.Tensor) -> tf.Tensor:
            def body(number: tf.Tensor, sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                found = strategy.experimental_local_results(strategy.run(step, args=(next(iterator),)))
                return number + 1, sums + tf.add_n(found)

            return tf.while_loop(lambda number, _: number < num_steps, body, (0, tf.zeros([3])))[1]

        return run

    def mean(sums: NDArray[np.float64]) -> tuple[float, float]:
        loss, right, count = _gather(strategy)(tf.constant(sums)).numpy().sum(axis=0)
        return float(loss / count), float(right / count)

    # Endless: of finite ones, all workers would have to exchange at each step whether theirs has ended.
    train_iterator, test_iterator = (
        iter(strategy.distribute_datasets_from_function(lambda _, d=dataset: d.repeat().prefetch(tf.data.AUTOTUNE)))
        for dataset in (batches, validation_data)
    )
    num_local = len(strategy.extended.worker_devices)
    num_test_steps = int(validation_data.cardinality()) // num_local
    train_steps, test_steps = repeated(train), repeated(test)
    at_once = network.steps_per_execution
    every = keras.callbacks.CallbackList(callbacks, model=network)
    every.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        every.on_epoch_begin(epoch)
        sums = np.zeros(3)
        for step in range(0, steps_per_epoch, at_once):
            num_steps = min(at_once, steps_per_epoch - step)
            sums += train_steps(train_iterator, tf.constant(num_steps)).numpy()
            every.on_train_batch_end(step + num_steps - 1)
        loss, accuracy = mean(sums)
        val_loss, val_accuracy = mean(test_steps(test_iterator, tf.constant(num_test_steps)).numpy().astype(float))
        network.stop_training = not np.isfinite(loss)
        logs = {"loss": loss, "accuracy": accuracy, "val_loss": val_loss, "val_accuracy": val_accuracy}
        every.on_epoch_end(epoch, logs)
        if network.stop_training:
            break
    every.on_train_end()
