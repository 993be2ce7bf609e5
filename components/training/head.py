"""The head is trained: on the frozen backbone's features, from several seeds, and the best on validation is kept."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.artifacts.features import read_features
from components.artifacts.training import History
from components.training import batches, fitting, networks
from components.training.fitting import Schedule
from components.training.hardware import Replicas

if TYPE_CHECKING:
    import keras

    from components.trainer import TrainerOptions

log = logging.getLogger(__name__)


def train_heads(
    features_dir: Path,
    num_classes: int,
    options: "TrainerOptions",
    replicas: Replicas,
    out_dir: Path,
    *,
    class_weights: Sequence[float] | None = None,
    are_kept: NDArray[np.bool_] | None = None,
) -> tuple["keras.Model", History]:
    """Train heads from different seeds and return the best on validation.

    That is the one which is right most often; where classes have weights, the one of the least (weighted) loss: most
    often right is who names the largest class. Only those training photos are learned from that `are_kept`, `bool [N]`.
    """
    features, labels = read_features(features_dir, "train")
    if are_kept is not None:
        features, labels = features[are_kept], labels[are_kept]
    clean, clean_labels = read_features(features_dir, "validation")
    # Each view is an example of its own; validation has the clean one alone.
    rows, targets = features.reshape(-1, features.shape[-1]), _one_hot(labels.repeat(features.shape[1]), num_classes)
    validation = clean[:, 0], _one_hot(clean_labels, num_classes)

    trained = []
    for seed in range(options.seed, options.seed + options.num_heads):
        head = _build_head(rows, num_classes, options, seed, replicas, class_weights)
        examples = batches.of_rows(
            rows, targets, validation, batch_size=options.batch_size, seed=seed, replicas=replicas
        )
        schedule = Schedule(options.epochs, options.early_stopping_patience, options.reduce_lr_patience)
        history = fitting.fit(
            head, examples, phase=f"head_{seed}", schedule=schedule, replicas=replicas, out_dir=out_dir
        )
        trained.append((head, history))
    accuracies = [history["val_accuracy"][fitting.best_epoch(history)] for _, history in trained]
    log.info("trainer: validation accuracy of each head: %s", ", ".join(f"{a:.4f}" for a in accuracies))
    scores = accuracies if class_weights is None else [-min(history["val_loss"]) for _, history in trained]
    head, history = trained[int(np.argmax(scores))]
    if class_weights is not None:
        # A saved network names its loss: one of Keras' own can be read by a process that knows nothing of training.
        with replicas.strategy.scope():
            fitting.compile_classifier(
                head, learning_rate=options.learning_rate, label_smoothing=options.label_smoothing
            )
    return head, history


def _build_head(
    features: NDArray[np.float32],
    num_classes: int,
    options: "TrainerOptions",
    seed: int,
    replicas: Replicas,
    class_weights: Sequence[float] | None,
) -> "keras.Model":
    import keras

    keras.utils.set_random_seed(seed)
    with replicas.strategy.scope():
        head = networks.build_head(
            num_features=features.shape[1],
            num_classes=num_classes,
            hidden_units=options.hidden_units,
            dropout=options.dropout,
            seed=seed,
        )
        networks.center(head, features)
        fitting.compile_classifier(
            head,
            learning_rate=options.learning_rate,
            label_smoothing=options.label_smoothing,
            class_weights=class_weights,
            # A step takes a millisecond: a whole epoch goes to TensorFlow at once.
            steps_per_execution=-(-len(features) // options.batch_size),
        )
    return head


def _one_hot(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    return np.eye(num_classes, dtype=np.float32)[labels]
