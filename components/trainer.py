"""Train the head on the backbone's features; then, where the options say so, the backbone's last stages with it.

At the end its probabilities are calibrated on the validation photos (`training.calibration`).

Reads examples, features and the backbone; writes `model.keras` (the whole classifier: pixels to probabilities),
`history.json`, `training.json` and TensorBoard's event files under `logs/`. Each epoch ends with a checkpoint of
everything that training depends on, so a killed training goes on where it was and ends as if nothing had happened.
"""

import logging
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.artifacts.backbone import WEIGHTS_FILE, read_backbone
from components.artifacts.examples import read_examples, read_index, shards
from components.artifacts.features import read_clean
from components.artifacts.summary import Summary
from components.artifacts.suspects import read_suspects
from components.artifacts.training import CHECKPOINTS_DIR, write_training
from components.data import transform as transforms
from components.data.transform import TransformOptions
from components.errors import ComponentError
from components.options import check_at_least, check_choice, check_fraction, check_rate, check_seed
from components.training import batches, calibration, fitting, hardware, networks
from components.training.backbones import BACKBONES
from components.training.fine_tuning import fine_tune
from components.training.hardware import Replicas
from components.training.head import train_head

if TYPE_CHECKING:
    import keras

    from components.training.cluster import Cluster, Work

log = logging.getLogger(__name__)

NONE, BALANCED = "none", "balanced"

_BATCH = 32


@dataclass(frozen=True)
class TrainerOptions:
    """How the classifier learns.

    Attributes:
        hidden_units: width of each Dense (ReLU) layer of a head; each is followed by dropout.
        num_heads: heads trained side by side; the mean of their logits is the classifier's.
        dropout: share of a layer's outputs that are dropped while training, 0 to below 1.
        label_smoothing: share of the target spread over all classes, 0 to below 1.
        class_weights: `none`, or `balanced`: every class counts as much, however few its examples are.
        epochs: passes over the training photos, at most.
        batch_size: photos a step.
        learning_rate: of Adam.
        early_stopping_patience: epochs without a better validation loss before training stops; the best epoch is kept.
        reduce_lr_patience: epochs without a better validation loss before the learning rate is halved.
        fine_tune: how many of the backbone's last stages learn too, after the head; 0 for none.
        fine_tune_epochs: passes over the augmented training photos, at most.
        fine_tune_learning_rate: of Adam, low enough not to undo what the backbone knows.
        teacher: the folder of a pushed version, such as `models/flowers/3`, whose predictions are learned instead of
            the labels while fine-tuning.
        precision: of fine-tuning: `auto`, `float32`, `bfloat16` or `float16`.
        max_features_mb: of memory for the features; where they are more (4 bytes a number, each view counts) they are
            read from disk, in an order of their own.
        leave_out_suspects: whether photos with a suspect label are left out of training (`suspects.max_probability`).
        seed: of the first weights, dropout and the order of the photos.
    """

    hidden_units: tuple[int, ...] = (64,)
    num_heads: int = 8
    dropout: float = 0.5
    label_smoothing: float = 0.1
    class_weights: str = NONE
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 1e-3
    early_stopping_patience: int = 4
    reduce_lr_patience: int = 2
    fine_tune: int = 0
    fine_tune_epochs: int = 3
    fine_tune_learning_rate: float = 1e-5
    teacher: str = ""
    precision: str = "auto"
    max_features_mb: int = 4096
    leave_out_suspects: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, 0, "fine_tune", "max_features_mb")
        check_at_least(self, 1, "num_heads", "epochs", "batch_size", "fine_tune_epochs")
        check_at_least(self, 1, "early_stopping_patience", "reduce_lr_patience")
        check_fraction(self, "dropout", "label_smoothing")
        check_rate(self, "learning_rate", "fine_tune_learning_rate")
        check_choice(self, hardware.PRECISIONS, "precision")
        check_choice(self, (NONE, BALANCED), "class_weights")
        check_seed(self)
        if any(units < 1 for units in self.hidden_units):
            raise ValueError(f"hidden_units must be at least 1 each. Received: {self.hidden_units}")
        if self.teacher and not self.fine_tune:
            raise ValueError(
                "A teacher teaches while the backbone is fine-tuned: fine_tune must be at least 1. Received: 0"
            )

    def resolve(self) -> "TrainerOptions":
        """Return the options with the precision that `auto` means on this machine, where fine-tuning depends on it."""
        return replace(self, precision=hardware.resolve_precision(self.precision)) if self.fine_tune else self


