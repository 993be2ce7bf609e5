"""The `suspects` step: find labels that are probably wrong, and photos that look like no others.

Reads examples and features; writes `suspects.jsonl` and `outliers.jsonl` (`components.artifacts.suspects`), of the
train split alone. Labels are where most models have the most to gain, and nobody looks through thousands of photos.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.artifacts.examples import read_examples, read_index
from components.artifacts.features import read_clean
from components.artifacts.summary import Summary
from components.artifacts.suspects import Outlier, Suspect, write_suspects
from components.options import check_range
from components.training.label_errors import MIN_PHOTOS, Part, cross_validate, weigh_labels
from components.training.novelty import check_finite

log = logging.getLogger(__name__)

_OUTLIER_SHARE = 0.01
_TRAIN = "train"


@dataclass(frozen=True)
class SuspectsOptions:
    """Which labels are suspect.

    Attributes:
        max_probability: a label is suspect that is right with a lower probability, 0–1; 0 suspects none.
    """

    max_probability: float = 0.55

    def __post_init__(self) -> None:
        check_range(self, 0, 1, "max_probability")


def find(*, examples_dir: Path, features_dir: Path, out_dir: Path, options: SuspectsOptions) -> Summary:
    """Find the suspect labels of the train split, and the photos that are unlike all others.

    Raises:
        ComponentError: an embedding is not finite.
    """
    examples = read_examples(examples_dir)
    names = examples["class_names"]
    rows = [row for row in read_index(examples_dir) if row["split"] == _TRAIN]
    labels = np.array([row["label"] for row in rows])
    probabilities, distances = cross_validate(lambda: _read(features_dir), num_classes=len(names))
    probabilities = weigh_labels(probabilities, labels)

    given = np.arange(len(labels)), labels
    own, others = probabilities[given], probabilities.copy()
    others[given] = -1
    suggested = others.argmax(axis=1)
    are_few = np.bincount(labels, minlength=len(names)) < MIN_PHOTOS
    are_suspect = own < options.max_probability
    are_doubted = (are_suspect | (own < others.max(axis=1))) & ~are_few[labels]
    suspects = [
        Suspect(
            photo=rows[index]["filename"],
            label=names[labels[index]],
            suggested_label=names[suggested[index]],
            score=round(float(1 - own[index]), 6),
            is_suspect=bool(are_suspect[index]),
        )
        for index in np.argsort(own, kind="stable").tolist()
        if are_doubted[index]
    ]
    strangest = np.argsort(-distances, kind="stable").tolist()[: int(_OUTLIER_SHARE * len(rows))]
    outliers = [
        Outlier(photo=rows[index]["filename"], label=names[labels[index]], p_value=round((rank + 1) / len(rows), 6))
        for rank, index in enumerate(strangest)
    ]
    write_suspects(out_dir, suspects, outliers)
    if few := [name for name, is_few in zip(names, are_few, strict=True) if is_few]:
        log.warning(
            "suspects: labels are judged of classes with %d training photos and more; not so: %s",
            MIN_PHOTOS,
            ", ".join(few),
        )
    num_suspects = sum(suspect["is_suspect"] for suspect in suspects)
    return {"num_photos": len(rows), "num_suspects": num_suspects, "num_outliers": len(outliers)}


def _read(features_dir: Path) -> Iterator[Part]:
    for _, embeddings, labels in read_clean(features_dir, _TRAIN):
        check_finite(embeddings, _TRAIN)
        yield embeddings, labels
