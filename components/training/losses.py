"""Losses: of classes that count differently, and of heads that learn side by side; and the accuracy of such heads."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="components")
class WeightedCrossentropy(keras.losses.CategoricalCrossentropy):
    """Cross-entropy of each example times the weight of its class.

    Args:
        class_weights: of each class, in the order of the outputs.
        label_smoothing: share of the target spread over all classes.

    Example:
        >>> loss = WeightedCrossentropy([1.0, 3.0])
        >>> targets, outputs = [[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]
        >>> loss.call(keras.ops.array(targets), keras.ops.array(outputs)).numpy().round(2).tolist()
        [0.69, 2.08]
    """

    def __init__(self, class_weights: Sequence[float], *, label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing=label_smoothing)
        self.class_weights, self.label_smoothing = list(class_weights), label_smoothing

    def get_config(self) -> dict[str, Any]:
        return {"class_weights": self.class_weights, "label_smoothing": self.label_smoothing}

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        losses = super().call(y_true, y_pred)
        weights = keras.ops.cast(y_true, losses.dtype) * keras.ops.array(self.class_weights, losses.dtype)
        return losses * keras.ops.sum(weights, axis=-1)


@keras.saving.register_keras_serializable(package="components")
class LossOfHeads(keras.losses.Loss):
    """The mean over heads of a loss, for outputs `[N, M, C]` of M heads; of outputs `[N, C]` the loss itself."""

    def __init__(self, loss: keras.losses.Loss) -> None:
        super().__init__()
        self.loss = loss

    def get_config(self) -> dict[str, Any]:
        return {"loss": keras.saving.serialize_keras_object(self.loss)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LossOfHeads":
        return cls(keras.saving.deserialize_keras_object(config["loss"]))

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        return _mean_over_heads(self.loss.call, y_true, y_pred)


@keras.saving.register_keras_serializable(package="components")
def accuracy(y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
    """Return whether outputs `[N, C]` are right, 0 or 1; of outputs `[N, M, C]` which share of the M heads is."""
    return _mean_over_heads(keras.metrics.categorical_accuracy, y_true, y_pred)


def _mean_over_heads(
    measure: Callable[..., keras.KerasTensor], targets: keras.KerasTensor, outputs: keras.KerasTensor
) -> keras.KerasTensor:
    if len(outputs.shape) == 2:
        return measure(targets, outputs)
    targets = keras.ops.broadcast_to(keras.ops.expand_dims(targets, 1), keras.ops.shape(outputs))
    return keras.ops.mean(measure(targets, outputs), axis=1)


def balance(per_class: Mapping[str, int]) -> list[float]:
    """Return weights with which every class counts as much: examples / (classes · examples of the class).

    As scikit-learn's `class_weight="balanced"`, after G. King and L. Zeng, "Logistic Regression in Rare Events Data",
    2001.

    >>> balance({"rose": 30, "tulip": 10})
    [0.6666666666666666, 2.0]
    """
    total = sum(per_class.values())
    return [total / (len(per_class) * count) for count in per_class.values()]
