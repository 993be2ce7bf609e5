"""Records of captured photos, and files of them, as a server writes them."""

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from serving.shared.capture.messages import PredictionLog, fill
from serving.shared.capture.tfrecord import frame

CLASS_NAMES = ("daisy", "roses", "tulips")


def make_message(
    when_s: float,
    probabilities: Sequence[Sequence[float]] = ((0.7, 0.2, 0.1),),
    *,
    images: Sequence[bytes] = (),
    are_known: Sequence[bool] = (),
    version: int | None = 7,
) -> Any:
    """Return the message of a request of N photos; their sets hold what has a probability of 0.3 or more."""
    log = PredictionLog()
    log.log_metadata.timestamp_secs = int(when_s)
    log.log_metadata.model_spec.name = "flowers"
    if version is not None:
        log.log_metadata.model_spec.version.value = version
    request, response = log.predict_log.request, log.predict_log.response
    shape = [len(probabilities), len(CLASS_NAMES)]
    flat = [value for row in probabilities for value in row]
    fill(response.outputs, {"probabilities": flat, "classes": CLASS_NAMES * len(probabilities)}, shape=shape)
    if are_known:
        fill(response.outputs, {"is_known": are_known, "p_value": [0.5] * len(are_known)}, shape=shape[:1])
        fill(response.outputs, {"prediction_set": [value >= 0.3 for value in flat]}, shape=shape)
    if images:
        fill(request.inputs, {"image_bytes": images}, shape=[len(images)])
    return log


def write_file(folder: Path, begun_s: float, messages: Sequence[Any], *, end: bytes = b"") -> Path:
    """Write a file of messages that was begun at a time, and what follows them."""
    begun = datetime.fromtimestamp(begun_s, timezone.utc)
    path = folder / f"server-{begun:%Y%m%dT%H%M%S}.{begun.microsecond:06}-{len(list(folder.iterdir())):08x}.tfrecord"
    path.write_bytes(b"".join(frame(message.SerializeToString()) for message in messages) + end)
    return path
