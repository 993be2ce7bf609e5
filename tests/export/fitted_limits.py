"""Limits of a small classifier, fitted on a few images."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from components.training.novelty import Moments
from export.embedding import add_embedding
from export.limits import Limits, measure


def fit(classifier: keras.Model, images: NDArray[np.uint8], **changes: Any) -> Limits:
    """Return limits as if the classifier had learned from the first half of some images; the others are the known ones.

    Args:
        classifier: `uint8 [N, size, size, 3]` to `float32 [N, C]`.
        images: `uint8 [N, size, size, 3]`, of the classes in turn.
        changes: of the limits.
    """
    embeddings = add_embedding(classifier)(images, training=False)[0].numpy()
    learned, known = np.array_split(embeddings, [len(images) // 2])
    num_classes = classifier.output_shape[1]
    moments = Moments(num_classes=num_classes)
    moments.add(learned, np.arange(len(learned)) % num_classes)
    distance = moments.fit()
    given = {
        "scores": np.sort(measure(known, *distance).numpy()[:, 0]),
        "num_examples": len(known),
        "refused_share": 0.25,
        "coverage": 0.9,
        "min_probability": 0.2,
    }
    return Limits(*distance, **{**given, **changes})
