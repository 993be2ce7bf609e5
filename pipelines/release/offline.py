"""Both versions on the photos of a folder, or on captured ones, one after the other, without a server."""

import hashlib
import logging
import random
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from components.errors import ReleaseError
from export.measure import Classify, open_saved_model
from serving.proxy.predictions import Prediction, estimate_drop
from serving.shared.capture import read_captured
from serving.shared.capture.tfrecord import SUFFIX as CAPTURED_SUFFIX

log = logging.getLogger(__name__)

_SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp"}
_NUM_WARMUPS = 3


def compare(
    folder: Path, stable_dir: Path, canary_dir: Path, *, known: Collection[str] = ()
) -> Iterator[dict[str, Any]]:
    """Yield an observation for each photo, none twice.

    A photo that neither version can read tells nothing; how many there are is logged.

    Args:
        folder: photos, in any depth, in an order that does not depend on their names; or captured traffic, as it came.
        stable_dir: the version that serves.
        canary_dir: the version to be released.
        known: the SHA-256 of photos to pass over.

    Raises:
        ReleaseError: a version cannot be loaded, or there are no photos.
    """
    models = {name: _load(path) for name, path in (("stable", stable_dir), ("canary", canary_dir))}
    order = random.Random(0)
    seen: set[str] = set()
    num_unreadable = 0
    for image in _read_images(folder, order):
        photo = hashlib.sha256(image).hexdigest()
        if photo in seen or photo in known:
            continue
        seen.add(photo)
        # Whoever comes first may be slower.
        replies = {name: _classify(models[name], image) for name in order.sample(sorted(models), 2)}
        (before, stable_ms), (after, canary_ms) = replies["stable"], replies["canary"]
        if not (before or after):
            num_unreadable += 1
            continue
        is_warm = len(seen) > _NUM_WARMUPS
        yield {
            "photo": photo,
            "stable": _describe(before, stable_ms if is_warm else None),
            "canary": _describe(after, canary_ms if is_warm else None),
            "estimated_drop": estimate_drop(before, after) if before and after else None,
        }
    if len(seen) == num_unreadable and not known:
        raise ReleaseError(
            f"--input must hold photos that the versions can read: files, or captured traffic with images. Received: "
            f"{folder}, with {num_unreadable} that neither can read. Give another folder."
        )
    if num_unreadable:
        log.warning("%d of %d photos were left out: neither version can read them", num_unreadable, len(seen))


def _read_images(folder: Path, order: random.Random) -> Iterator[bytes]:
    """Yield encoded images: of captured traffic where there is any in the folder, else of its files."""
    if any(folder.rglob(f"*{CAPTURED_SUFFIX}")):
        yield from (captured.image for captured in read_captured(folder) if captured.image)
        return
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    order.shuffle(paths)
    for path in paths:
        yield path.read_bytes()


def _load(version_dir: Path) -> Classify:
    import tensorflow as tf

    try:
        return open_saved_model(version_dir)
    except (OSError, KeyError, ValueError, AttributeError, tf.errors.OpError) as exc:
        raise ReleaseError(f"A version must load and have serving_default. {version_dir} does not ({exc}).") from exc


def _classify(classify: Classify, image: bytes) -> tuple[Prediction | None, float]:
    """Return a version's prediction, `None` where it fails, and the milliseconds that it took."""
    import tensorflow as tf

    start_s = time.perf_counter()
    prediction = None
    with suppress(KeyError, ValueError, tf.errors.OpError):
        probabilities, _, is_known = classify(image)
        prediction = Prediction(probabilities, is_known) if probabilities else None
    return prediction, (time.perf_counter() - start_s) * 1000


def _describe(prediction: Prediction | None, latency_ms: float | None) -> dict[str, Any]:
    return {
        "label": prediction and prediction.label,
        "probability": prediction and prediction.probabilities[prediction.label],
        "is_known": prediction and prediction.is_known,
        "latency_ms": latency_ms,
        "failed": prediction is None,
    }
