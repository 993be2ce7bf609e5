"""A backbone with its weights: `model.json` and `backbone.weights.h5`."""

from pathlib import Path
from typing import TypedDict

from components.storage.files import read_json, write_json

WEIGHTS_FILE = "backbone.weights.h5"


class WeightsOrigin(TypedDict):
    """Where weights came from, and why that is a fallback (or null)."""

    source: str
    fallback: str | None


class Backbone(TypedDict):
    """`model.json`: a network without its top, the side of the images that it takes, its weights and its sizes."""

    backbone: str
    image_size_px: int
    weights: WeightsOrigin
    num_features: int
    num_parameters: int


def read_backbone(model_dir: Path) -> Backbone:
    """Read `model.json`."""
    return read_json(model_dir / "model.json")


def write_backbone(out_dir: Path, backbone: Backbone) -> None:
    """Write `model.json`; the weights are saved to `WEIGHTS_FILE`."""
    write_json(out_dir / "model.json", backbone)
