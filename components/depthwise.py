"""A small network of depthwise blocks with swish, trained from scratch: what photos alone teach, without a backbone.

Reads examples; writes what the trainer writes (`model.keras`, `history.json`, `training.json`), so that the same steps
export, judge and convert it. The original project had such a network, 80.0 % accurate; of its layers only the kind is
known. Widths and depth are chosen here: as much as learns within minutes on two cores.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.artifacts.examples import read_examples
from components.artifacts.summary import Summary
from components.artifacts.training import CHECKPOINTS_DIR, write_training
from components.data.transform import TransformOptions
from components.options import check_at_least, check_fraction, check_rate, check_seed
from components.training import batches, fitting, hardware, networks
from components.training.fitting import Schedule

if TYPE_CHECKING:
    import keras

NAME = "depthwise_cnn"
# A block halves the image where its width differs from the one before.
_WIDTHS = (32, 64, 64, 128, 128, 192)


@dataclass(frozen=True)
class DepthwiseOptions:
    """How the network learns.

    Attributes:
        image_size_px: side of the square that photos are resized to; half the side takes a quarter of the time.
        epochs: passes over the augmented training photos, at most.
        batch_size: photos a step.
        learning_rate: of Adam.
        dropout: share of the pooled features that are dropped while training, 0 to below 1.
        label_smoothing: share of the target spread over all classes, 0 to below 1.
        early_stopping_patience: epochs without a better validation loss before training stops; the best epoch is kept.
        reduce_lr_patience: epochs without a better validation loss before the learning rate is halved.
        seed: of the first weights, dropout, the augmentation and the order of the photos.
    """

    image_size_px: int = 128
    epochs: int = 40
    batch_size: int = 32
    learning_rate: float = 2e-3
    dropout: float = 0.2
    label_smoothing: float = 0.1
    early_stopping_patience: int = 8
    reduce_lr_patience: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, 32, "image_size_px")
        check_at_least(self, 1, "epochs", "batch_size", "early_stopping_patience", "reduce_lr_patience")
        check_fraction(self, "dropout", "label_smoothing")
        check_rate(self, "learning_rate")
        check_seed(self)


def train(
    *,
    examples_dir: Path,
    validation_dir: Path,  # nothing is learned from data that was not validated
    out_dir: Path,
    options: DepthwiseOptions,
    transform: TransformOptions,
) -> Summary:
    """Train the network on augmented photos.

    Returns:
        The validation accuracy and loss of the epoch that is kept, and the epochs it took.

    Raises:
        ComponentError: the loss is no longer a number.
    """
    import keras

    class_names = read_examples(examples_dir)["class_names"]
    replicas = hardware.local_replicas()
    networks.restart_names()
    keras.utils.set_random_seed(options.seed)
    with replicas.strategy.scope():
        network = build(num_classes=len(class_names), options=options)
        fitting.compile_classifier(
            network, learning_rate=options.learning_rate, label_smoothing=options.label_smoothing
        )
    photos = batches.of_photos(
        examples_dir,
        image_size_px=options.image_size_px,
        batch_size=options.batch_size,
        transform=transform,
        seed=options.seed,
        replicas=replicas,
    )
    schedule = Schedule(options.epochs, options.early_stopping_patience, options.reduce_lr_patience)
    history = fitting.fit(network, photos, phase="scratch", schedule=schedule, replicas=replicas, out_dir=out_dir)
    write_training(
        out_dir,
        network,
        {
            "backbone": NAME,
            "image_size_px": options.image_size_px,
            "weights": {"source": "none", "fallback": None},
            "num_features": _WIDTHS[-1],
            "class_names": class_names,
            "num_parameters": network.count_params(),
            "num_trainable": sum(int(np.prod(v.shape)) for v in network.trainable_variables),
            "epochs": {"scratch": len(history["loss"])},
            "best_epoch": fitting.best_epoch(history) + 1,
            "temperature": 1.0,  # It is there to be compared, by its labels.
            "is_frozen": False,
            "teacher": None,
        },
        {"scratch": history},
    )
    shutil.rmtree(out_dir / CHECKPOINTS_DIR)
    return fitting.summarize({"scratch": history})


def build(*, num_classes: int, options: DepthwiseOptions) -> "keras.Model":
    """Build the network: `uint8 [N, size, size, 3]`, RGB, 0–255, to probabilities `float32 [N, C]`.

    A convolution, then a depthwise and a pointwise one for each width, all with batch normalization and swish.
    """
    import keras
    from keras import layers

    shape = (options.image_size_px, options.image_size_px, 3)
    pixels = x = keras.Input(shape)
    for number, width in enumerate((24, *_WIDTHS)):
        if number == 0:
            convolutions = [layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)]
        else:
            strides = 1 if width == x.shape[-1] else 2
            convolutions = [
                layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False),
                layers.Conv2D(width, 1, use_bias=False),
            ]
        for convolution in convolutions:
            x = layers.BatchNormalization(momentum=0.9)(convolution(x))
            x = layers.Activation("swish")(x)
    backbone = keras.Model(pixels, x, name=NAME)
    images = keras.Input(shape, dtype="uint8", name="images")
    features = layers.GlobalAveragePooling2D()(backbone(keras.ops.cast(images, "float32") / 127.5 - 1.0))
    features = layers.Dropout(options.dropout, seed=options.seed)(features)
    return keras.Model(images, layers.Dense(num_classes, activation="softmax")(features), name="classifier")