def describe_source(options: TrainerOptions, transform: TransformOptions | None = None) -> dict[str, str]:
    """Describe the teacher, if any, by the digest of its files; the augmentation comes from nowhere else.

    Raises:
        ComponentError: there is none where the options say so.
    """
    if not options.teacher:
        return {}
    from components.training.teacher import describe

    return {"teacher": describe(Path(options.teacher))}


def train(
    *,
    examples_dir: Path,
    features_dir: Path,
    model_dir: Path,
    out_dir: Path,
    options: TrainerOptions,
    transform: TransformOptions,
    suspects_dir: Path | None = None,
    teacher_dir: Path | None = None,
    cluster: "Cluster | None" = None,
) -> Summary:
    """Train the classifier, together with the other workers where there are any.

    A teacher is the one that the options name, or `teacher_dir`.

    Returns:
        The validation accuracy and loss of the model that is kept, and the epochs it took.

    Raises:
        ComponentError: `fine_tune` is more than the stages that the backbone has, suspects are to be left out that
            nobody looked for, the teacher may not teach, or the loss is no longer a number.
        ClusterError: the workers do not come together.
    """
    backbone = read_backbone(model_dir)["backbone"]
    num_stages = len(BACKBONES[backbone].stages)
    if options.fine_tune > num_stages:
        raise ComponentError(
            f"trainer.fine_tune must be 0 to {num_stages} for {backbone}. Received: {options.fine_tune}"
        )
    inputs = {"examples_dir": examples_dir, "features_dir": features_dir, "model_dir": model_dir}
    if options.leave_out_suspects:
        if not suspects_dir:
            raise ComponentError(
                "leave_out_suspects needs the step that finds them, which this pipeline does not have before its "
                "trainer. Leave the option out."
            )
        inputs["suspects_dir"] = suspects_dir
    if teacher := teacher_dir or (Path(options.teacher) if options.teacher else None):
        inputs["teacher_dir"] = teacher
    if cluster is None:
        replicas = hardware.local_replicas()
        return train_here(**inputs, out_dir=out_dir, options=options, transform=transform, replicas=replicas)
    return cluster.train_as_chief(
        out_dir,
        {
            "function": f"{__name__}:{train_assigned.__name__}",
            # Where a worker finds them, wherever it has the folder of runs.
            "inputs": {name: os.path.relpath(path, out_dir) for name, path in inputs.items()},
            # The chief's machine decides for all.
            "options": asdict(replace(options, precision=hardware.resolve_precision(options.precision))),
            "transform": asdict(transform),
        },
    )


def train_assigned(out_dir: Path, work: "Work", replicas: Replicas) -> Summary:
    """Train what the chief's `train` assigned, as one of several workers."""
    return train_here(
        **{name: out_dir / path for name, path in work["inputs"].items()},
        out_dir=out_dir,
        options=TrainerOptions(**work["options"]),
        transform=TransformOptions(**work["transform"]),
        replicas=replicas,
    )


