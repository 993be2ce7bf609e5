"""The loss of a training whose classes count differently."""

from collections.abc import Mapping, Sequence
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


def balance(per_class: Mapping[str, int]) -> list[float]:
    """Return weights with which every class counts as much: examples / (classes · examples of the class).

    As scikit-learn's `class_weight="balanced"`, after G. King and L. Zeng, "Logistic Regression in Rare Events Data",
    2001.

    >>> balance({"rose": 30, "tulip": 10})
    [0.6666666666666666, 2.0]
    """
    total = sum(per_class.values())
    return [total / (len(per_class) * count) for count in per_class.values()]
