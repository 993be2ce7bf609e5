"""The accuracy of predictions without labels: how confident they are, corrected by what validation says of that.

Difference of confidences (D. Guillory et al., "Predicting with Confidence on Unseen Distributions", 2021): predictions
are taken to be right as often as their confidence says, plus the gap between both on the validation photos. That holds
for photos like these, and nothing in the predictions shows whether it holds for others: photos may be as ordinary and
still be classified worse. So there is an estimate only where nothing else moved, and where its interval is narrow.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from components.artifacts.watch_reference import WatchReference
from components.monitoring import sequential

_ERROR = 0.05
"""That the interval misses: one half for the photos, at all times at once, one half for the validation photos."""


@dataclass(frozen=True)
class AccuracyEstimate:
    """The expected accuracy, or why it cannot be told.

    Attributes:
        accuracy: 0–1; `None` where it cannot be told.
        interval: 95 %, for photos that are right as often as validation's at the same confidence; `None` likewise.
        reason: why it cannot be told; empty where it can.
    """

    accuracy: float | None
    interval: tuple[float, float] | None
    reason: str


def estimate(
    confidence: NDArray[np.float64], reference: WatchReference, *, margin: float, doubt: str | None = None
) -> AccuracyEstimate:
    """Estimate the accuracy of predictions of some confidence.

    Args:
        confidence: `[N]`, the highest probability of each, 0–1.
        reference: of the model.
        margin: half the width of the widest interval that is worth telling.
        doubt: why the photos are not known to be like the validation photos; `None` where nothing was found.

    >>> reference = {"num_examples": 40_000, "gap": {"mean": -0.02, "std": 0.3}}
    >>> found = estimate(np.full(5000, 0.9), reference, margin=0.03)
    >>> round(found.accuracy, 2), [round(bound, 2) for bound in found.interval]
    (0.88, [0.88, 0.88])
    >>> estimate(np.full(50, 0.9), {**reference, "num_examples": 100}, margin=0.03).reason
    'the interval is ± 14.0 points, ± 7.4 of them for want of validation photos'
    """
    if doubt is not None:
        return AccuracyEstimate(None, None, doubt)
    gap = reference["gap"]
    low, high = sequential.interval(confidence, _ERROR / 2)
    # As if two more photos had been mistaken for sure: where all are right, that need not stay so.
    variance = gap["std"] ** 2 + 2 / reference["num_examples"]
    open_ = NormalDist().inv_cdf(1 - _ERROR / 4) * math.sqrt(variance / reference["num_examples"])
    half = (high - low) / 2 + open_
    if half > margin:
        reason = f"the interval is ± {100 * half:.1f} points, ± {100 * open_:.1f} of them for want of validation photos"
        return AccuracyEstimate(None, None, reason)
    bounds = [min(1.0, max(0.0, bound + gap["mean"])) for bound in (low - open_, high + open_)]
    accuracy = min(1.0, max(0.0, float(confidence.mean()) + gap["mean"]))
    return AccuracyEstimate(accuracy, (bounds[0], bounds[1]), "")
