"""The same photos through every form of a model: how far the answers are apart.

Float forms must give the same probabilities; quantized ones are compared by the class they name, on many photos, where
they are evaluated.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from client.classifier_client import Client, LiteRTTransport, Prediction
from export import preprocessing
from export.spec import read_spec

Answers = dict[str, NDArray[np.float64]]
"""Probabilities `float64 [N, C]` of the same `N` photos, by the way they were asked for."""


def ask(classifier: keras.Model, export_dir: Path, files: Mapping[str, Path], encoded: Sequence[bytes]) -> Answers:
    """Ask Keras, both signatures of the SavedModel, and LiteRT files about photos.

    Args:
        classifier: what the others were made from: `uint8 [N, size, size, 3]` to `float32 [N, C]`.
        export_dir: with the SavedModel.
        files: LiteRT files, by their kind. They get the pixels that Keras gets: decoding is compared elsewhere.
        encoded: JPEG, PNG, GIF or BMP files.
    """
    spec = read_spec(export_dir)
    images = np.stack([preprocessing.load(tf.constant(photo), spec["image_size_px"]).numpy() for photo in encoded])
    signatures = tf.saved_model.load(str(export_dir)).signatures
    answers = {
        "keras": classifier(images, training=False).numpy(),
        "saved_model_images": signatures["images"](images=tf.constant(images))["probabilities"].numpy(),
        "saved_model_serving_default": signatures["serving_default"](image_bytes=tf.constant(list(encoded)))[
            "probabilities"
        ].numpy(),
    }
    for kind, path in files.items():
        with Client(LiteRTTransport(path)) as client:
            rows = [_to_row(result, spec["class_names"]) for result in client.classify(images)]
        answers[f"litert_{kind}"] = np.array(rows)
    return {way: np.asarray(found, np.float64) for way, found in answers.items()}


def compare(answers: Answers, *, reference: str, tolerances: Mapping[str, float]) -> list[dict[str, Any]]:
    """Hold every way's answers against those of one of them.

    Args:
        answers: as `ask` gives them. A way that was asked about fewer photos is compared on those.
        reference: the way that the others are compared with.
        tolerances: how far a probability may be from the reference's, by way; others are only measured.

    Returns:
        Of each way `way`, `num_images`, `max_difference` of a probability, `agreement` (the share of photos with the
        same class), `tolerance` (or null) and `passed`.
    """
    rows = []
    for way, found in answers.items():
        if way == reference:
            continue
        expected = answers[reference][: len(found)]
        difference = float(np.abs(found - expected).max())
        tolerance = tolerances.get(way)
        rows.append(
            {
                "way": way,
                "num_images": len(found),
                "max_difference": difference,
                "agreement": float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
                "tolerance": tolerance,
                "passed": tolerance is None or difference <= tolerance,  # A NaN is a failure.
            }
        )
    return rows


def _to_row(result: Any, class_names: Sequence[str]) -> list[float]:
    if not isinstance(result, Prediction):
        raise result
    return [result.probabilities[name] for name in class_names]
