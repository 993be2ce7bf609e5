"""The same photos through every form of a model: how far the predictions differ.

Float forms must give the same probabilities. Quantized ones are compared by the class they predict, on many photos,
where they are evaluated. Importing this module loads neither TensorFlow nor Keras.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from client.classifier_client import Client, ImageError, Prediction
from export.spec import read_spec

if TYPE_CHECKING:
    import keras

    from export.limits import Limits

_ROUNDING = 1e-6  # of a p-value, in float32


class Outputs(NamedTuple):
    """What one form makes of N photos: probabilities `float64 [N, C]`; p-values `float64 [N]`, NaN where not told."""

    probabilities: NDArray[np.float64]
    p_values: NDArray[np.float64]


Predictions = dict[str, Outputs]
"""Of the same photos, by form of the model."""


class FormParity(TypedDict):
    """How close one form's predictions are to the reference's.

    Attributes:
        form: of the model, such as `saved_model_images` or `litert_int8`.
        num_images: photos compared.
        max_difference: the largest difference of a probability.
        max_p_value_difference: the largest difference of a p-value; `None` where the form does not tell them.
        agreement: the share of photos with the same class.
        tolerance: how large the difference of a probability may be; `None` where it is only measured.
        p_value_tolerance: likewise of a p-value.
        passed: whether both are within their tolerance.
    """

    form: str
    num_images: int
    max_difference: float
    max_p_value_difference: float | None
    agreement: float
    tolerance: float | None
    p_value_tolerance: float | None
    passed: bool


def predict(
    classifier: "keras.Model",
    limits: "Limits",
    export_dir: Path,
    files: Mapping[str, Path],
    encoded: Sequence[bytes],
) -> Predictions:
    """Classify photos with Keras, both signatures of the SavedModel, and LiteRT files.

    Args:
        classifier: the source of the others: `uint8 [N, size, size, 3]` to `float32 [N, C]`.
        limits: of the classifier; the p-values of Keras are computed from them with numpy.
        export_dir: with the SavedModel.
        files: LiteRT files, by kind. They get the pixels that Keras gets: decoding is compared elsewhere.
        encoded: JPEG, PNG, GIF, BMP or WebP files.
    """
    import tensorflow as tf

    from client.classifier_client import LiteRTTransport
    from export import preprocessing
    from export.embedding import add_embedding

    spec = read_spec(export_dir)
    images = np.stack([preprocessing.load(tf.constant(photo), spec["image_size_px"]).numpy() for photo in encoded])
    signatures = tf.saved_model.load(str(export_dir)).signatures
    embeddings = add_embedding(classifier)(images, training=False)[0].numpy()
    served = {
        "images": signatures["images"](images=tf.constant(images)),
        "serving_default": signatures["serving_default"](image_bytes=tf.constant(list(encoded))),
    }
    predictions = {
        "keras": to_outputs(classifier(images, training=False).numpy(), compute_p_values(embeddings, limits)),
        **{
            f"saved_model_{name}": to_outputs(outputs["probabilities"].numpy(), outputs["p_value"].numpy())
            for name, outputs in served.items()
        },
    }
    for kind, path in files.items():
        with Client(LiteRTTransport(path)) as client:
            results = [_check_read(result) for result in client.classify(images)]
        rows = [[result.probabilities[name] for name in spec["class_names"]] for result in results]
        predictions[f"litert_{kind}"] = to_outputs(rows, [result.p_value for result in results])
    return predictions


def to_outputs(probabilities: Any, p_values: Any) -> Outputs:
    """Return probabilities `[N, C]` and p-values `[N]`, of which some may be `None`, as arrays."""
    return Outputs(np.array(probabilities, np.float64), np.array(p_values, np.float64))


def compute_p_values(embeddings: NDArray[np.float32], limits: "Limits") -> NDArray[np.float64]:
    """Return the p-value `float64 [N]` of each embedding `float32 [N, E]`, see `limits`."""
    rows = embeddings.astype(np.float64)
    along, to_centres = (rows @ each.astype(np.float64) for each in (limits.directions, limits.centres))
    distances = (rows**2).sum(axis=1) - (along**2).sum(axis=1) + (limits.offsets - 2 * to_centres).min(axis=1)
    num_stranger = (limits.scores >= distances[:, np.newaxis]).sum(axis=1)
    return (1 + num_stranger) / (1 + len(limits.scores))


def compare(
    predictions: Predictions, *, reference: str, tolerances: Mapping[str, float], p_value_tolerance: float
) -> list[FormParity]:
    """Compare every form's predictions with those of one of them.

    Args:
        predictions: as `predict` returns them. A form with fewer photos is compared on those.
        reference: the form that the others are compared with.
        tolerances: how far a probability may be from the reference's, by form; others are only measured.
        p_value_tolerance: how far a p-value may be from the reference's, for the same forms.

    Returns:
        A row for each form but the reference.
    """
    rows: list[FormParity] = []
    for form, (found, p_values) in predictions.items():
        if form == reference:
            continue
        expected, expected_p_values = (each[: len(found)] for each in predictions[reference])
        difference = float(np.abs(found - expected).max())
        of_p_values = float(np.abs(p_values - expected_p_values).max())
        tolerance = tolerances.get(form)
        rows.append(
            {
                "form": form,
                "num_images": len(found),
                "max_difference": difference,
                "max_p_value_difference": None if np.isnan(of_p_values) else of_p_values,
                "agreement": float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
                "tolerance": tolerance,
                "p_value_tolerance": None if tolerance is None else p_value_tolerance,
                # A NaN is a failure.
                "passed": tolerance is None
                or (difference <= tolerance and of_p_values <= p_value_tolerance + _ROUNDING),
            }
        )
    return rows


def _check_read(result: Prediction | ImageError) -> Prediction:
    if isinstance(result, ImageError):
        raise result
    return result
