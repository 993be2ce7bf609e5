"""How unlike the training photos an image is: the parts of the distance that `export.limits.measure` computes."""

import numpy as np
from numpy.typing import NDArray

from components.errors import ComponentError

MAX_DIRECTIONS = 128
"""Of 64, 128 and 256 the middle one: it is as good as the last, and half as large (flower_photos, two backbones)."""

_RIDGE = 0.1  # of the mean variance: the covariance of few photos is not known in all directions


class Moments:
    """The means of the classes and the covariance within them, of embeddings that come part by part.

    Args:
        num_classes: of the labels.

    >>> moments = Moments(num_classes=2)
    >>> moments.add(np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32), np.array([0, 0, 1]))
    >>> directions, centres, offsets = moments.fit()
    >>> directions.shape, centres.shape, offsets.shape  # three photos of two classes differ in one direction
    ((2, 1), (2, 2), (2,))
    """

    def __init__(self, *, num_classes: int) -> None:
        self._counts = np.zeros(num_classes)
        self._sums = np.zeros((num_classes, 1))
        self._products = np.zeros((1, 1))

    def add(self, embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        """Take in embeddings `[N, E]` with their labels `[N]`."""
        rows = embeddings.astype(np.float64)
        members = np.eye(len(self._counts))[labels]
        self._counts += members.sum(axis=0)
        self._sums = self._sums + members.T @ rows
        self._products = self._products + rows.T @ rows

    def __add__(self, other: "Moments") -> "Moments":
        """Return the moments of the photos of both."""
        both = Moments(num_classes=len(self._counts))
        both._counts = self._counts + other._counts
        both._sums = self._sums + other._sums
        both._products = self._products + other._products
        return both

    def describe(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return counts `[C]`, means `[C, E]` (0 of a class without photos) and the covariance `[E, E]` within."""
        means = self._sums / np.maximum(self._counts, 1)[:, np.newaxis]
        covariance = (self._products - means.T @ (self._counts[:, np.newaxis] * means)) / max(self._counts.sum(), 1)
        return self._counts, means, covariance

    def fit(self) -> tuple[NDArray[np.float16], NDArray[np.float16], NDArray[np.float32]]:
        """Return the directions `[E, K]`, the centres `[E, C]` and the offsets `[C]`, of classes that have photos.

        Along a direction a distance counts as much less as the variance within classes is above that of the others.
        """
        counts, means, covariance = self.describe()
        counts, means = counts[counts > 0], means[counts > 0]
        variances, vectors = np.linalg.eigh(covariance)
        variances, vectors = variances[::-1].clip(0), vectors[:, ::-1]
        # So many directions there are at most: each class has taken one of its photos' for its mean.
        rank = max(1, int(min(MAX_DIRECTIONS, len(variances) - 1, counts.sum() - len(counts))))
        ridge = _RIDGE * variances.mean()
        others = max(variances[rank:].mean() + ridge, np.finfo(np.float64).tiny)
        ignored = 1 - others / np.maximum(variances[:rank] + ridge, others)
        # What is left of the means has to fit the directions as they are stored.
        directions = (vectors[:, :rank] * np.sqrt(ignored)).astype(np.float16)
        along = means @ directions.astype(np.float64)
        centres = means - along @ directions.T.astype(np.float64)
        offsets = (means**2).sum(axis=1) - (along**2).sum(axis=1)
        return directions, centres.T.astype(np.float16), offsets.astype(np.float32)


def check_finite(embeddings: NDArray[np.float32], split: str) -> None:
    """Raise a `ComponentError` where an embedding of `[N, E]` is not finite."""
    num_wrong = int((~np.isfinite(embeddings).all(axis=1)).sum())
    if num_wrong:
        raise ComponentError(
            f"Photos must have finite embeddings. Received: {num_wrong} of {len(embeddings)} photos in a part of the "
            f"{split} split without. Look at features.precision, and at trainer.fine_tune_learning_rate."
        )
