"""What the server counts, under TensorFlow Serving's metric names, so that its dashboards work unchanged.

Names and buckets are those of servables/tensorflow/util.cc and batching_session.cc.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest

disable_created_metrics()  # type: ignore[no-untyped-call]

# 10 µs times 1.8 to the power of 0 … 32: up to some 20 minutes.
_LATENCY_BUCKETS_US = [10 * 1.8**i for i in range(33)]
_COUNT_BUCKETS = [2.0**i for i in range(15)]


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.request_count = Counter(
            ":tensorflow:serving:request_count",
            "The total number of requests.",
            ["model_name", "status"],
            registry=self._registry,
        )
        self.request_latency = self._latency(
            "serving:request_latency",
            "Distribution of wall time (in microseconds) for Tensorflow Serving request.",
            ["model_name", "API", "entrypoint"],
        )
        self.runtime_latency = self._latency(
            "serving:runtime_latency",
            "Distribution of wall time (in microseconds) for Tensorflow runtime.",
            ["model_name", "API", "runtime"],
        )
        self.queuing_latency = self._latency(
            "serving:batching_session:queuing_latency",
            "Distribution of wall time spent (in microseconds) in queuing, of the oldest request of each batch.",
            [],
        )
        self.warmup_latency = self._latency(
            "serving:model_warmup_latency",
            "Distribution of wall time (in microseconds) for model warmup.",
            ["model_path"],
        )
        self.load_latency = self._latency(
            "cc:saved_model:load_latency", "Latency in microseconds for SavedModels that were loaded.", ["model_path"]
        )
        self.load_attempts = Counter(
            ":tensorflow:cc:saved_model:load_attempt_count",
            "The number of times a SavedModel was requested to be loaded.",
            ["model_path", "status"],
            registry=self._registry,
        )
        self.batch_size = Histogram(
            ":tensorflow:serving:batching_session:processed_batch_size",
            "Rows of each batch that was run.",
            buckets=_COUNT_BUCKETS,
            registry=self._registry,
        )
        self.example_counts = Histogram(
            ":tensorflow:serving:request_example_counts",
            "The number of tensorflow.Examples per request.",
            ["model"],
            buckets=_COUNT_BUCKETS,
            registry=self._registry,
        )

    def _latency(self, name: str, documentation: str, labels: list[str]) -> Histogram:
        return Histogram(
            f":tensorflow:{name}", documentation, labels, buckets=_LATENCY_BUCKETS_US, registry=self._registry
        )

    def count_batch(self, num_rows: int, waited_s: float) -> None:
        """Count a batch that was run."""
        self.batch_size.observe(num_rows)
        self.queuing_latency.observe(waited_s * 1e6)

    @contextmanager
    def timed_load(self, version_dir: Path) -> Iterator[None]:
        """Count and time the loading of a model."""
        status = "fail"
        try:
            with _observed(self.load_latency.labels(str(version_dir))):
                yield
            status = "success"
        finally:
            self.load_attempts.labels(str(version_dir), status).inc()

    @contextmanager
    def timed_warmup(self, version_dir: Path) -> Iterator[None]:
        """Time the warmup of a model."""
        with _observed(self.warmup_latency.labels(str(version_dir))):
            yield

    def page(self) -> bytes:
        """Write all metrics in Prometheus' text format."""
        # The library ends a counter's name in _total, which TensorFlow Serving's names do not.
        return re.sub(rb"(:tensorflow:\S*?_count)_total\b", rb"\1", generate_latest(self._registry))


@contextmanager
def _observed(histogram: Histogram) -> Iterator[None]:
    start = time.perf_counter()
    yield
    histogram.observe((time.perf_counter() - start) * 1e6)
