"""The weights that a backbone starts with: ImageNet's, those of a file or a URL, or random ones."""

import hashlib
import logging
from typing import TYPE_CHECKING

from components.errors import WeightsError
from components.storage.cache import fetch_file
from components.training.backbones import BACKBONES

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

AUTO, IMAGENET, NONE = "auto", "imagenet", "none"


def describe_weights(source: str) -> dict[str, str]:
    """Describe weights by their name, or a file by its content.

    Raises:
        WeightsError: the file does not exist.
        StorageError: it cannot be fetched from its URL.
    """
    if source in (AUTO, IMAGENET, NONE):
        return {"kind": source}
    path = fetch_file(source)
    if not path.is_file():
        raise WeightsError(
            f"The weights file does not exist: {source} (looked for {path.absolute()}). "
            f"Give a file saved by Keras, {IMAGENET}, {NONE} or {AUTO}."
        )
    return {"kind": "file", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def load_weights(backbone: "keras.Model", source: str) -> str | None:
    """Load weights into a backbone; return the reason where `auto` leaves it with random ones.

    Raises:
        WeightsError: named weights cannot be fetched or do not fit the backbone.
    """
    if source == NONE:
        return None
    if source in (AUTO, IMAGENET):
        try:
            _load_imagenet(backbone)
        except WeightsError as exc:
            if source == IMAGENET:
                raise
            reason = f"{exc} Random weights instead: good for trying the pipeline, not for photos."
            log.warning("WEIGHTS FELL BACK TO RANDOM ONES. %s", reason)
            return reason
        return None
    path = fetch_file(source)
    try:
        backbone.load_weights(path)
    except Exception as exc:  # h5py, Keras and zipfile each raise their own for a file that does not fit
        raise WeightsError(
            f"The weights do not fit {backbone.name} without its top: {source} "
            f"({str(exc).strip().splitlines()[0][:200]}). Give a file of this architecture, or set model.backbone."
        ) from exc
    return None


def _load_imagenet(backbone: "keras.Model") -> None:
    spec = BACKBONES[backbone.name]
    if spec.application is None:
        raise WeightsError(f"No ImageNet weights are published for {backbone.name}. Set model.weights={NONE}.")
    try:
        published = spec.build_application(image_size_px=backbone.input_shape[1], weights=IMAGENET)
    except Exception as exc:  # Keras raises a bare Exception for a failed download
        raise WeightsError(
            f"The ImageNet weights of {backbone.name} cannot be downloaded ({str(exc)[:200]}). Go online once, or "
            f"give a weights file, or {NONE}."
        ) from exc
    backbone.set_weights(published.get_weights())
