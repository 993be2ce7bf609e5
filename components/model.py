"""Fetch the backbone's weights and check that they fit, before anything expensive runs.

Reads weights from wherever the options say; writes `backbone.weights.h5` and `model.json`.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from components.artifacts.backbone import WEIGHTS_FILE, write_backbone
from components.artifacts.manifest import write_missing
from components.artifacts.summary import Summary
from components.errors import WeightsError
from components.options import check_choice, check_seed
from components.storage.cache import is_reachable
from components.training.backbones import BACKBONES, build_backbone
from components.training.weights import AUTO, NONE, describe_weights, load_weights

_PUBLISHER = "https://storage.googleapis.com"
_READ_TIMEOUT_S, _UNREACHABLE_TIMEOUT_S = 60, 1


@dataclass(frozen=True)
class ModelOptions:
    """The backbone.

    Attributes:
        backbone: a name in `BACKBONES`.
        weights: `imagenet`, a weights file or its URL, `none` (random), or `auto`: ImageNet's where they can be had,
            else random.
        image_size_px: side of the square that photos are resized to.
        seed: of random weights.
    """

    backbone: str = "resnet50"
    weights: str = AUTO
    image_size_px: int = 224
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(self, tuple(BACKBONES), "backbone")
        check_seed(self)
        if self.image_size_px < BACKBONES[self.backbone].min_size_px:
            raise ValueError(
                f"image_size_px must be at least {BACKBONES[self.backbone].min_size_px} for {self.backbone}. "
                f"Received: {self.image_size_px}"
            )


def describe_source(options: ModelOptions) -> dict[str, str]:
    """Describe the weights that the options name; a file counts by its content.

    Raises:
        WeightsError: the file does not exist.
        StorageError: it cannot be fetched from its URL.
    """
    return describe_weights(options.weights)


def find_fallback(options: ModelOptions) -> str | None:
    """Return why random weights are sure to stand for ImageNet's now, or `None`; TensorFlow is not loaded for it."""
    if options.weights != AUTO:
        return None
    if BACKBONES[options.backbone].application is None:
        return f"No ImageNet weights are published for {options.backbone}."
    downloads = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"
    may_be_here = downloads.is_dir() and any(downloads.iterdir())
    return None if may_be_here or is_reachable(_PUBLISHER) else f"{_PUBLISHER} does not respond."


def fetch(*, out_dir: Path, options: ModelOptions) -> Summary:
    """Build the backbone with its weights, and save it.

    Raises:
        WeightsError: named weights cannot be fetched or do not fit the backbone.
    """
    import keras

    keras.utils.set_random_seed(options.seed)
    backbone = build_backbone(options.backbone, image_size_px=options.image_size_px)
    with _bounded_network() if options.weights == AUTO else nullcontext():
        fallback = load_weights(backbone, options.weights)
    source = NONE if fallback else options.weights
    backbone.save_weights(out_dir / WEIGHTS_FILE)
    write_backbone(
        out_dir,
        {
            "backbone": options.backbone,
            "image_size_px": options.image_size_px,
            "weights": {"source": source, "fallback": fallback},
            "num_features": backbone.output_shape[-1],
            "num_parameters": backbone.count_params(),
        },
    )
    summary: Summary = {"backbone": options.backbone, "weights": source, "num_parameters": backbone.count_params()}
    return summary | ({"fallback": fallback} if fallback else {})


@contextmanager
def _bounded_network() -> Iterator[None]:
    """Let no connection hang during the block: a host that does not respond costs seconds, not minutes."""
    before = socket.getdefaulttimeout()
    # Keras has no timeout of its own, and tries each of a host's many addresses.
    socket.setdefaulttimeout(_READ_TIMEOUT_S if is_reachable(_PUBLISHER) else _UNREACHABLE_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def fetch_or_explain(*, out_dir: Path, options: ModelOptions) -> Summary:
    """Do as `fetch` does; where the weights cannot be had, leave the reason for those who can do without."""
    try:
        return fetch(out_dir=out_dir, options=options)
    except WeightsError as exc:
        write_missing(out_dir, what=options.backbone, reason=str(exc))
        return {"backbone": options.backbone, "missing": "its weights"}
