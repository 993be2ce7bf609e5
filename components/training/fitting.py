"""Fitting a network: early stopping, a falling learning rate, and a checkpoint after each epoch."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.artifacts.summary import Summary
from components.artifacts.training import CHECKPOINTS_DIR, LOGS_DIR, History
from components.errors import ComponentError
from components.progress import Progress
from components.training.batches import Batches
from components.training.hardware import Replicas

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

_LONG_EPOCH_S = 5.0


@dataclass(frozen=True)
class Schedule:
    """How long a network learns, and how fast.

    Attributes:
        epochs: passes over the training examples, at most.
        early_stopping_patience: epochs without a better validation loss before training stops; the best epoch is kept.
        reduce_lr_patience: epochs without a better validation loss before the learning rate is halved.
    """

    epochs: int
    early_stopping_patience: int
    reduce_lr_patience: int


def compile_classifier(
    network: "keras.Model",
    *,
    learning_rate: float,
    label_smoothing: float,
    class_weights: Sequence[float] | None = None,
    steps_per_execution: int = 1,
) -> None:
    """Set the optimizer (Adam), the loss (cross-entropy) and the metric (accuracy).

    Args:
        network: to compile: a classifier, or heads that learn side by side.
        learning_rate: of Adam.
        label_smoothing: share of the target spread over all classes.
        class_weights: how much an example of each class counts in the loss, of training and of validation; `None` for
            all the same.
        steps_per_execution: steps that go to TensorFlow at once.
    """
    import keras

    from components.training.losses import LossOfHeads, WeightedCrossentropy, accuracy

    loss = (
        keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing)
        if class_weights is None
        else WeightedCrossentropy(class_weights, label_smoothing=label_smoothing)
    )
    network.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=LossOfHeads(loss),
        metrics=[accuracy],
        steps_per_execution=steps_per_execution,
    )


def fit(
    network: "keras.Model", batches: Batches, *, phase: str, schedule: Schedule, replicas: Replicas, out_dir: Path
) -> History:
    """Fit a compiled network, going on from the newest checkpoint of the phase; it ends with its best weights.

    Raises:
        ComponentError: the loss or the weights are no longer finite numbers.
    """
    import keras
    import tensorflow as tf

    from components.training.checkpoint import Checkpoint

    stopping = keras.callbacks.EarlyStopping(patience=schedule.early_stopping_patience, restore_best_weights=True)
    reducing = keras.callbacks.ReduceLROnPlateau(patience=schedule.reduce_lr_patience, factor=0.5)
    checkpoint = Checkpoint(
        out_dir / CHECKPOINTS_DIR / phase, {"stopping": stopping, "reducing": reducing}, writes=replicas.is_chief
    )
    with replicas.strategy.scope():
        checkpoint.restore(network)
    first = checkpoint.num_epochs
    if first:
        log.info("trainer: %s goes on after epoch %d of %d", phase, first, schedule.epochs)
    callbacks = [keras.callbacks.TerminateOnNaN(), stopping, reducing, checkpoint]
    if replicas.is_chief:
        callbacks.insert(0, keras.callbacks.TensorBoard(out_dir / LOGS_DIR / phase, write_graph=False))
    if replicas.are_several:
        from components.training import replicas as distributed

        run = partial(distributed.fit, network, strategy=replicas.strategy)
    else:
        run = partial(network.fit, shuffle=False, verbose=0)  # the batches are shuffled
    num_steps = batches.num_steps
    total = (schedule.epochs - first) * num_steps
    with Progress(total=total, desc=phase, unit="step") as progress:
        showing = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda step, logs: progress.update(step + 1 - progress.n % num_steps),
            on_epoch_end=_make_epoch_logger(phase, schedule.epochs),
        )
        run(
            batches.of_epochs(first, schedule.epochs).prefetch(tf.data.AUTOTUNE),
            validation_data=batches.validation,
            initial_epoch=first,
            epochs=first if checkpoint.is_stopped else schedule.epochs,
            steps_per_epoch=num_steps,
            callbacks=[showing, *callbacks],
        )
    _check_finite(network, checkpoint.history, phase)
    return checkpoint.history


def best_epoch(history: History) -> int:
    """Return the index of the epoch whose weights early stopping keeps."""
    return int(np.argmin(history["val_loss"]))


def find_best(histories: Mapping[str, History]) -> tuple[str, int]:
    """Return the phase and the index of the epoch whose weights are kept.

    A later phase counts only where it lowers the validation loss and costs no accuracy.
    """
    (kept, best), *later = ((phase, best_epoch(history)) for phase, history in histories.items())
    for phase, epoch in later:
        before, after = histories[kept], histories[phase]
        is_less = after["val_loss"][epoch] < before["val_loss"][best]
        if is_less and after["val_accuracy"][epoch] >= before["val_accuracy"][best]:
            kept, best = phase, epoch
    return kept, best


def summarize(histories: Mapping[str, History]) -> Summary:
    """Return the validation accuracy and loss of the epoch that is kept, and the epochs of all phases."""
    phase, best = find_best(histories)
    return {
        "val_accuracy": round(histories[phase]["val_accuracy"][best], 4),
        "val_loss": round(histories[phase]["val_loss"][best], 4),
        "num_epochs": sum(len(history["loss"]) for history in histories.values()),
    }


def _make_epoch_logger(phase: str, epochs: int) -> Callable[[int, Mapping[str, float]], None]:
    """Return a callback that logs each epoch which takes over five seconds; shorter ones need no line."""
    started = time.monotonic()

    def log_epoch(epoch: int, logs: Mapping[str, float]) -> None:
        nonlocal started
        now = time.monotonic()
        if now - started > _LONG_EPOCH_S:
            numbers = ", ".join(f"{name} {value:.4f}" for name, value in logs.items() if name != "learning_rate")
            log.info("trainer: %s, epoch %d of %d in %.1f s: %s", phase, epoch + 1, epochs, now - started, numbers)
        started = now

    return log_epoch


def _check_finite(network: "keras.Model", history: History, phase: str) -> None:
    weights_are_finite = all(np.isfinite(weights).all() for weights in network.get_weights())
    if not (weights_are_finite and np.isfinite([*history["loss"], *history["val_loss"]]).all()):
        raise ComponentError(
            f"The loss and the weights must stay finite numbers; {phase} lost them by epoch {len(history['loss'])}. "
            "Lower the learning rate."
        )
