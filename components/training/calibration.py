"""Temperature scaling: one number, fitted on validation photos, with which probabilities come true.

C. Guo et al., "On Calibration of Modern Neural Networks", 2017, section 4.2. It changes no label, and goes into the
weights of the last layer (`networks.set_temperature`): every file made of the classifier has it at no cost.
"""

import numpy as np
from numpy.typing import NDArray

_LEAST, _MOST = 0.05, 20.0
_STEPS = 60  # of bisection: far below float32's precision


def fit_temperature(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the temperature, 0.05–20, by which logits are divided for the least cross-entropy.

    Where every prediction is right the least cross-entropy is at 0, which no photo of the future will bear out. So the
    targets are those of J. Platt (1999): with N examples of C classes, (N + 1) / (N + C) for the right one, the rest
    spread over the others.

    Args:
        probabilities: `float32 [N, C]`, of photos that the network has not learned from.
        labels: `int64 [N]`.

    >>> modest = np.array([[0.6, 0.4]] * 100, np.float32)  # and right in 90 of 100
    >>> temperature = fit_temperature(modest, np.array([0] * 90 + [1] * 10))
    >>> round(float(temper(modest, temperature)[0, 0]), 2)
    0.89
    """
    return fit_temperature_of_logits(_to_logits(probabilities), labels)


def fit_temperature_of_logits(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Do the same for logits `float64 [N, C]`, however far apart they are."""
    num_examples, num_classes = logits.shape
    targets = np.full(logits.shape, 1 / (num_examples + num_classes))
    targets[np.arange(num_examples), labels] += num_examples / (num_examples + num_classes)
    # The cross-entropy is convex in 1 / temperature: its slope rises, and is 0 where it is least.
    low, high = 1 / _MOST, 1 / _LEAST
    for _ in range(_STEPS):
        middle = np.sqrt(low * high)
        slope = ((softmax(middle * logits) - targets) * logits).sum()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(1 / low)


def temper(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Return the probabilities `[N, C]` of logits that are divided by a temperature; 1 / temperature undoes it."""
    return softmax(_to_logits(probabilities) / temperature)


def _to_logits(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    # But for a constant, of which a softmax knows nothing.
    return np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny))


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probabilities `[N, C]` of logits."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
