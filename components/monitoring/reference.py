"""What traffic is compared with: a summary of the predictions for photos that the model did not learn from.

These are the validation photos. They had a part in the model, though a small one: the best of a few heads and epochs
was chosen on them, and the temperature, one number, was fitted to them. So confidence and accuracy are slightly
better here than on new photos. The distance that p-values rank knows nothing of them. The test photos would be free of
that, and have to judge the model after it is exported.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.artifacts.watch_reference import MeanAndStd, WatchReference


def summarize(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.int64],
    brightness: NDArray[np.floating],
    *,
    class_names: Sequence[str],
    num_scores: int,
    num_refused: int,
) -> WatchReference:
    """Return the reference of predictions `[N, C]` for photos with labels `[N]`, whose mean grey values are `[N]`, 0–1.

    >>> predictions, labels, brightness = np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([0, 0]), np.array([0.4, 0.5])
    >>> reference = summarize(predictions, labels, brightness, class_names=["a", "b"], num_scores=2, num_refused=0)
    >>> reference["predicted"], round(reference["confidence"]["mean"], 3), round(reference["gap"]["mean"], 3)
    ([1, 1], 0.8, -0.3)
    """
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1).astype(float)
    return {
        "class_names": list(class_names),
        "num_examples": len(labels),
        "num_scores": num_scores,
        "num_refused": num_refused,
        "predicted": np.bincount(predicted, minlength=len(class_names)).tolist(),
        "confidence": _describe(confidence),
        "gap": _describe((predicted == labels) - confidence),
        "brightness": _describe(brightness.astype(float)),
    }


def _describe(values: NDArray[np.float64]) -> MeanAndStd:
    return {"mean": float(values.mean()), "std": float(values.std())}
