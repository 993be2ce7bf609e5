"""What a classifier knows of its limits, inside the files that are shipped.

Three outputs are made of what the network computes anyway: `p_value`, how strange an image is beside the photos that
the classifier knows; `is_known`, whether it is not too strange; `prediction_set`, the labels that together hold the
truth with a stated probability. `components.limits` fits them.

Strangeness is a distance of an image's embedding (`export.embedding`): Mahalanobis' to the nearest class mean (K. Lee
et al., 2018), with the covariance within classes cut to its leading directions and one variance for all others (M.
Tipping and C. Bishop, 1999), in units of which it is given.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from export.spec import LimitsSpec

SCORE = "Mahalanobis distance to the nearest class mean, of the pooled maps of the last two resolutions"
OUTPUTS = ("p_value", "is_known", "prediction_set")

_FILE = "limits.npz"
_NUM_QUANTILES = 21


@dataclass(frozen=True)
class Limits:
    """The limits of a classifier of C classes, whose embeddings are E wide.

    Attributes:
        directions: `float16 [E, K]`, see `measure`.
        centres: `float16 [E, C]`, likewise.
        offsets: `float32 [C]`, likewise.
        scores: `float32 [M]`, ascending: distances of validation photos.
        num_examples: how many photos these stand for.
        refused_share: the share of known photos that is refused as none of the classes.
        coverage: the share of photos whose right label is in their prediction set.
        min_probability: from which on a label is in the set; the most probable one always is.
    """

    directions: NDArray[np.float16]
    centres: NDArray[np.float16]
    offsets: NDArray[np.float32]
    scores: NDArray[np.float32]
    num_examples: int
    refused_share: float
    coverage: float
    min_probability: float

    @property
    def num_refused(self) -> int:
        """How few of the `scores` are at least an image's where it is refused: fewer than this; 0 refuses nothing."""
        return int(self.refused_share * (len(self.scores) + 1) + 1e-9)

    def describe(self) -> LimitsSpec:
        """Return what `model_spec.json` has of them."""
        quantiles = np.quantile(self.scores, np.linspace(0, 1, _NUM_QUANTILES))
        return {
            "score": SCORE,
            "num_examples": self.num_examples,
            "refused_share": self.refused_share,
            "score_threshold": float(self.scores[-self.num_refused]) if self.num_refused else None,
            "score_quantiles": [float(f"{quantile:.5g}") for quantile in quantiles],
            "coverage": self.coverage,
            "min_probability": self.min_probability,
        }


def read_limits(folder: Path) -> Limits:
    """Read `limits.npz`: an array for each attribute."""
    with np.load(folder / _FILE) as file:
        arrays = {each.name: file[each.name] for each in fields(Limits)}
    return Limits(**{name: array if array.ndim else array.item() for name, array in arrays.items()})


def write_limits(folder: Path, limits: Limits) -> None:
    """Write `limits.npz`."""
    np.savez(folder / _FILE, **asdict(limits))


def measure(embeddings: Any, directions: Any, centres: Any, offsets: Any) -> tf.Tensor:
    """Return each embedding's distance `float32 [N, 1]`, |z|² - |z @ directions|² + min(offsets - 2 z @ centres).

    Args:
        embeddings: `float32 [N, E]`, each a z.
        directions: `float16 [E, K]`: in which photos of one class differ, and as long, 0–1, as that is to be ignored.
        centres: `float16 [E, C]`: the class means without what lies along these directions.
        offsets: `float32 [C]`: |mean|² - |mean @ directions|² of each class.
    """
    along = tf.matmul(embeddings, tf.cast(directions, tf.float32))
    to_classes = offsets - 2.0 * tf.matmul(embeddings, tf.cast(centres, tf.float32))
    return (
        tf.reduce_sum(embeddings**2, 1, keepdims=True)
        - tf.reduce_sum(along**2, 1, keepdims=True)
        + tf.reduce_min(to_classes, 1, keepdims=True)
    )


class LimitsModule(tf.Module):
    """The limits as a part of a graph."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(name="limits")
        arrays = limits.directions, limits.centres, limits.offsets
        self.arrays = [tf.Variable(array, trainable=False) for array in arrays]
        self.scores = tf.Variable(limits.scores, trainable=False)
        num_ranks = len(limits.scores) + 1
        self.p_values = tf.Variable(np.arange(1, num_ranks + 1, dtype=np.float32) / num_ranks, trainable=False)
        self._limits = limits

    def __call__(self, embeddings: tf.Tensor, probabilities: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """Return the outputs for embeddings `[N, E]` and probabilities `[N, C]`.

        - `p_value`, `float32 [N]`: the share of known photos that are at least as strange, the image itself among them
          (V. Vovk et al., "Algorithmic Learning in a Random World", 2005, 2.2);
        - `is_known`, `bool [N]`: whether it is above the share that is refused;
        - `prediction_set`, `bool [N, C]` (M. Sadinle et al., "Least Ambiguous Set-Valued Classifiers", 2019).
        """
        distances = measure(embeddings, *self.arrays)
        # Beside a NaN none is as strange: it is refused. Counted in integers and looked up, for the reason that
        # `litert_limits` gives.
        num_stranger = tf.reduce_sum(tf.cast(self.scores >= distances, tf.int32), 1)
        highest = tf.reduce_max(probabilities, 1, keepdims=True)
        return {
            "p_value": tf.gather(self.p_values, num_stranger),
            "is_known": num_stranger >= self._limits.num_refused,
            "prediction_set": probabilities >= tf.minimum(highest, self._limits.min_probability),
        }
