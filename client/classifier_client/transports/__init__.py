"""How images reach a model: a transport is any class with these three methods."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image


@dataclass(frozen=True)
class Answer:
    """A model's output for one image.

    Attributes:
        class_names: the labels, in the model's order.
        probabilities: one for each of them, 0–1.
        model_version: of the model that made the prediction.
        latency_ms: from sending the request that held the image to the response, failed attempts included.
        p_value: conformal p-value of the image under the photos that the model knows, 0–1; small is strange.
        is_known: whether it is above the share of known photos that is refused.
        prediction_set: for each label, whether it is among those that together hold the truth with 95 %; the most
            probable one is. These three are all `None` where the model has no such outputs.
    """

    class_names: Sequence[str]
    probabilities: Sequence[float]
    model_version: str
    latency_ms: float
    p_value: float | None = None
    is_known: bool | None = None
    prediction_set: Sequence[bool] | None = None


class Transport(Protocol):
    """A connection to a model."""

    def image_size_px(self) -> int:
        """Return the side of the square images that the model takes."""

    def predict(self, images: Sequence[Image.Image]) -> list[Answer]:
        """Classify RGB images of that size, at least one; the results are in their order.

        Raises:
            ServerError: the server cannot be reached, refuses, or responds with something else.
        """

    def close(self) -> None:
        """Release connections and memory."""


class Closable:
    """What can be closed once and again, and used no more."""

    _is_closed = False

    def close(self) -> None:
        """Release connections and memory; once is enough."""
        self._is_closed = True

    def check_open(self) -> None:
        """Check that it was not closed.

        Raises:
            ValueError: it was.
        """
        if self._is_closed:
            raise ValueError(f"A {type(self).__name__} must be open to classify. This one is closed. Make a new one.")
