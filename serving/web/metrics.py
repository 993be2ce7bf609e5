"""The service's metrics, for Prometheus. No label holds anything that a client chose."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The counters of one service."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "classifier_web_requests", "Requests, by route and status.", ["route", "status"], registry=self._registry
        )
        self.request_seconds = Histogram(
            "classifier_web_request_seconds",
            "From a request's head to the start of its response, uploading included.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.photos = Counter(
            "classifier_web_photos",
            "Photos, by outcome: sure, unsure, refused, no_answer, or why they cannot be read.",
            ["outcome"],
            registry=self._registry,
        )
        self.photo_seconds = Histogram(
            "classifier_web_photo_seconds",
            "From a photo's last byte to its prediction: waiting, decoding and the model.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.predictions = Counter(
            "classifier_web_predictions", "Photos, by their most probable class.", ["label"], registry=self._registry
        )
        self.model_ready = Gauge(
            "classifier_web_model_ready", "Whether the model responds: 1 or 0.", registry=self._registry
        )

        self.captured = Counter(
            "classifier_web_photos_captured", "Photos whose result was written to files.", registry=self._registry
        )
        self.capture_dropped = Counter(
            "classifier_web_photos_capture_dropped",
            "Photos whose result was to be written and is not: too many waited, or it cannot be written.",
            registry=self._registry,
        )

    def count_capture(self, model_name: str, is_captured: bool) -> None:
        """Count a photo that was to be captured."""
        (self.captured if is_captured else self.capture_dropped).inc()

    def watch_capture(self, is_capturing: Callable[[], float]) -> None:
        """Add a gauge of whether photos are captured, read from a function."""
        gauge = Gauge(
            "classifier_web_is_capturing",
            "Whether the last photo to be captured could be written: 1 or 0.",
            registry=self._registry,
        )
        gauge.set_function(is_capturing)

    def watch_work(self, num_at_work: Callable[[], float]) -> None:
        """Add a gauge of the requests in progress, read from a function."""
        gauge = Gauge("classifier_web_requests_at_work", "Requests in progress.", registry=self._registry)
        gauge.set_function(num_at_work)

    def page(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
