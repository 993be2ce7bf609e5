"""The `limits` step: find out what the trained classifier knows, and what it does not.

Reads examples, features and the trained classifier; writes `limits.npz`, which the exporters put into every file: how
strange each photo to validate on is beside those to train on, and the probability from which on a label is in a
prediction set. Features stand for photos where the backbone is as it was; where it has learned, it sees them again.
Beside it is `watch_reference.json`, with which the predictions for later photos are compared.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.artifacts.examples import read_index, shards
from components.artifacts.features import read_clean
from components.artifacts.summary import Summary
from components.artifacts.training import read_classifier, read_training
from components.artifacts.watch_reference import write_watch_reference
from components.data import transform
from components.monitoring.reference import summarize
from components.options import check_range
from components.progress import Progress
from components.training.conformal import find_min_probability, keep_scores
from components.training.novelty import Moments, check_finite

if TYPE_CHECKING:
    import keras

    from export.limits import Limits

log = logging.getLogger(__name__)

Part = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]
"""Embeddings `[N, E]`, probabilities `[N, C]` and labels `[N]` of some photos."""

_BATCH = 32


@dataclass(frozen=True)
class LimitsOptions:
    """What the limits are to hold for.

    Attributes:
        refused_share: the share of known photos that may be refused as none of the classes, 0–0.5; 0 refuses nothing.
        coverage: the share of photos whose prediction set holds the right label, 0.5–0.9999.
    """

    refused_share: float = 0.03
    coverage: float = 0.95

    def __post_init__(self) -> None:
        check_range(self, 0, 0.5, "refused_share")
        check_range(self, 0.5, 0.9999, "coverage")


def fit(
    *, examples_dir: Path, features_dir: Path, training_dir: Path, out_dir: Path, options: LimitsOptions
) -> Summary:
    """Fit the limits of a classifier: its distance on the train split, all else on the validation split.

    Raises:
        ComponentError: an embedding is not finite.
    """
    from export.limits import Limits, measure, write_limits

    training = read_training(training_dir)
    classifier = read_classifier(training_dir)

    def read(split: str) -> Iterator[Part]:
        is_frozen = training["is_frozen"]
        parts = _read_features(classifier, features_dir, split) if is_frozen else _run(classifier, examples_dir, split)
        for part in parts:
            check_finite(part[0], split)
            yield part

    moments = Moments(num_classes=len(training["class_names"]))
    for embeddings, _, labels in read("train"):
        moments.add(embeddings, labels)
    distance = moments.fit()
    known = zip(*read("validation"), strict=True)
    embeddings, probabilities, labels = (np.concatenate(parts) for parts in known)
    limits = Limits(
        *distance,
        scores=keep_scores(measure(embeddings, *distance).numpy()[:, 0]),
        num_examples=len(labels),
        refused_share=options.refused_share,
        coverage=options.coverage,
        min_probability=find_min_probability(probabilities, labels, coverage=options.coverage),
    )
    write_limits(out_dir, limits)
    brightness = [row["brightness"] for row in read_index(examples_dir) if row["split"] == "validation"]
    reference = summarize(
        probabilities,
        labels,
        np.array(brightness),
        class_names=training["class_names"],
        num_scores=len(limits.scores),
        num_refused=limits.num_refused,
    )
    write_watch_reference(out_dir, reference)
    _warn(limits)
    return {
        "num_examples": limits.num_examples,
        "refused_share": limits.refused_share,
        "min_probability": round(limits.min_probability, 4),
    }


def _read_features(classifier: "keras.Model", features_dir: Path, split: str) -> Iterator[Part]:
    head = classifier.get_layer("head")
    for features, embeddings, labels in read_clean(features_dir, split):
        yield embeddings, head(features, training=False).numpy(), labels


def _run(classifier: "keras.Model", examples_dir: Path, split: str) -> Iterator[Part]:
    from export.embedding import add_embedding

    network = add_embedding(classifier)
    photos = transform.read(shards(examples_dir, split), image_size_px=classifier.input_shape[1])
    for images, labels in Progress(photos.batch(_BATCH), desc=f"{split} photos", unit="batch"):
        embeddings, probabilities = network(images, training=False)
        yield embeddings.numpy(), probabilities.numpy(), labels.numpy()


def _warn(limits: "Limits") -> None:
    """Say which of the limits so few photos cannot give."""
    for share, name, consequence in (
        (limits.refused_share, "refused_share", "no photo is ever refused"),
        (1 - limits.coverage, "coverage", "every prediction set holds all labels"),
    ):
        if share and limits.num_examples < (least := math.ceil(1 / share - 1 - 1e-9)):
            log.warning(
                "limits: %d validation photos are too few for limits.%s, so %s; it takes %d",
                limits.num_examples,
                name,
                consequence,
                least,
            )
