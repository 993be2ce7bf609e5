"""The `learning_curve` step: is it worth labelling more?

Reads features; writes `learning_curve.json` (`components.artifacts.learning_curve`), the accuracy on the validation
photos with a quarter, half and all of the training labels.
"""

from collections.abc import Iterator
from pathlib import Path

from components.artifacts.examples import read_examples
from components.artifacts.features import read_clean
from components.artifacts.learning_curve import write_learning_curve
from components.artifacts.summary import Summary
from components.training.learning_curve import SHARES, Part, extrapolate, measure
from components.training.novelty import check_finite


def draw(*, examples_dir: Path, features_dir: Path, out_dir: Path) -> Summary:
    """Measure the accuracies, and what twice the labels would gain.

    Raises:
        ComponentError: a feature is not finite.
    """
    examples = read_examples(examples_dir)
    num_train = examples["splits"]["train"]["num_examples"]
    rights = measure(
        _read(features_dir, "train"), _read(features_dir, "validation"), num_classes=len(examples["class_names"])
    )
    gain = extrapolate(rights)
    write_learning_curve(
        out_dir,
        {
            "points": [
                {
                    "share": share,
                    "num_examples": round(share * num_train),
                    "accuracies": [round(float(accuracy), 6) for accuracy in right.mean(axis=1)],
                }
                for share, right in zip(SHARES, rights, strict=True)
            ],
            "num_validation": rights[0].shape[1],
            "next_gain": gain,
        },
    )
    return {"accuracy": round(float(rights[-1].mean()), 4), "next_gain": gain["expected"], "next_gain_low": gain["low"]}


def _read(features_dir: Path, split: str) -> Iterator[Part]:
    for features, _, labels in read_clean(features_dir, split):
        check_finite(features, split)
        yield features, labels
