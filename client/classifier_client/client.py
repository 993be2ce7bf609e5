"""The client: images in any form in, labels out, over any transport."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import compress, islice
from typing import Any

from PIL import Image

from . import preprocessing
from .errors import ImageError
from .sources import Source, each
from .transports import Answer, Closable, Transport
from .transports.answers import check_answer

BATCH_SIZE = 8
"""Images in a request. A server with batching refuses more than its own `max_batch_size`; this project's has 8."""


@dataclass(frozen=True)
class Prediction:
    """A model's prediction of an image.

    Attributes:
        image: its name: a path or a file's name as it was given, else its position, as `image 1`.
        label: the most probable class.
        probability: of that class, 0–1.
        probabilities: of every class, the most probable first.
        model_version: of the model that made the prediction.
        latency_ms: from sending the request that held the image to the response.
        p_value: conformal p-value of the image under the photos that the model knows, 0–1; small is strange.
        is_known: whether it is above the share of known photos that is refused. Where it is not, the image looks like
            none of the classes; `label` is the most probable one all the same.
        prediction_set: the labels that together hold the truth with 95 %, the most probable first. These three are all
            `None` where the model does not tell.
    """

    image: str
    label: str
    probability: float
    probabilities: dict[str, float]
    model_version: str
    latency_ms: float
    p_value: float | None = None
    is_known: bool | None = None
    prediction_set: tuple[str, ...] | None = None


class Client(Closable):
    """Classifies images.

    Args:
        transport: the connection to the model; closed along with the client.
        batch_size: images in a request, at most. Results come batch by batch: with 1, each as soon as it is there.
        load: reads, decodes and resizes an image, as `preprocessing.load` does.

    Example:
        >>> with Client(RestTransport("localhost:8501", model="flowers")) as client:
        ...     for result in client.classify(["tulip.jpg", "missing.jpg"]):
        ...         print(result.label if isinstance(result, Prediction) else result)
        tulip
        missing.jpg: cannot be read (No such file or directory); check the path
    """

    def __init__(
        self,
        transport: Transport,
        *,
        batch_size: int = BATCH_SIZE,
        load: Callable[..., Image.Image] = preprocessing.load,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1. Received: {batch_size}")
        self._transport = transport
        self._batch_size = batch_size
        self._load = load

    def classify(self, images: Source | Iterable[Source]) -> Iterator[Prediction | ImageError]:
        """Classify one image, or any number of them, read only as they are needed.

        Args:
            images: a path, bytes, a file, a Pillow image or a uint8 array [height, width, 3]; or an iterable of these,
                such as a list, a generator, or an array [N, height, width, 3].

        Yields:
            A `Prediction` for each image, in their order; for one that cannot be read, an `ImageError` instead.

        Raises:
            TypeError: something is no image at all.
            ValueError: the client is closed.
            ServerError: the server cannot be reached, refuses, or responds with something else.
        """
        sources = each(images)
        while batch := list(islice(sources, self._batch_size)):
            self.check_open()
            size_px = self._transport.image_size_px()
            loaded = [self._try_load(source, name, size_px) for name, source in batch]
            readable = [image for image in loaded if isinstance(image, Image.Image)]
            predictions = iter(self._transport.predict(readable) if readable else ())
            for (name, _), image in zip(batch, loaded, strict=True):
                yield image if isinstance(image, ImageError) else _to_prediction(name, next(predictions))

    def close(self) -> None:
        """Release connections and memory; once is enough."""
        if not self._is_closed:
            super().close()
            self._transport.close()

    def _try_load(self, source: Source, name: str, size_px: int) -> Image.Image | ImageError:
        try:
            return self._load(source, name=name, size_px=size_px)
        except ImageError as exc:
            # A new one: the traceback of the one that was raised keeps everything that was read in memory.
            return ImageError(exc.image, exc.reason, code=exc.code)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _to_prediction(image: str, answer: Answer) -> Prediction:
    check_answer(answer)
    ranked = sorted(zip(answer.class_names, map(float, answer.probabilities), strict=True), key=lambda pair: -pair[1])
    prediction = Prediction(image, *ranked[0], dict(ranked), answer.model_version, answer.latency_ms)
    if answer.p_value is None or answer.prediction_set is None:
        return prediction
    held = set(compress(answer.class_names, answer.prediction_set))
    return replace(
        prediction,
        p_value=float(answer.p_value),
        is_known=bool(answer.is_known),
        prediction_set=tuple(label for label, _ in ranked if label in held),
    )
