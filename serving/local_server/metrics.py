"""What the server counts, under TensorFlow Serving's metric names, so that its dashboards work unchanged.

Names, labels and buckets are those of TensorFlow Serving's util.cc, saved_model_warmup_util.cc and batching_session.cc
and of TensorFlow's saved_model/loader.cc, but that the size of a batch is a histogram here.
"""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from serving.local_server.batching import BatchRecord
from serving.local_server.errors import Code, StatusError

disable_created_metrics()  # type: ignore[no-untyped-call]

# 10 µs times 1.8 to the power of 0 … 32: up to some 20 minutes.
_LATENCY_BUCKETS_US = [10 * 1.8**i for i in range(33)]
# Up to one second.
_QUEUING_BUCKETS_US = [100 * 1.2**i for i in range(52)]
_COUNT_BUCKETS = [2.0**i for i in range(15)]


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.request_count = self._counter(
            "serving:request_count", "The total number of requests.", ["model_name", "status"]
        )
        self.request_latency = self._histogram(
            "serving:request_latency",
            "Distribution of wall time (in microseconds) for Tensorflow Serving request.",
            ["model_name", "API", "entrypoint"],
        )
        self.runtime_latency = self._histogram(
            "serving:runtime_latency",
            "Distribution of wall time (in microseconds) for Tensorflow runtime.",
            ["model_name", "API", "runtime"],
        )
        self.queuing_latency = self._histogram(
            "serving:batching_session:queuing_latency",
            "Distribution of wall time spent (in microseconds) in queuing",
            ["thread_pool_name"],
            buckets=_QUEUING_BUCKETS_US,
        )
        self.wrapped_run_count = self._counter(
            "serving:batching_session:wrapped_run_count", "Total count of run calls on the wrapped session", []
        )
        self.batch_size = self._histogram(
            "serving:batching_session:processed_batch_size", "Rows of each batch that was run.", buckets=_COUNT_BUCKETS
        )
        self.warmup_latency = self._histogram(
            "serving:model_warmup_latency",
            "Distribution of wall time (in microseconds) for warming up the model.",
            ["model_path", "status"],
        )
        self.load_latency = self._counter(
            "cc:saved_model:load_latency",
            "Latency in microseconds for SavedModels that were successfully loaded.",
            ["model_path"],
        )
        self.load_attempts = self._counter(
            "cc:saved_model:load_attempt_count",
            "The number of times a SavedModel was requested to be loaded.",
            ["model_path", "status"],
        )
        self.example_counts = self._histogram(
            "serving:request_example_counts",
            "The number of tensorflow.Examples per request.",
            ["model"],
            buckets=_COUNT_BUCKETS,
        )
        # This name keeps its ending: the page takes one off.
        self.example_count_total = self._counter(
            "serving:request_example_count_total_total", "The total number of tensorflow.Examples.", ["model"]
        )
        self.warmup_records_read = self._counter(
            "serving:model_warmup_records_read", "The number of warmup records read.", ["model_path"]
        )
        self.request_log_count = self._counter(
            "serving:request_log_count", "The total number of requests logged.", ["model_name", "status_code"]
        )
        self.request_log_is_capturing = Gauge(
            ":tensorflow:serving:request_log_is_capturing",
            "Whether the last request to be logged could be written: 1 or 0.",
            ["model_name"],
            registry=self._registry,
        )

    def _counter(self, name: str, documentation: str, labels: Sequence[str]) -> Counter:
        return Counter(f":tensorflow:{name}", documentation, labels, registry=self._registry)

    def _histogram(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        buckets: Sequence[float] = _LATENCY_BUCKETS_US,
    ) -> Histogram:
        return Histogram(f":tensorflow:{name}", documentation, labels, buckets=buckets, registry=self._registry)

    def count_batch(self, record: BatchRecord) -> None:
        """Count a batch that starts."""
        self.wrapped_run_count.inc()
        self.batch_size.observe(record.num_rows)
        for wait_s in record.waits_s:
            self.queuing_latency.labels(record.thread_pool_name).observe(wait_s * 1e6)

    def count_request(self, model_name: str, code: Code, api: str, entrypoint: str, latency_s: float) -> None:
        """Count a request; the latency of one that failed would tell nothing of the model's."""
        self.request_count.labels(model_name, code.name).inc()
        if code is Code.OK:
            self.request_latency.labels(model_name, api, entrypoint).observe(latency_s * 1e6)

    def count_examples(self, model_name: str, num_examples: int) -> None:
        """Count the `tf.Example`s of a request."""
        self.example_counts.labels(model_name).observe(num_examples)
        self.example_count_total.labels(model_name).inc(num_examples)

    def count_logged(self, model_name: str, is_captured: bool) -> None:
        """Count a request that was to be logged: `OK` where it is, else `RESOURCE_EXHAUSTED`."""
        self.request_log_count.labels(model_name, (Code.OK if is_captured else Code.RESOURCE_EXHAUSTED).name).inc()

    @contextmanager
    def timed_load(self, version_dir: Path) -> Iterator[None]:
        """Count and time the loading of a model."""
        path, start_s, status = str(version_dir), time.perf_counter(), "fail"
        try:
            yield
            status = "success"
            self.load_latency.labels(path).inc(_micros_since(start_s))
        finally:
            self.load_attempts.labels(path, status).inc()

    @contextmanager
    def timed_warmup(self, version_dir: Path) -> Iterator[None]:
        """Time the warmup of a model."""
        path, start_s, code = str(version_dir), time.perf_counter(), Code.UNKNOWN
        try:
            yield
            code = Code.OK
        except StatusError as exc:
            code = exc.code
            raise
        finally:
            self.warmup_latency.labels(path, code.name).observe(_micros_since(start_s))

    def page(self) -> bytes:
        """Write all metrics in Prometheus' text format."""
        # The library ends a counter's name in _total, which TensorFlow Serving's names do not.
        name_in_line = re.compile(rb"^((?:# HELP |# TYPE )?:tensorflow:[\w:]+)_total\b", re.MULTILINE)
        return name_in_line.sub(rb"\1", generate_latest(self._registry))


def _micros_since(start_s: float) -> float:
    return (time.perf_counter() - start_s) * 1e6
