"""The checks of what a model sends, whichever transport carries it."""

import reprlib
import time
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

from ..errors import AnswerError
from . import Answer

SIGNATURE = "images"
"""The model's signature that takes pixels, and the name of its one input: uint8 `[N, size, size, 3]`, RGB."""

MAX_RESPONSE_BYTES = 16 << 20
"""The probabilities and names of 30,000 classes for each of 8 images; what is longer is read no further."""

MAX_SIZE_PX = 4096
"""The side of the largest image that is made for a model: 50 MB."""

LIMITS = ("p_value", "is_known", "prediction_set")
"""The outputs of a model that knows its limits: all of them, or none."""

_TOLERANCE = 0.01  # One step of 8 bits is 0.004, and float32 misses 1 by less.


def check_image_size(shape: Sequence[int], *, model: str) -> int:
    """Return the side of the images that a signature takes.

    Raises:
        AnswerError: it takes no square RGB images, or larger ones than `MAX_SIZE_PX`.
    """
    if len(shape) != 4 or shape[1] != shape[2] or not 1 <= shape[1] <= MAX_SIZE_PX or shape[3] != 3:
        raise AnswerError(
            f"The signature {SIGNATURE!r} of a model must take square RGB images, [-1, size, size, 3], of at most "
            f"{MAX_SIZE_PX} pixels a side. Received: {reprlib.repr(list(shape))} from {model}. "
            "Export the model with this project."
        )
    return shape[1]


def to_answers(outputs: Mapping[str, Any], *, num_images: int, model_version: str, start_s: float) -> list[Answer]:
    """Return a server's outputs as one result for each image.

    Args:
        outputs: `probabilities`, a list for each image, of numbers; `classes`, the labels, again a list for each image,
            of texts; and those of `LIMITS`, all or none: a number, a truth value and a list of them for each image.
        num_images: in the request.
        model_version: of the model that made the predictions.
        start_s: when the request was sent, of `time.perf_counter`.

    Raises:
        AnswerError: they are something else, or there are more predictions than images, or fewer.
    """
    probabilities, classes = outputs["probabilities"], outputs["classes"]
    if not (_are_rows(probabilities, (float, int)) and _are_rows(classes, (str,))):
        raise AnswerError(
            "A server must return a list of numbers and a list of class names for each image. "
            f"Received: {reprlib.repr(probabilities)} and {reprlib.repr(classes)}. Check which server is there."
        )
    if not len(probabilities) == len(classes) == num_images:
        raise AnswerError(
            "A server must return one prediction for each image. "
            f"Received: {len(probabilities)} predictions for {num_images} images. Check which server is there."
        )
    limits = _read_limits(outputs, num_images)
    latency_ms = (time.perf_counter() - start_s) * 1000
    return [
        Answer(*pair, model_version, latency_ms, *row)
        for pair, row in zip(zip(classes, probabilities, strict=True), limits, strict=True)
    ]


def _read_limits(outputs: Mapping[str, Any], num_images: int) -> Sequence[tuple[Any, ...]]:
    """Return the values of `LIMITS` for each image; `None` where the model has no such outputs."""
    found = {name: outputs[name] for name in LIMITS if name in outputs}
    if not found:
        return [(None,) * len(LIMITS)] * num_images
    if (
        len(found) != len(LIMITS)
        or not _are_values(found["p_value"], (float, int))
        or not _are_values(found["is_known"], (bool,))
        or not _are_rows(found["prediction_set"], (bool,))
        or {len(values) for values in found.values()} != {num_images}
    ):
        raise AnswerError(
            "A server that returns one of p_value, is_known and prediction_set must return all three: a number, a "
            f"truth value and a list of truth values for each of {num_images} images. Received: {reprlib.repr(found)}. "
            "Check which model is there."
        )
    return list(zip(*found.values(), strict=True))


def check_answer(answer: Answer) -> None:
    """Check that there is one probability for each class. Their sum is free: a model may judge each class alone.

    Raises:
        AnswerError: there are more or fewer, names are the same, a probability is not 0–1, or the model's limits do not
            fit.
    """
    names, probabilities = answer.class_names, answer.probabilities
    if len(names) != len(probabilities) or len(set(names)) != len(names) or not names:
        raise AnswerError(
            "A classifier must return one probability for each of its classes, which have different names. Received: "
            f"{len(probabilities)} probabilities for {reprlib.repr(list(names))}. Export the model again."
        )
    if not are_probabilities(probabilities):
        raise AnswerError(
            f"A probability must be a number of 0 to 1. Received: {reprlib.repr(list(probabilities))}. "
            "Train or export the model again."
        )
    if not are_limits(answer):
        raise AnswerError(
            "A classifier that knows its limits must return a p-value of 0 to 1, whether the image is known, and a set "
            "of its classes that holds the most probable one. Received: "
            f"{reprlib.repr((answer.p_value, answer.is_known, answer.prediction_set))}. Export the model again."
        )


def are_probabilities(values: Sequence[float]) -> bool:
    """Return whether all are 0–1, but for rounding; NaN is not."""
    return all(-_TOLERANCE <= value <= 1 + _TOLERANCE for value in values)


def are_limits(answer: Answer) -> bool:
    """Return whether the three of `LIMITS` fit the probabilities, or are all `None`."""
    p_value, is_known, held = answer.p_value, answer.is_known, answer.prediction_set
    if p_value is None or is_known is None or held is None:
        return p_value is None and is_known is None and held is None
    best = max(answer.probabilities)
    return (
        are_probabilities([p_value])
        and len(held) == len(answer.probabilities)
        # Several may be the most probable.
        and any(probability == best for probability in compress(answer.probabilities, held))
    )


def _are_values(values: Any, types: tuple[type, ...]) -> bool:
    """Return whether values are a list of some types; a truth value is no number."""
    return isinstance(values, list) and all(type(value) in types for value in values)


def _are_rows(values: Any, types: tuple[type, ...]) -> bool:
    """Return whether values are a list of such lists."""
    return isinstance(values, list) and all(_are_values(row, types) for row in values)