def train_here(
    *,
    examples_dir: Path,
    features_dir: Path,
    model_dir: Path,
    out_dir: Path,
    options: TrainerOptions,
    transform: TransformOptions,
    replicas: Replicas,
    suspects_dir: Path | None = None,
    teacher_dir: Path | None = None,
) -> Summary:
    """Train the classifier with the replicas that this process is given; of several workers, only the chief writes."""
    networks.restart_names()
    backbone, examples = read_backbone(model_dir), read_examples(examples_dir)
    num_classes = len(examples["class_names"])
    are_kept = _leave_out(suspects_dir, examples_dir, examples["class_names"]) if suspects_dir else None
    teacher = None
    if teacher_dir:
        from components.training import teacher as teachers

        teacher = teachers.check(teacher_dir, examples["class_names"], read_index(examples_dir))
    class_weights = None
    if options.class_weights == BALANCED:
        from components.training.losses import balance

        counts = Counter(examples["splits"]["train"]["per_class"])
        if suspects_dir:
            counts.subtract(each["label"] for each in read_suspects(suspects_dir) if each["is_suspect"])
        class_weights = balance(counts)

    # The head, on features.
    histories = {}
    head, histories["head"] = train_head(
        features_dir, num_classes, options, replicas, out_dir, class_weights=class_weights, are_kept=are_kept
    )
    extractor = networks.build_extractor(
        backbone["backbone"], image_size_px=backbone["image_size_px"], weights=model_dir / WEIGHTS_FILE
    )
    classifier = networks.build_classifier(extractor, head)

    # The head and the last stages, on photos.
    if options.fine_tune:
        photos = batches.of_photos(
            examples_dir,
            image_size_px=backbone["image_size_px"],
            batch_size=options.batch_size,
            transform=transform,
            seed=options.seed,
            replicas=replicas,
            are_kept=are_kept,
        )
        if teacher_dir:
            photos = teachers.teach(
                photos,
                teacher_dir,
                num_epochs=options.fine_tune_epochs,
                precision=hardware.resolve_precision(options.precision),
                replicas=replicas,
                out_dir=out_dir,
            )
        histories["fine_tune"] = fine_tune(
            classifier,
            backbone,
            photos,
            options,
            replicas,
            out_dir,
            before=histories["head"],
            class_weights=class_weights,
        )

    kept, best = fitting.find_best(histories)
    predicted, labels = _predict_validation(classifier, features_dir, examples_dir, is_tuned=kept == "fine_tune")
    temperature = calibration.fit_temperature(predicted, labels)
    with replicas.strategy.scope():
        networks.set_temperature(classifier.get_layer("head"), temperature)
    log.info("trainer: temperature %.3f, fitted on %d validation photos", temperature, len(labels))
    if replicas.is_chief:
        write_training(
            out_dir,
            classifier,
            {
                **backbone,
                "class_names": examples["class_names"],
                "num_parameters": classifier.count_params(),
                "num_trainable": sum(int(np.prod(v.shape)) for v in head.trainable_variables),
                "epochs": {phase: len(history["loss"]) for phase, history in histories.items()},
                "best_epoch": best + 1 if kept == list(histories)[-1] else 0,
                "temperature": temperature,
                "is_frozen": kept != "fine_tune",
                "teacher": teacher and teacher["backbone"],
            },
            histories,
        )
        shutil.rmtree(out_dir / CHECKPOINTS_DIR)
    left_out = {} if are_kept is None else {"num_left_out": int((~are_kept).sum())}
    return {**fitting.summarize(histories), "temperature": round(temperature, 3), **left_out}


def _leave_out(suspects_dir: Path, examples_dir: Path, class_names: Sequence[str]) -> NDArray[np.bool_]:
    """Return which photos of train are learned from, in the order of the shards: those whose label is not suspect."""
    suspects = {each["photo"] for each in read_suspects(suspects_dir) if each["is_suspect"]}
    rows = [row for row in read_index(examples_dir) if row["split"] == "train"]
    are_kept = np.array([row["filename"] not in suspects for row in rows])
    kept = {row["label"] for row, is_kept in zip(rows, are_kept, strict=True) if is_kept}
    if lost := [class_names[label] for label in sorted({row["label"] for row in rows} - kept)]:
        raise ComponentError(
            f"Every class must keep photos to learn from. Received: all of {', '.join(lost)} have a suspect label. "
            "Look at suspects.jsonl and correct the labels, or train with leave_out_suspects=false."
        )
    log.info("trainer: %d of %d training photos left out, their labels are suspect", (~are_kept).sum(), len(are_kept))
    return are_kept


def _predict_validation(
    classifier: "keras.Model", features_dir: Path, examples_dir: Path, *, is_tuned: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return what a classifier makes of the validation photos: probabilities `[N, C]`, and the labels `[N]`.

    It is called, and not told to predict: that would gather what each of several replicas predicts.
    """
    if is_tuned:
        photos = transforms.read(shards(examples_dir, "validation"), image_size_px=classifier.input_shape[1])
        network, inputs = classifier, photos.batch(_BATCH).as_numpy_iterator()
    else:  # The features are still those that its backbone has.
        clean = read_clean(features_dir, "validation")
        network, inputs = classifier.get_layer("head"), ((features, labels) for features, _, labels in clean)
    batches = [(network(each, training=False).numpy(), labels) for each, labels in inputs]
    probabilities, found = zip(*batches, strict=True)
    return np.concatenate(probabilities), np.concatenate(found)
