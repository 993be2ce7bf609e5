"""The head is trained: on the frozen backbone's features, as several heads that become one."""

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

_PHASE = "head"


def train_head(
    features_dir: Path,
    num_classes: int,
    options: "TrainerOptions",
    replicas: Replicas,
    out_dir: Path,
    *,
    class_weights: Sequence[float] | None = None,
    are_kept: NDArray[np.bool_] | None = None,
) -> tuple["keras.Model", History]:
    """Train heads side by side and return what they are together, see `training.ensemble`.

    Only those training photos are learned from that `are_kept`, `bool [N]`.
    """
    import keras

    from components.training.ensemble import build_heads, join_heads

    features, labels = read_features(features_dir, "train")
    if are_kept is not None:
        features, labels = features[are_kept], labels[are_kept]
    clean, clean_labels = read_features(features_dir, "validation")
    # Each view is an example of its own; validation has the clean one alone.
    rows, targets = features.reshape(-1, features.shape[-1]), _one_hot(labels.repeat(features.shape[1]), num_classes)
    validation = clean[:, 0], _one_hot(clean_labels, num_classes)

    keras.utils.set_random_seed(options.seed)
    with replicas.strategy.scope():
        heads = build_heads(
            num_heads=options.num_heads,
            num_features=rows.shape[1],
            num_classes=num_classes,
            hidden_units=options.hidden_units,
            dropout=options.dropout,
            seed=options.seed,
        )
        networks.center(heads, rows)
        fitting.compile_classifier(
            heads,
            learning_rate=options.learning_rate,
            label_smoothing=options.label_smoothing,
            class_weights=class_weights,
            # A step takes milliseconds: a whole epoch goes to TensorFlow at once.
            steps_per_execution=-(-len(rows) // options.batch_size),
        )
    history = fitting.fit(
        heads,
        batches.of_rows(rows, targets, validation, batch_size=options.batch_size, seed=options.seed, replicas=replicas),
        phase=_PHASE,
        schedule=Schedule(options.epochs, options.early_stopping_patience, options.reduce_lr_patience),
        replicas=replicas,
        out_dir=out_dir,
    )
    with replicas.strategy.scope():
        return join_heads(heads, hidden_units=options.hidden_units, dropout=options.dropout, seed=options.seed), history


def _one_hot(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    return np.eye(num_classes, dtype=np.float32)[labels]
