"""Classify photos off the event loop, and watch whether the model responds."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from client.classifier_client import ClassifierError, ImageError, Prediction, ServerError
from client.classifier_client.decoder_pool import DecoderPool
from client.classifier_client.transports.litert_metadata import Metadata
from serving.web.errors import RequestError
from serving.web.metrics import Metrics
from serving.web.model_info import ModelInfo
from serving.web.models import Model, ModelWithFile
from serving.web.thumbnails import make_thumbnail
from serving.web.unreadable import Unreadable, explain

log = logging.getLogger(__name__)

T = TypeVar("T")

_RETRY_S = 5
_GONE = "The model does not answer at the moment. Nothing is wrong with the photo."
# Until the model responds, whatever the interval is otherwise.
_SOON_S = 0.25


@dataclass(frozen=True)
class Classified:
    """The model's prediction for a photo.

    Attributes:
        image: the photo's name.
        label: the most probable class.
        probability: of that class, 0–1.
        probabilities: of every class, the most probable first.
        is_sure: whether the probability reaches the threshold.
        model_version: of the model that predicted it.
        latency_ms: from the photo's last byte to the prediction: waiting, decoding and the model.
        p_value: conformal p-value of the photo under those that the model knows, 0–1; small is strange.
        is_known: whether it is above the share of known photos that is refused; where it is not, the photo looks like
            none of the classes.
        prediction_set: the labels that together hold the truth with 95 %, the most probable first. These three are
            `None` where the model does not tell.
    """

    image: str
    label: str
    probability: float
    probabilities: dict[str, float]
    is_sure: bool
    model_version: str
    latency_ms: float
    p_value: float | None
    is_known: bool | None
    prediction_set: tuple[str, ...] | None


class Classifier:
    """Classifies photos with one model.

    Args:
        model: predicts.
        decoders: decode photos; closed along with the classifier.
        threshold: below it a result is not sure.
        num_workers: photos that are decoded at the same time.
        metrics: counts what happens.
    """

    def __init__(
        self, model: Model, decoders: DecoderPool, *, threshold: float, num_workers: int, metrics: Metrics
    ) -> None:
        self.threshold = threshold
        self._model = model
        self._decoders = decoders
        self._metrics = metrics
        self._workers = ThreadPoolExecutor(num_workers, thread_name_prefix="photo")
        # So that it does not wait behind photos.
        self._watcher = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._is_ready: bool | None = None
        self._gone = asyncio.Event()
        self._unexpected = ""

    @property
    def info(self) -> ModelInfo:
        """Return what is known of the model in use."""
        return self._model.info

    @property
    def has_file(self) -> bool:
        """Return whether the model is a file here."""
        return isinstance(self._model, ModelWithFile)

    def read_file(self) -> tuple[ModelInfo, Metadata, bytes]:
        """Return what is known of the model in use, its file's metadata and its file's content.

        Raises:
            ModelFileError: the file is gone, or another one.
            RequestError: the model is no file here.
        """
        if not isinstance(self._model, ModelWithFile):
            raise RequestError(404, "There is no such file.")
        return self._model.read_file()

    @property
    def is_ready(self) -> bool:
        """Return whether the model responded to its last call."""
        return bool(self._is_ready)

    async def classify(self, content: bytes, *, image: str) -> tuple[Classified | Unreadable, float]:
        """Classify one photo.

        Args:
            content: the encoded photo.
            image: its name.

        Returns:
            The prediction, or why there is none, and the seconds of processor time that decoding took.

        Raises:
            RequestError: the model does not respond.
        """
        start_s = time.perf_counter()
        try:
            result, decoding_s = await self._call(self._workers, self._classify, content)
        except ClassifierError as exc:
            self._metrics.photos.labels("no_answer").inc()
            raise RequestError(503, _GONE, retry_after_s=_RETRY_S) from exc
        if isinstance(result, ImageError):
            unreadable = explain(image, content, result)
            self._metrics.photos.labels(unreadable.code).inc()
            return unreadable, decoding_s
        latency_s = time.perf_counter() - start_s
        is_sure = result.probability >= self.threshold
        outcome = "refused" if result.is_known is False else "sure" if is_sure else "unsure"
        self._metrics.photos.labels(outcome).inc()
        self._metrics.predictions.labels(result.label).inc()
        self._metrics.photo_seconds.observe(latency_s)
        classified = Classified(
            image=image,
            label=result.label,
            probability=result.probability,
            probabilities=result.probabilities,
            is_sure=is_sure,
            model_version=result.model_version,
            latency_ms=round(latency_s * 1000, 1),
            p_value=result.p_value,
            is_known=result.is_known,
            prediction_set=result.prediction_set,
        )
        return classified, decoding_s

    async def make_thumbnail(self, content: bytes) -> str:
        """Return the data URI of a small copy of a photo; empty where that fails."""
        return await _run(self._workers, make_thumbnail, self._decoders, content)

    async def refresh(self) -> None:
        """Look for a newer version of the model, and check that it responds."""
        try:
            await self._call(self._watcher, self._model.refresh)
        except ClassifierError:
            return  # Noted, and in the log.
        except Exception as exc:
            # Whatever a server sends or a folder holds, the next look may find it in order.
            self._note(exc)
            if repr(exc) != self._unexpected:
                self._unexpected = repr(exc)
                log.exception("looking for the model failed in an unexpected way")

    async def watch(self, poll_s: float) -> None:
        """Refresh again and again, and soon where the model does not respond."""
        while True:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._gone.wait(), poll_s)
            if not self.is_ready:
                await asyncio.sleep(min(poll_s, _SOON_S))
            await self.refresh()

    def _classify(self, content: bytes) -> tuple[Prediction | ImageError, float]:
        return self._model.classify(content), self._decoders.last_cpu_s

    def close(self) -> None:
        """Release threads, processes and connections; what is in progress ends."""
        self._decoders.close()
        for threads in (self._workers, self._watcher):
            threads.shutdown(cancel_futures=True)
        self._model.close()

    async def _call(self, threads: ThreadPoolExecutor, function: Callable[..., T], *args: Any) -> T:
        """Call the model, and note whether it responds."""
        try:
            result = await _run(threads, function, *args)
        except ServerError as exc:
            self._note(exc)
            raise
        if not (isinstance(result, tuple) and isinstance(result[0], ImageError)):  # It never reached the model.
            self._note(None)
        return result

    def _note(self, error: Exception | None) -> None:
        is_ready = error is None
        if is_ready is self._is_ready:
            return
        if error:
            log.warning("the model does not respond: %s", error)
        elif self._is_ready is False:
            log.info("the model responds again")
        self._is_ready = is_ready
        if is_ready:
            self._gone.clear()
        else:
            self._gone.set()
        self._metrics.model_ready.set(is_ready)


async def _run(threads: ThreadPoolExecutor, function: Callable[..., T], *args: Any) -> T:
    """Run a function off the event loop, when a thread is free."""
    return await asyncio.get_running_loop().run_in_executor(threads, function, *args)
