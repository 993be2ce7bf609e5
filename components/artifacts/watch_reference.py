"""`watch_reference.json`: what a model's predictions look like on photos that it did not learn from.

The limits step writes it; the SavedModel carries it in `assets.extra/`, so that traffic is watched without any photo.
"""

import json
from pathlib import Path
from typing import TypedDict

from components.storage.files import read_json, write_json

_NAME = "watch_reference.json"
WATCH_REFERENCE = Path("assets.extra") / _NAME


class MeanAndStd(TypedDict):
    """A mean and a standard deviation over the photos."""

    mean: float
    std: float


class WatchReference(TypedDict):
    """Of the predictions for the validation photos.

    Attributes:
        class_names: in the order of the outputs.
        num_examples: validation photos.
        num_scores: of them, those that p-values are ranks among.
        num_refused: photos as strange as so few of these are refused; 0 refuses none.
        predicted: how many photos each class was predicted for.
        confidence: the highest probability, 0–1.
        gap: whether the prediction is right, 0 or 1, minus the confidence.
        brightness: the mean of the grey values of a photo, 0–1.
    """

    class_names: list[str]
    num_examples: int
    num_scores: int
    num_refused: int
    predicted: list[int]
    confidence: MeanAndStd
    gap: MeanAndStd
    brightness: MeanAndStd


def write_watch_reference(out_dir: Path, reference: WatchReference) -> None:
    """Write `watch_reference.json` into a folder."""
    write_json(out_dir / _NAME, reference)


def attach_watch_reference(model_dir: Path, limits_dir: Path) -> None:
    """Write the reference of the limits step into a SavedModel."""
    write_json(model_dir / WATCH_REFERENCE, read_json(limits_dir / _NAME))


def parse_watch_reference(content: bytes) -> WatchReference:
    """Return the reference that a file's content is."""
    return json.loads(content)
