"""What a model knows of its limits, measured on photos of its classes and of other things."""

import logging

import numpy as np
from numpy.typing import NDArray

from components.artifacts.evaluation import Elsewhere, Foreign, KnownLimits, LimitsMetrics
from components.evaluation.photo_folders import Photos
from components.evaluation.served_model import LimitsOutputs, Outputs
from components.reporting import metrics
from export.spec import ModelSpec

log = logging.getLogger(__name__)


def measure_limits(
    outputs: Outputs,
    labels: NDArray[np.int64],
    spec: ModelSpec,
    foreign: tuple[Photos, Outputs] | None,
) -> LimitsMetrics | None:
    """Measure the limits on the test photos and on foreign ones, if any; `None` for a model that has none."""
    limits = outputs.limits
    if limits is None:
        return None
    fitted = spec.get("limits")  # the spec of a model from elsewhere has none
    right = outputs.probabilities.argmax(axis=1) == labels
    return {
        **_summarize(limits, labels),
        "expected_refused_share": fitted["refused_share"] if fitted else None,
        "expected_coverage": fitted["coverage"] if fitted else None,
        "set_sizes": np.bincount(limits.sets.sum(axis=1), minlength=limits.sets.shape[1] + 1).tolist(),
        "accepted": metrics.accuracy(right[limits.is_known]) if limits.is_known.any() else None,
        "risk_coverage": metrics.risk_coverage(outputs.probabilities.max(axis=1), right),
        "p_values": metrics.p_value_histogram(limits.p_values),
        "foreign": _measure_foreign(limits, *foreign) if foreign else None,
    }


def measure_elsewhere(photos: Photos, outputs: Outputs) -> Elsewhere:
    """Judge a model on photos of its classes from another collection."""
    return {
        "folder": photos.folder,
        "num_unreadable": photos.num_unreadable,
        **metrics.judge(outputs.probabilities, photos.labels),
        "limits": _summarize(outputs.limits, photos.labels) if outputs.limits else None,
    }


def _summarize(limits: LimitsOutputs, labels: NDArray[np.int64]) -> KnownLimits:
    return {
        "refused": metrics.share(~limits.is_known),
        "covered": metrics.share(limits.sets[np.arange(len(labels)), labels]),
        "mean_set_size": float(limits.sets.sum(axis=1).mean()),
    }


def _measure_foreign(known: LimitsOutputs, photos: Photos, outputs: Outputs) -> Foreign | None:
    if outputs.limits is None:
        return None
    return {
        "folder": photos.folder,
        "num_unreadable": photos.num_unreadable,
        "refused": metrics.share(~outputs.limits.is_known),
        "auroc": metrics.auroc(known.p_values, outputs.limits.p_values),
        "p_values": metrics.p_value_histogram(outputs.limits.p_values),
    }
