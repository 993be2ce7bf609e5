"""The head is trained: on the frozen backbone's features, as several heads that become one."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.artifacts.features import memory_bytes, read_features
from components.artifacts.training import CHECKPOINTS_DIR, History
from components.training import batches, fitting, networks
from components.training.fitting import Schedule
from components.training.hardware import Replicas
from components.training.rows import Moments, RowsOnDisk

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

    if memory_bytes(features_dir, "train") <= options.max_features_mb * 1e6:
        rows, targets, validation = _read(features_dir, num_classes, are_kept)
        moments = Moments(rows.mean(axis=0), rows.var(axis=0))
        make_batches = partial(batches.of_rows, rows, targets, validation)
    else:
        log.info("trainer: features are more than trainer.max_features_mb=%d: on disk", options.max_features_mb)
        folder = out_dir / CHECKPOINTS_DIR / f"rows-{replicas.worker}"
        on_disk = RowsOnDisk(features_dir, "train", folder / "train.f16", are_kept=are_kept)
        clean = RowsOnDisk(features_dir, "validation", folder / "validation.f16", num_views=1)
        moments = on_disk.moments()
        make_batches = partial(batches.of_rows_on_disk, on_disk, clean, num_classes)
    data = make_batches(batch_size=options.batch_size, seed=options.seed, replicas=replicas)
    keras.utils.set_random_seed(options.seed)
    with replicas.strategy.scope():
        heads = build_heads(
            num_heads=options.num_heads,
            num_features=len(moments.mean),
            num_classes=num_classes,
            hidden_units=options.hidden_units,
            dropout=options.dropout,
            seed=options.seed,
        )
        networks.center(heads, moments)
        fitting.compile_classifier(
            heads,
            learning_rate=options.learning_rate,
            label_smoothing=options.label_smoothing,
            class_weights=class_weights,
            # A step takes milliseconds: a whole epoch goes to TensorFlow at once.
            steps_per_execution=data.num_steps,
        )
    history = fitting.fit(
        heads,
        data,
        phase=_PHASE,
        schedule=Schedule(options.epochs, options.early_stopping_patience, options.reduce_lr_patience),
        replicas=replicas,
        out_dir=out_dir,
    )
    with replicas.strategy.scope():
        return join_heads(heads, hidden_units=options.hidden_units, dropout=options.dropout, seed=options.seed), history


def _read(
    features_dir: Path, num_classes: int, are_kept: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Read all features into memory: rows and one-hot targets to train on, and both to validate on."""
    features, labels = read_features(features_dir, "train")
    if are_kept is not None:
        features, labels = features[are_kept], labels[are_kept]
    clean, clean_labels = read_features(features_dir, "validation")
    # Each view is an example of its own; validation has the clean one alone.
    rows, targets = features.reshape(-1, features.shape[-1]), _one_hot(labels.repeat(features.shape[1]), num_classes)
    return rows, targets, (clean[:, 0], _one_hot(clean_labels, num_classes))


def _one_hot(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    return np.eye(num_classes, dtype=np.float32)[labels]
