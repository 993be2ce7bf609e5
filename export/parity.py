"""The same photos through every form of a model: how far the predictions differ.

Float forms must give the same probabilities. Quantized ones are compared by the class they predict, on many photos,
where they are evaluated. Importing this module loads neither TensorFlow nor Keras.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from client.classifier_client import Client, ImageError, Prediction
from export.spec import read_spec

if TYPE_CHECKING:
    import keras

Predictions = dict[str, NDArray[np.float64]]
"""Probabilities `float64 [N, C]` of the same `N` photos, by form of the model."""


class FormParity(TypedDict):
    """How close one form's predictions are to the reference's.

    Attributes:
        form: of the model, such as `saved_model_images` or `litert_int8`.
        num_images: photos compared.
        max_difference: the largest difference of a probability.
        agreement: the share of photos with the same class.
        tolerance: how large the difference may be; `None` where it is only measured.
        passed: whether it is within the tolerance.
    """

    form: str
    num_images: int
    max_difference: float
    agreement: float
    tolerance: float | None
    passed: bool


def predict(
    classifier: "keras.Model", export_dir: Path, files: Mapping[str, Path], encoded: Sequence[bytes]
) -> Predictions:
    """Classify photos with Keras, both signatures of the SavedModel, and LiteRT files.

    Args:
        classifier: the source of the others: `uint8 [N, size, size, 3]` to `float32 [N, C]`.
        export_dir: with the SavedModel.
        files: LiteRT files, by kind. They get the pixels that Keras gets: decoding is compared elsewhere.
        encoded: JPEG, PNG, GIF or BMP files.
    """
    import tensorflow as tf

    from client.classifier_client import LiteRTTransport
    from export import preprocessing

    spec = read_spec(export_dir)
    images = np.stack([preprocessing.load(tf.constant(photo), spec["image_size_px"]).numpy() for photo in encoded])
    signatures = tf.saved_model.load(str(export_dir)).signatures
    predictions = {
        "keras": classifier(images, training=False).numpy(),
        "saved_model_images": signatures["images"](images=tf.constant(images))["probabilities"].numpy(),
        "saved_model_serving_default": signatures["serving_default"](image_bytes=tf.constant(list(encoded)))[
            "probabilities"
        ].numpy(),
    }
    for kind, path in files.items():
        with Client(LiteRTTransport(path)) as client:
            rows = [_to_row(result, spec["class_names"]) for result in client.classify(images)]
        predictions[f"litert_{kind}"] = np.array(rows)
    return {form: np.asarray(rows, np.float64) for form, rows in predictions.items()}


def compare(predictions: Predictions, *, reference: str, tolerances: Mapping[str, float]) -> list[FormParity]:
    """Compare every form's predictions with those of one of them.

    Args:
        predictions: as `predict` returns them. A form with fewer photos is compared on those.
        reference: the form that the others are compared with.
        tolerances: how far a probability may be from the reference's, by form; others are only measured.

    Returns:
        A row for each form but the reference.
    """
    rows: list[FormParity] = []
    for form, found in predictions.items():
        if form == reference:
            continue
        expected = predictions[reference][: len(found)]
        difference = float(np.abs(found - expected).max())
        tolerance = tolerances.get(form)
        rows.append(
            {
                "form": form,
                "num_images": len(found),
                "max_difference": difference,
                "agreement": float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
                "tolerance": tolerance,
                "passed": tolerance is None or difference <= tolerance,  # A NaN is a failure.
            }
        )
    return rows


def _to_row(result: Prediction | ImageError, class_names: Sequence[str]) -> list[float]:
    if isinstance(result, ImageError):
        raise result
    return [result.probabilities[name] for name in class_names]
