"""Both versions on the photos of a folder, one after the other, without a server."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from components.errors import ReleaseError
from components.storage.files import sha256
from serving.proxy.answers import Answer, estimate_drop

_SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp"}
_NUM_WARMUPS = 3


def compare(photos_dir: Path, stable_dir: Path, canary_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield an observation for each photo of a folder, in any depth, in an order that does not depend on their names.

    A photo that neither version can read tells nothing, and is left out.

    Raises:
        ReleaseError: a version cannot be loaded.
    """
    models = {name: _load(path) for name, path in (("stable", stable_dir), ("canary", canary_dir))}
    paths = sorted(path for path in photos_dir.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    order = random.Random(0)
    order.shuffle(paths)
    for number, path in enumerate(paths):
        content = path.read_bytes()
        # Whoever comes first may be slower.
        replies = {name: _classify(models[name], content) for name in order.sample(sorted(models), 2)}
        (before, stable_ms), (after, canary_ms) = replies["stable"], replies["canary"]
        if before or after:
            is_warm = number >= _NUM_WARMUPS
            yield {
                "photo": sha256(path),
                "stable": _describe(before, stable_ms if is_warm else None),
                "canary": _describe(after, canary_ms if is_warm else None),
                "estimated_drop": estimate_drop(before, after) if before and after else None,
            }


def _load(version_dir: Path) -> Callable[..., Any]:
    import tensorflow as tf

    try:
        model = tf.saved_model.load(str(version_dir))
        call = model.signatures["serving_default"]
    except (OSError, KeyError, tf.errors.OpError) as exc:
        raise ReleaseError(f"A version must load and have serving_default. {version_dir} does not ({exc}).") from exc
    call.model = model  # whose variables the signature alone does not keep
    return call


def _classify(call: Callable[..., Any], content: bytes) -> tuple[Answer | None, float]:
    import tensorflow as tf

    start_s = time.perf_counter()
    answer = None
    with suppress(KeyError, tf.errors.OpError):
        outputs = {name: value.numpy() for name, value in call(image_bytes=tf.constant([content])).items()}
        probabilities = map(float, outputs["probabilities"][0])
        names = [name.decode() for name in outputs["classes"][0]]
        is_known = bool(outputs["is_known"][0]) if "is_known" in outputs else None
        answer = Answer(dict(zip(names, probabilities, strict=True)), is_known)
    return answer, (time.perf_counter() - start_s) * 1000


def _describe(answer: Answer | None, latency_ms: float | None) -> dict[str, Any]:
    return {
        "label": answer and answer.label,
        "probability": answer and answer.probabilities[answer.label],
        "is_known": answer and answer.is_known,
        "latency_ms": latency_ms,
        "failed": answer is None,
    }
