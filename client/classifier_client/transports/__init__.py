"""How images reach a model. A transport is whatever has these three methods: the client knows no more of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image


@dataclass(frozen=True)
class Answer:
    """What a model says of one image.

    Attributes:
        class_names: the labels, in the model's order.
        probabilities: one for each of them, 0–1.
        model_version: of the model that answered.
        latency_ms: from sending the request that held the image to its answer, attempts in vain included.
    """

    class_names: Sequence[str]
    probabilities: Sequence[float]
    model_version: str
    latency_ms: float


class Transport(Protocol):
    """A way to a model."""

    def image_size_px(self) -> int:
        """Give the side of the square images that the model takes."""

    def predict(self, images: Sequence[Image.Image]) -> list[Answer]:
        """Classify RGB images of that size, at least one; the answers are in their order.

        Raises:
            ServerError: the server cannot be reached, refuses, or answers something else.
        """

    def close(self) -> None:
        """Let go of connections and memory."""
