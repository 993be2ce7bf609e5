"""A SavedModel that is called as it will be served, through its signatures, and what it returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.errors import EvaluationError
from components.progress import Progress

if TYPE_CHECKING:
    import tensorflow as tf

_LIMITS = {"p_value": "p_values", "is_known": "is_known", "prediction_set": "sets"}
"""Outputs of a model that knows its limits, and the attributes that hold them."""


@dataclass(frozen=True)
class LimitsOutputs:
    """What a model says of its limits for N photos of C classes.

    Attributes:
        p_values: `float32 [N]`, 0–1; small is strange.
        is_known: `bool [N]`; what is not known is refused.
        sets: `bool [N, C]`, the labels of each prediction set.
    """

    p_values: NDArray[np.float32]
    is_known: NDArray[np.bool_]
    sets: NDArray[np.bool_]


@dataclass(frozen=True)
class Outputs:
    """Probabilities `float32 [N, C]`, and the limits; `None` for a model that has none."""

    probabilities: NDArray[np.float32]
    limits: LimitsOutputs | None

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays by name."""
        return {"probabilities": self.probabilities, **(vars(self.limits) if self.limits else {})}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Outputs":
        """Make them of their arrays."""
        limits = {name: array for name, array in arrays.items() if name != "probabilities"}
        return cls(arrays["probabilities"], LimitsOutputs(**limits) if limits else None)


class ServedModel:
    """A SavedModel, loaded.

    Raises:
        EvaluationError: it cannot be loaded; calls raise it where the model does not do as it should.
    """

    def __init__(self, model_dir: Path, *, batch_size: int) -> None:
        import tensorflow as tf

        self._model_dir, self._batch_size = model_dir, batch_size
        self._failures = (OSError, KeyError, TypeError, tf.errors.OpError)
        try:
            self._signatures = tf.saved_model.load(str(model_dir)).signatures
        except self._failures as exc:
            raise self._error("serving_default", exc) from exc

    def classify(self, photos: "tf.data.Dataset", *, desc: str = "evaluating") -> Outputs:
        """Send encoded photos, a dataset of `string []`, through `serving_default`, with a progress bar."""
        batches = Progress(photos.batch(self._batch_size), desc=desc, unit="batch")
        return join([self._call("serving_default", image_bytes=batch) for batch in batches])

    def classify_images(self, images: NDArray[np.uint8]) -> Outputs:
        """Send one batch of pixels, `uint8 [N, size, size, 3]`, through `images`."""
        import tensorflow as tf

        return self._call("images", images=tf.constant(images))

    def _call(self, signature: str, **inputs: Any) -> Outputs:
        try:
            call: Callable[..., Mapping[str, Any]] = self._signatures[signature]
            outputs = {name: value.numpy() for name, value in call(**inputs).items()}
            probabilities = outputs["probabilities"]
        except self._failures as exc:
            raise self._error(signature, exc) from exc
        found = [name for name in _LIMITS if name in outputs]
        if not found:
            return Outputs(probabilities, None)
        if len(found) < len(_LIMITS):
            raise EvaluationError(
                f"A model that knows its limits returns {', '.join(_LIMITS)}, all of them. "
                f"Received: {', '.join(found)} alone, from {self._model_dir}."
            )
        limits = LimitsOutputs(**{attribute: outputs[name] for name, attribute in _LIMITS.items()})
        return Outputs(probabilities, limits)

    def _error(self, signature: str, exc: Exception) -> EvaluationError:
        taken = "encoded photos" if signature == "serving_default" else "pixels"
        return EvaluationError(
            f"The SavedModel must load and take {taken} on {signature}: {self._model_dir} does not ({exc})."
        )


def join(batches: Sequence[Outputs]) -> Outputs:
    """Return the outputs of batches of one model as one."""
    limits = [batch.limits for batch in batches if batch.limits]
    return Outputs(
        np.concatenate([batch.probabilities for batch in batches]),
        LimitsOutputs(
            np.concatenate([each.p_values for each in limits]),
            np.concatenate([each.is_known for each in limits]),
            np.concatenate([each.sets for each in limits]),
        )
        if limits
        else None,
    )


def read_encoded(shards: Sequence[Path]) -> "tf.data.Dataset":
    """Read the encoded photos of shards of examples, `string []`, in their stored order."""
    import tensorflow as tf

    from components.artifacts.examples import ENCODED

    features = {ENCODED: tf.io.FixedLenFeature([], tf.string)}
    records = tf.data.TFRecordDataset([str(shard) for shard in shards])
    return records.map(lambda record: tf.io.parse_single_example(record, features)[ENCODED])
