"""Seconds until a trained model: the original recipe against ours, at equal or better test accuracy.

The original recipe is that of the project's first notebook: `ImageDataGenerator` feeds `fit`, and every epoch sends
every photo through the frozen backbone. Ours reads the same files, computes the backbone's features once, and
trains its head on them. Both clocks run from the image files to the trained model; the test is outside both. Where a
folder of photos from elsewhere is given, both are tested on those, too. The shares of the peak count the passes through
the backbone, not the head's few multiply-adds.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks import photos
from benchmarks.peak import count_multiply_adds, describe_shares, share_of_peak
from client.classifier_client import preprocessing
from components import examples, features, limits, model, trainer
from components.artifacts.backbone import WEIGHTS_FILE, read_backbone
from components.artifacts.examples import shards
from components.artifacts.training import read_classifier
from components.data import transform
from components.data.transform import TransformOptions
from components.examples import ExamplesOptions
from components.features import FeaturesOptions
from components.limits import LimitsOptions
from components.model import ModelOptions
from components.trainer import TrainerOptions
from components.training.backbones import build_backbone

if TYPE_CHECKING:
    import keras

Photos = Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]
"""Batches of images `[N, size, size, 3]` and their labels `[N]`."""

HIDDEN_UNITS, DROPOUT = (512, 256, 128, 64, 32, 16), 0.26  # of the original notebook
BATCH = 32


def measure(data: str, options: ModelOptions, *, epochs: int, elsewhere: Path | None = None) -> None:
    """Print seconds and accuracy of both sides and the ratio of the seconds."""
    with photos.folder(data) as folder, tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for name in ("examples", "model", "features", "trainer", "limits"):
            (work / name).mkdir()
        model.fetch(out_dir=work / "model", options=options)
        our_seconds, our_passes, precision, ours = _ours(folder, work)
        seconds, passes, peer = _peer(folder, work, epochs)
        num_macs = _count_multiply_adds(work)
        size_px = ours.input_shape[1]
        our_accuracy, accuracy = (_accuracy(each, _test_photos(work, size_px)) for each in (ours, peer))
    shares = describe_shares(
        share_of_peak({precision: num_macs}, our_passes / our_seconds),
        share_of_peak({"float32": num_macs}, passes / seconds),
    )
    print(
        f"training: ours {our_seconds:.0f} s to test accuracy {our_accuracy:.4f}, original recipe {seconds:.0f} s "
        f"({epochs} epochs) to {accuracy:.4f}: ratio {our_seconds / seconds:.3f}"
        + ("" if our_accuracy >= accuracy else " (NOT comparable: ours is less accurate)")
        + f"; {shares}"
    )
    if elsewhere:
        found = [_accuracy(each, _folder_photos(elsewhere, size_px)) for each in (ours, peer)]
        print(f"training: accuracy on {elsewhere}: ours {found[0]:.4f}, original recipe {found[1]:.4f}")


def _ours(folder: Path, work: Path) -> "tuple[float, int, str, keras.Model]":
    """Return the seconds, the images that went through the backbone, in which type, and the classifier."""
    started = time.perf_counter()
    examples.build(out_dir=work / "examples", options=ExamplesOptions(source=str(folder)))
    summary = features.extract(
        examples_dir=work / "examples",
        validation_dir=work,
        model_dir=work / "model",
        out_dir=work / "features",
        options=FeaturesOptions(),
        transform=TransformOptions(),
    )
    trainer.train(
        examples_dir=work / "examples",
        features_dir=work / "features",
        model_dir=work / "model",
        out_dir=work / "trainer",
        options=TrainerOptions(),
        transform=TransformOptions(),
    )
    limits.fit(
        examples_dir=work / "examples",
        features_dir=work / "features",
        training_dir=work / "trainer",
        out_dir=work / "limits",
        options=LimitsOptions(),
    )
    seconds = time.perf_counter() - started
    return seconds, int(summary["num_images"]), str(summary["precision"]), read_classifier(work / "trainer")


def _peer(folder: Path, work: Path, epochs: int) -> "tuple[float, int, keras.Model]":
    """Return the seconds, the images that went through the backbone, and the classifier."""
    import keras
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    keras.utils.set_random_seed(0)
    spec = read_backbone(work / "model")
    size_px = spec["image_size_px"]
    started = time.perf_counter()
    preprocess = keras.applications.resnet50.preprocess_input
    augmenting = ImageDataGenerator(
        rotation_range=20, width_shift_range=0.2, height_shift_range=0.2, shear_range=0.2, zoom_range=0.2,
        horizontal_flip=True, fill_mode="nearest", preprocessing_function=preprocess,
    )  # fmt: skip
    size = (size_px, size_px)
    train = augmenting.flow_from_directory(folder / "train", target_size=size, batch_size=BATCH, seed=0)
    plain = ImageDataGenerator(preprocessing_function=preprocess)
    validation = plain.flow_from_directory(folder / "validation", target_size=size, batch_size=BATCH, shuffle=False)
    backbone = build_backbone(spec["backbone"], image_size_px=size_px)
    backbone.load_weights(work / "model" / WEIGHTS_FILE)
    backbone.trainable = False
    head = [layer for n in HIDDEN_UNITS for layer in (keras.layers.Dense(n, "relu"), keras.layers.Dropout(DROPOUT))]
    output = keras.layers.Dense(train.num_classes, "softmax")
    recipe = keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D(), *head, output])
    recipe.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    recipe.fit(train, validation_data=validation, epochs=epochs, verbose=2)
    seconds = time.perf_counter() - started
    pixels = keras.Input((size_px, size_px, 3), dtype="uint8")
    num_passes = epochs * (train.samples + validation.samples)
    return seconds, num_passes, keras.Model(pixels, recipe(preprocess(keras.ops.cast(pixels, "float32"))))


def _count_multiply_adds(work: Path) -> int:
    """Count those of the backbone for one image."""
    import tensorflow as tf

    spec = read_backbone(work / "model")
    backbone = build_backbone(spec["backbone"], image_size_px=spec["image_size_px"])
    return sum(count_multiply_adds(tf.lite.TFLiteConverter.from_keras_model(backbone).convert()).values())


def _test_photos(work: Path, size_px: int) -> Photos:
    """Read the test examples, decoded and resized the same way for both."""
    photos = transform.read(shards(work / "examples", "test"), image_size_px=size_px).batch(BATCH)
    return ((images.numpy(), labels.numpy()) for images, labels in photos)


def _folder_photos(folder: Path, size_px: int) -> Photos:
    """Read the photos of a folder `<class>/*.jpg`, likewise."""
    for label, class_dir in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for path in sorted(class_dir.iterdir()):
            image = preprocessing.load(path, name=path.name, size_px=size_px)
            yield np.asarray(image)[np.newaxis], np.array([label])


def _accuracy(classifier: "keras.Model", photos: Photos) -> float:
    right = [classifier.predict_on_batch(images).argmax(axis=1) == labels for images, labels in photos]
    return float(np.concatenate(right).mean())
