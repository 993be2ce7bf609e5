"""Train the head on the backbone's features; then, where asked, the backbone's last stages with it.

Reads examples, features and the backbone; writes `model.keras` (the whole classifier: pixels to probabilities),
`history.json`, `training.json` and TensorBoard's event files under `logs/`. Each epoch ends with a checkpoint of
everything that training depends on, so a killed training goes on where it was and ends as if nothing had happened.
"""

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components import examples, features, model
from components.data import transform as transforms
from components.data.transform import TransformOptions
from components.errors import ComponentError
from components.storage.files import read_json, write_json
from components.training import hardware

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from components.training.cluster import Cluster
    from components.training.replicas import Share

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainerOptions:
    """How the classifier learns.

    Attributes:
        hidden_units: width of each Dense (ReLU) layer of the head; each is followed by dropout.
        num_heads: heads trained from seeds of their own; the one most accurate on validation is kept.
        dropout: share of a layer's outputs that are dropped while training, 0 to below 1.
        label_smoothing: share of the target spread over all classes, 0 to below 1.
        epochs: passes over the training photos, at most.
        batch_size: photos a step.
        learning_rate: of Adam.
        early_stopping_patience: epochs without a better validation loss before training stops; the best epoch is kept.
        reduce_lr_patience: epochs without a better validation loss before the learning rate is halved.
        fine_tune: how many of the backbone's last stages learn too, after the head; 0 for none.
        fine_tune_epochs: passes over the augmented training photos, at most.
        fine_tune_learning_rate: of Adam, low enough not to undo what the backbone knows.
        precision: of fine-tuning: `auto`, `float32`, `bfloat16` or `float16`.
        seed: of the first weights, dropout and the order of the photos.
    """

    hidden_units: tuple[int, ...] = (256,)
    num_heads: int = 4
    dropout: float = 0.5
    label_smoothing: float = 0.1
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 1e-3
    early_stopping_patience: int = 4
    reduce_lr_patience: int = 2
    fine_tune: int = 0
    fine_tune_epochs: int = 3
    fine_tune_learning_rate: float = 1e-5
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1. Received: {getattr(self, name)}")
        for name in (
            "num_heads",
            "epochs",
            "batch_size",
            "early_stopping_patience",
            "reduce_lr_patience",
            "fine_tune_epochs",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1. Received: {getattr(self, name)}")
        for name in ("learning_rate", "fine_tune_learning_rate"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1. Received: {getattr(self, name)}")
        if any(units < 1 for units in self.hidden_units):
            raise ValueError(f"hidden_units must be at least 1 each. Received: {self.hidden_units}")
        if self.fine_tune < 0:
            raise ValueError(f"fine_tune must be at least 0. Received: {self.fine_tune}")
        hardware.check_precision(self.precision)

    def resolve(self) -> "TrainerOptions":
        """Return the options with the precision that `auto` means on this machine, where fine-tuning depends on it."""
        return replace(self, precision=hardware.resolve_precision(self.precision)) if self.fine_tune else self


def train(
    *,
    examples_dir: Path,
    features_dir: Path,
    model_dir: Path,
    out_dir: Path,
    options: TrainerOptions,
    transform: TransformOptions,
    cluster: "Cluster | None" = None,
) -> dict[str, float | int]:
    """Train the classifier, together with the other workers where there are any.

    Returns:
        The validation accuracy and loss of the model that is kept, and the epochs it took.

    Raises:
        ComponentError: `fine_tune` asks for more stages than the backbone has, or the loss is no longer a number.
        ClusterError: `TF_CONFIG` does not describe a cluster of workers, or they do not come together.
    """
    spec = model.describe(model_dir)
    stages = model.BACKBONES[spec["backbone"]].stages
    if options.fine_tune > len(stages):
        raise ComponentError(
            f"trainer.fine_tune must be 0 to {len(stages)} for {spec['backbone']}. Received: {options.fine_tune}"
        )
    inputs = {"examples_dir": examples_dir, "features_dir": features_dir, "model_dir": model_dir}
    if cluster is None:
        return train_here(**inputs, out_dir=out_dir, options=options, transform=transform)
    work = {
        # Where a worker finds them, wherever it has the folder of runs.
        "inputs": {name: os.path.relpath(path, out_dir) for name, path in inputs.items()},
        # The chief's machine decides for all.
        "options": asdict(replace(options, precision=hardware.resolve_precision(options.precision))),
        "transform": asdict(transform),
    }
    return cluster.lead(out_dir, work)


def train_here(
    *,
    examples_dir: Path,
    features_dir: Path,
    model_dir: Path,
    out_dir: Path,
    options: TrainerOptions,
    transform: TransformOptions,
) -> dict[str, float | int]:
    """Train the classifier in this process; of several workers, only the chief writes."""
    spec = model.describe(model_dir)
    class_names = examples.describe(examples_dir)["class_names"]
    head, history = _train_head(features_dir, out_dir, len(class_names), options)
    histories = {"head": history}
    extractor = model.build_extractor(
        spec["backbone"], image_size_px=spec["image_size_px"], weights=model_dir / "backbone.weights.h5"
    )
    classifier = model.build_classifier(extractor, head)
    if options.fine_tune:
        tuned, histories["fine_tune"] = _fine_tune(classifier, spec, examples_dir, out_dir, options, transform)
        classifier.set_weights(tuned)
    last = histories[list(histories)[-1]]
    best = best_epoch(last)
    summary = {
        "val_accuracy": round(last["val_accuracy"][best], 4),
        "val_loss": round(last["val_loss"][best], 4),
        "num_epochs": sum(len(history["loss"]) for history in histories.values()),
    }
    if not _writes():
        return summary
    classifier.save(out_dir / "model.keras")
    shutil.rmtree(out_dir / "checkpoints")
    description = {
        **spec,
        "class_names": class_names,
        "num_parameters": classifier.count_params(),
        "num_trainable": sum(int(np.prod(v.shape)) for v in head.trainable_variables),
        "epochs": {phase: len(h["loss"]) for phase, h in histories.items()},
        "best_epoch": best + 1,
    }
    write_json(out_dir / "history.json", histories)
    write_json(out_dir / "training.json", description)
    return summary


def _writes() -> bool:
    """Whether this process is the one that writes what all workers have trained."""
    from components.training import cluster

    workers = cluster.from_environment()
    return workers is None or workers.is_chief


def describe(training_dir: Path) -> dict[str, Any]:
    """Read the description that `train` wrote."""
    return read_json(training_dir / "training.json")


def _train_head(
    features_dir: Path, out_dir: Path, num_classes: int, options: TrainerOptions
) -> tuple["keras.Model", dict[str, list[float]]]:
    """Train heads from different seeds and keep the one that is right most often on validation."""
    train, validation = features.load(features_dir, "train"), features.load(features_dir, "validation")
    heads = [
        _fit_head(train, validation, num_classes, options, seed=options.seed + number, out_dir=out_dir)
        for number in range(options.num_heads)
    ]
    accuracies = [history["val_accuracy"][best_epoch(history)] for _, history in heads]
    log.info("trainer: validation accuracy of each head: %s", ", ".join(f"{a:.4f}" for a in accuracies))
    return heads[int(np.argmax(accuracies))]


def _fit_head(
    train: tuple[NDArray[np.float32], NDArray[np.int64]],
    validation: tuple[NDArray[np.float32], NDArray[np.int64]],
    num_classes: int,
    options: TrainerOptions,
    *,
    seed: int,
    out_dir: Path,
) -> tuple["keras.Model", dict[str, list[float]]]:
    """Train a head on (features `float32 [N, views, D]`, labels `int64 [N]`); each view is an example of its own."""
    import keras
    import tensorflow as tf

    num_views, num_features = train[0].shape[1:]
    rows, labels = train[0].reshape(-1, num_features), np.repeat(train[1], num_views)
    num_steps = -(-len(rows) // options.batch_size)
    keras.utils.set_random_seed(seed)
    with hardware.strategy().scope():
        head = model.build_head(
            num_features=num_features,
            num_classes=num_classes,
            hidden_units=options.hidden_units,
            dropout=options.dropout,
            seed=seed,
        )
        model.center(head, rows)
        # A step takes a millisecond: a whole epoch goes to TensorFlow at once.
        compile_network(head, options.learning_rate, options.label_smoothing, steps_per_execution=num_steps)
    inputs, targets = tf.constant(rows), tf.constant(_one_hot(labels, num_classes))
    clean: Any = (validation[0][:, 0], _one_hot(validation[1], num_classes))
    share = _share(options.batch_size)
    history = fit(
        head,
        lambda epoch: _shuffled(inputs, targets, batch_size=options.batch_size, seed=seed + epoch, share=share),
        share.rows(tf.data.Dataset.range(len(clean[0])), *map(tf.constant, clean)) if share else clean,
        phase=f"head_{seed}",
        epochs=options.epochs,
        num_steps=num_steps,
        early_stopping_patience=options.early_stopping_patience,
        reduce_lr_patience=options.reduce_lr_patience,
        out_dir=out_dir,
    )
    return head, history


def best_epoch(history: dict[str, list[float]]) -> int:
    """Give the index of the epoch whose weights early stopping keeps."""
    return int(np.argmin(history["val_loss"]))


def _fine_tune(
    classifier: "keras.Model",
    spec: dict[str, Any],
    examples_dir: Path,
    out_dir: Path,
    options: TrainerOptions,
    transform: TransformOptions,
) -> tuple[list[NDArray[np.float32]], dict[str, list[float]]]:
    """Train the last stages and the head on augmented photos; give the classifier's weights and the history."""
    import keras

    size_px = spec["image_size_px"]
    precision = hardware.resolve_precision(options.precision)
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        with hardware.strategy().scope():
            extractor = model.build_extractor(spec["backbone"], image_size_px=size_px)
            head = keras.models.clone_model(classifier.get_layer("head"))
            tuned = model.build_classifier(extractor, head)
            tuned.set_weights(classifier.get_weights())
            model.unfreeze(extractor, spec["backbone"], num_stages=options.fine_tune)
            compile_network(tuned, options.fine_tune_learning_rate, options.label_smoothing)
    finally:
        keras.config.set_dtype_policy(previous)
    epoch_batches, validation, num_steps = read_photos(
        examples_dir, image_size_px=size_px, batch_size=options.batch_size, transform=transform, seed=options.seed
    )
    history = fit(
        tuned,
        epoch_batches,
        validation,
        phase="fine_tune",
        epochs=options.fine_tune_epochs,
        num_steps=num_steps,
        early_stopping_patience=options.early_stopping_patience,
        reduce_lr_patience=options.reduce_lr_patience,
        out_dir=out_dir,
    )
    return tuned.get_weights(), history


def read_photos(
    examples_dir: Path, *, image_size_px: int, batch_size: int, transform: TransformOptions, seed: int
) -> tuple[Callable[[int], "tf.data.Dataset"], "tf.data.Dataset", int]:
    """Read photos to train a network on, batches of `uint8 [N, size, size, 3]` and one-hot labels `float32 [N, C]`.

    Returns:
        A function from an epoch's number to its augmented batches, in an order of its own; the clean batches of
        validation; and how many batches an epoch has.
    """
    import tensorflow as tf

    described = examples.describe(examples_dir)
    num_classes, splits = len(described["class_names"]), described["splits"]
    num_examples = splits["train"]["num_examples"]
    shards = examples.shards(examples_dir, "train")
    share = _share(batch_size)
    layer = transforms.make_augmentation(transform)

    def with_one_hot(batches: tf.data.Dataset) -> tf.data.Dataset:
        return batches.map(lambda images, labels: (images, tf.one_hot(labels, num_classes)))

    def epoch_batches(epoch: int) -> tf.data.Dataset:
        shuffled = transforms.records(shards).shuffle(
            min(num_examples, 10_000), seed=seed + epoch, reshuffle_each_iteration=False
        )
        if share:
            batches = share.parse(shuffled, image_size_px=image_size_px)
            return share.weigh(with_one_hot(share.augment(batches, layer, seed=seed + epoch)), num_examples)
        batches = transforms.parse(shuffled, image_size_px=image_size_px).batch(batch_size)
        return with_one_hot(transforms.augment(batches, layer, seed=seed + epoch))

    clean, num_clean = examples.shards(examples_dir, "validation"), splits["validation"]["num_examples"]
    if share:
        batches = share.parse(transforms.records(clean), image_size_px=image_size_px)
        validation = share.weigh(with_one_hot(batches), num_clean)
    else:
        photos = transforms.read(clean, image_size_px=image_size_px)
        validation = with_one_hot(photos.apply(tf.data.experimental.assert_cardinality(num_clean)).batch(batch_size))
    return epoch_batches, validation, -(-num_examples // batch_size)


def _share(batch_size: int) -> "Share | None":
    """Give the part of each batch that is for this process, where it is not the only one or has several replicas."""
    strategy = hardware.strategy()
    if strategy.num_replicas_in_sync == 1:
        return None
    from components.training.replicas import Share

    return Share.of(strategy, batch_size)


def compile_network(
    network: "keras.Model", learning_rate: float, label_smoothing: float, *, steps_per_execution: int = 1
) -> None:
    import keras

    network.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing),
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )


def _shuffled(
    inputs: "tf.Tensor", targets: "tf.Tensor", *, batch_size: int, seed: int, share: "Share | None"
) -> "tf.data.Dataset":
    """Give one pass of batches over rows that are in memory, in an order drawn from the seed."""
    import tensorflow as tf

    num_rows = len(inputs)
    order = tf.data.Dataset.range(num_rows).shuffle(num_rows, seed=seed, reshuffle_each_iteration=False)
    if share:
        return share.rows(order, inputs, targets)
    return order.batch(batch_size).map(lambda rows: (tf.gather(inputs, rows), tf.gather(targets, rows)))


def _one_hot(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    return np.eye(num_classes, dtype=np.float32)[labels]


def fit(
    network: "keras.Model",
    epoch_batches: Callable[[int], "tf.data.Dataset"],
    validation: Any,
    *,
    phase: str,
    epochs: int,
    num_steps: int,
    early_stopping_patience: int,
    reduce_lr_patience: int,
    out_dir: Path,
) -> dict[str, list[float]]:
    """Fit with early stopping and learning-rate reduction, going on from the newest checkpoint of the phase.

    `epoch_batches` maps an epoch's number to its `num_steps` batches: what an epoch sees depends on nothing else.
    """
    import keras
    import tensorflow as tf
    from tqdm import tqdm

    from components.training.checkpoint import Checkpoint

    stopping = keras.callbacks.EarlyStopping(patience=early_stopping_patience, restore_best_weights=True)
    reducing = keras.callbacks.ReduceLROnPlateau(patience=reduce_lr_patience, factor=0.5)
    others = {"stopping": stopping, "reducing": reducing}
    checkpoint = Checkpoint(out_dir / "checkpoints" / phase, others, writes=_writes())
    strategy = hardware.strategy()
    with strategy.scope():
        checkpoint.restore(network)
    first = checkpoint.num_epochs
    if first:
        log.info("trainer: %s goes on after epoch %d of %d", phase, first, epochs)
    batches = epoch_batches(first)
    for epoch in range(first + 1, epochs):
        batches = batches.concatenate(epoch_batches(epoch))
    logging_callbacks = [keras.callbacks.TensorBoard(out_dir / "logs" / phase, write_graph=False)] if _writes() else []
    if strategy.num_replicas_in_sync > 1:
        from components.training import replicas as distributed

        run = partial(distributed.fit, network, strategy=strategy)
    else:
        run = partial(network.fit, shuffle=False, verbose=0)  # the batches are shuffled
    with tqdm(total=(epochs - first) * num_steps, desc=phase, unit="step", delay=2, leave=False, disable=None) as bar:
        run(
            batches.prefetch(tf.data.AUTOTUNE),
            validation_data=validation,
            initial_epoch=first,
            epochs=first if checkpoint.is_stopped else epochs,
            steps_per_epoch=num_steps,
            callbacks=[
                keras.callbacks.LambdaCallback(
                    on_train_batch_end=lambda step, logs: bar.update(step + 1 - bar.n % num_steps)
                ),
                *logging_callbacks,
                keras.callbacks.TerminateOnNaN(),
                stopping,
                reducing,
                checkpoint,
            ],
        )
    weights_are_finite = all(np.isfinite(weights).all() for weights in network.get_weights())
    if not (weights_are_finite and np.isfinite(checkpoint.history["loss"]).all()):
        raise ComponentError(
            f"The loss and the weights must stay finite numbers; {phase} lost them by epoch {checkpoint.num_epochs}. "
            "Lower the learning rate."
        )
    return checkpoint.history
