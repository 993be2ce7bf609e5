"""`model_spec.json`: what a client has to know of a model, inside the SavedModel and beside the LiteRT files.

Readable without TensorFlow.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

NAME = "model_spec.json"
SPEC = Path("assets.extra") / NAME


class Weights(TypedDict):
    """The backbone's weights: their source, and the reason where that is a fallback."""

    source: str
    fallback: str | None


class Data(TypedDict):
    """The training photos: their source as named, what it resolved to, and the reason where that is a fallback."""

    source: str
    resolved: str
    fallback: str | None


class LimitsSpec(TypedDict):
    """What a model knows of its limits, see `export.limits`; fitted on validation photos.

    Attributes:
        score: what the strangeness of an image is measured by.
        num_examples: validation photos.
        refused_share: the share of known photos that is refused as none of the classes.
        score_threshold: above which an image is refused; null where the photos are too few to refuse any.
        score_quantiles: of the photos' scores, in equal steps from the least to the greatest.
        coverage: the share of photos whose right label is in their prediction set.
        min_probability: from which on a label is in the set; the most probable one always is.
    """

    score: str
    num_examples: int
    refused_share: float
    score_threshold: float | None
    score_quantiles: list[float]
    coverage: float
    min_probability: float


class ModelSpec(TypedDict):
    """What `model_spec.json` holds.

    Attributes:
        model_name: under which the model is served.
        backbone: the network below the head.
        weights: the backbone's.
        data: the photos that it was trained on.
        preprocessing: in words, from a photo to the model's input.
        tensorflow: the version that wrote the model.
        class_names: the labels, in the order of the outputs.
        image_size_px: the side of the square images that the model takes.
        temperature: by which the logits were divided to calibrate the probabilities, in the weights already.
        limits: what the model knows of them, in its outputs already.
    """

    model_name: str
    backbone: str
    weights: Weights
    data: Data
    preprocessing: str
    tensorflow: str
    class_names: list[str]
    image_size_px: int
    temperature: float
    limits: LimitsSpec


class LiteRTFile(TypedDict):
    """A LiteRT file as `model_spec.json` beside it describes it."""

    name: str
    size_bytes: int
    sha256: str


def dump(spec: Mapping[str, object]) -> str:
    """Return a spec as the text of `model_spec.json`."""
    return json.dumps(spec, indent=2, ensure_ascii=False) + "\n"


def read_spec(model_dir: Path) -> ModelSpec:
    """Read the `model_spec.json` inside a SavedModel."""
    return json.loads((model_dir / SPEC).read_text(encoding="utf-8"))


def write_spec(model_dir: Path, spec: ModelSpec) -> None:
    """Write the `model_spec.json` inside a SavedModel."""
    path = model_dir / SPEC
    path.parent.mkdir(exist_ok=True)
    path.write_text(dump(spec), encoding="utf-8")


def write_litert_spec(folder: Path, *, spec: ModelSpec, version: int, files: Mapping[str, LiteRTFile]) -> None:
    """Write the `model_spec.json` beside LiteRT files.

    Args:
        folder: with the files in it.
        spec: the SavedModel's.
        version: under which the files are published; those in their metadata know only the model's digest.
        files: by kind (`int8`, …); the type of each file's input is added.
    """
    described = {kind: {**file, "input": "uint8" if kind == "int8" else "float32"} for kind, file in files.items()}
    content = {**spec, "model_version": str(version), "files": described}
    (folder / NAME).write_text(dump(content), encoding="utf-8")
