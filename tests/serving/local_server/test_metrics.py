from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from serving.local_server.batching import BatchRecord
from serving.local_server.errors import Code, StatusError, failed_precondition
from serving.local_server.metrics import Metrics

# Type and labels of each metric, as tensorflow_model_server's page has them.
EXPECTED = {
    ":tensorflow:serving:request_count": ("counter", {"model_name", "status"}),
    ":tensorflow:serving:request_latency": ("histogram", {"model_name", "API", "entrypoint"}),
    ":tensorflow:serving:runtime_latency": ("histogram", {"model_name", "API", "runtime"}),
    ":tensorflow:serving:request_example_counts": ("histogram", {"model"}),
    ":tensorflow:serving:request_example_count": ("counter", {"model"}),  # the parser takes its `_total` off
    ":tensorflow:serving:request_log_count": ("counter", {"model_name", "status_code"}),
    ":tensorflow:serving:request_log_is_capturing": ("gauge", {"model_name"}),  # not of TensorFlow Serving
    ":tensorflow:serving:batching_session:queuing_latency": ("histogram", {"thread_pool_name"}),
    ":tensorflow:serving:batching_session:wrapped_run_count": ("counter", set()),
    ":tensorflow:serving:batching_session:processed_batch_size": ("histogram", set()),
    ":tensorflow:serving:model_warmup_latency": ("histogram", {"model_path", "status"}),
    ":tensorflow:serving:model_warmup_records_read": ("counter", {"model_path"}),
    ":tensorflow:cc:saved_model:load_latency": ("counter", {"model_path"}),
    ":tensorflow:cc:saved_model:load_attempt_count": ("counter", {"model_path", "status"}),
}


def read(metrics: Metrics) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(metrics.page().decode())}


def value(metrics: Metrics, name: str, **labels: str) -> float:
    samples = [sample for family in read(metrics).values() for sample in family.samples]
    # The parser, unlike the page, ends the name of every counter in _total.
    return next(s.value for s in samples if s.name.removesuffix("_total") == name and s.labels == labels)


def use(metrics: Metrics) -> None:
    """Count one of each."""
    metrics.count_request("m", Code.OK, "Predict", "GRPC", 0.0015)
    metrics.runtime_latency.labels("m", "Predict", "TF1").observe(1000)
    metrics.count_examples("m", 3)
    metrics.count_logged("m", True)
    metrics.request_log_is_capturing.labels("m").set(1)
    metrics.warmup_records_read.labels("/models/m/1").inc(2)
    metrics.count_batch(BatchRecord("pool", [2, 3], [0.002, 0.001], 8))
    with metrics.timed_load(Path("/models/m/1")), metrics.timed_warmup(Path("/models/m/1")):
        pass


def test_names_types_and_labels_are_tensorflow_servings() -> None:
    metrics = Metrics()
    types = {name: kind for name, (kind, _) in EXPECTED.items()}
    assert {name: family.type for name, family in read(metrics).items()} == types
    use(metrics)
    found = {
        name: (family.type, {label for sample in family.samples for label in sample.labels} - {"le"})
        for name, family in read(metrics).items()
    }
    assert found == EXPECTED
    lines = metrics.page().decode().splitlines()
    for name, kind in types.items():
        written = f"{name}_total" if name.endswith("example_count") else name
        assert f"# TYPE {written} {kind}" in lines
    assert not [line for line in lines if "_created" in line]
    named = [line for line in lines if "_total" in line]
    assert named[-1] == ':tensorflow:serving:request_example_count_total{model="m"} 3.0'
    assert all("request_example_count_total" in line and "_total_total" not in line for line in named)
    assert ':tensorflow:serving:request_count{model_name="m",status="OK"} 1.0' in lines
    assert ':tensorflow:cc:saved_model:load_attempt_count{model_path="/models/m/1",status="success"} 1.0' in lines


def test_labels_stay_as_they_are() -> None:
    metrics = Metrics()
    strange = ':tensorflow:serving:request_count_total{a="b\\"}'
    metrics.request_count.labels(strange, "OK").inc()
    assert value(metrics, ":tensorflow:serving:request_count", model_name=strange, status="OK") == 1


@pytest.mark.parametrize(
    ("name", "first", "last", "count"),
    [
        (":tensorflow:serving:request_latency", 10, 10 * 1.8**32, 33),
        (":tensorflow:serving:batching_session:queuing_latency", 100, 100 * 1.2**51, 52),
        (":tensorflow:serving:request_example_counts", 1, 2**14, 15),
    ],
)
def test_buckets_are_tensorflow_servings(name: str, first: float, last: float, count: int) -> None:
    metrics = Metrics()
    use(metrics)
    bounds = [float(s.labels["le"]) for s in read(metrics)[name].samples if s.name == f"{name}_bucket"]
    assert (bounds[0], len(bounds) - 1, bounds[-1]) == (first, count, float("inf"))
    assert bounds[-2] == pytest.approx(last)


def test_a_batch_counts_its_rows_and_the_wait_of_each_request() -> None:
    metrics = Metrics()
    metrics.count_batch(BatchRecord("pool", [2, 3], [0.002, 0.001], 8))
    metrics.count_batch(BatchRecord("pool", [1], [0.003], 2))
    name = ":tensorflow:serving:batching_session"
    assert value(metrics, f"{name}:processed_batch_size_sum") == 10
    assert value(metrics, f"{name}:queuing_latency_sum", thread_pool_name="pool") == pytest.approx(6000)
    assert value(metrics, f"{name}:queuing_latency_count", thread_pool_name="pool") == 3
    assert value(metrics, f"{name}:wrapped_run_count") == 2


def test_a_request_that_fails_has_no_latency() -> None:
    metrics = Metrics()
    metrics.count_request("m", Code.INVALID_ARGUMENT, "Predict", "GRPC", 0.001)
    assert value(metrics, ":tensorflow:serving:request_count", model_name="m", status="INVALID_ARGUMENT") == 1
    assert not read(metrics)[":tensorflow:serving:request_latency"].samples


@pytest.mark.parametrize(
    ("error", "status"), [(failed_precondition("broken"), "FAILED_PRECONDITION"), (RuntimeError("a bug"), "UNKNOWN")]
)
def test_what_fails_is_counted_as_failed(error: Exception, status: str) -> None:
    metrics, path = Metrics(), Path("/models/m/1")
    for timed in (metrics.timed_load, metrics.timed_warmup):
        with pytest.raises(type(error)), timed(path):
            raise error
    labels: dict[str, Any] = {"model_path": str(path)}
    assert value(metrics, ":tensorflow:cc:saved_model:load_attempt_count", **labels, status="fail") == 1
    assert value(metrics, ":tensorflow:serving:model_warmup_latency_count", **labels, status=status) == 1
    assert not read(metrics)[":tensorflow:cc:saved_model:load_latency"].samples


def test_errors_do_not_become_labels() -> None:
    """Whatever models say of themselves, there is a counter for each code at most."""
    metrics, path = Metrics(), Path("/models/m/1")
    for i in range(100):
        with pytest.raises(StatusError), metrics.timed_warmup(path):
            raise failed_precondition(f"row {i} is wrong")
    samples = read(metrics)[":tensorflow:serving:model_warmup_latency"].samples
    assert len({tuple(sample.labels.items()) for sample in samples if sample.name.endswith("_count")}) == 1
