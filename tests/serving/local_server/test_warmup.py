"""Recorded requests are replayed on a model before it is served."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from serving.local_server.errors import Code
from serving.local_server.loading import load
from serving.local_server.servable import Array, LoadOptions, Servable
from serving.local_server.warmup import RECORDS, warm_up
from tests.serving.local_server.conftest import status_error


class Counted:
    """A model whose runs are counted."""

    def __init__(self, servable: Servable) -> None:
        self._servable = servable
        self.runtime, self.signatures, self.close = servable.runtime, servable.signatures, servable.close
        self.shape = servable.shape
        self.num_runs = 0

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str]) -> list[Array]:
        self.num_runs += 1
        return self._servable.run(feeds, fetches)


@pytest.fixture(scope="module")
def servable(models_dir: Path) -> Iterator[Servable]:
    servable = load(models_dir / "half_plus_two" / "00000123", LoadOptions())
    yield servable
    servable.close()


Warm = Callable[..., tuple[int, int]]


@pytest.fixture
def warm(servable: Servable, tmp_path: Path) -> Warm:
    """Return the function that warms a model up with records; it returns how many there are, and the model's runs."""

    def warm(*records: Any, **options: Any) -> tuple[int, int]:
        path = tmp_path / RECORDS
        path.parent.mkdir()
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                writer.write(record if isinstance(record, bytes) else record.SerializeToString())
        counted = Counted(servable)
        return warm_up(counted, "m", tmp_path, **options), counted.num_runs

    return warm


def predict_log(x: Array) -> Any:
    return PredictionLog(predict_log={"request": {"inputs": {"x": tf.make_tensor_proto(x)}}})


GOOD = predict_log(np.float32([2]))


@pytest.mark.parametrize(("options", "num_runs"), [({}, 2), ({"num_iterations": 0}, 2), ({"num_iterations": 3}, 6)])
def test_each_record_is_replayed_once_or_as_often_as_a_number_above_zero_says(
    warm: Warm, options: dict[str, int], num_runs: int
) -> None:
    assert warm(GOOD, GOOD, **options) == (2, num_runs)


def test_records_of_no_kind_and_of_streams_are_passed_over(warm: Warm) -> None:
    stream = PredictionLog()
    stream.predict_streamed_log.SetInParent()
    assert warm(PredictionLog(), stream, GOOD) == (3, 1)


def test_a_run_of_a_session_is_unsupported(warm: Warm) -> None:
    record = PredictionLog()
    record.session_run_log.SetInParent()
    with status_error(Code.UNIMPLEMENTED, "Unsupported log_type for warmup: 5"):
        warm(record)


def test_a_record_that_fails_says_why_with_the_code_of_its_request(warm: Warm) -> None:
    with status_error(Code.INVALID_ARGUMENT, r"tf_serving_warmup_requests fails: Expects arg\[0\] to be float but"):
        warm(GOOD, predict_log(np.int64([2])))


def test_what_is_no_record_is_refused(warm: Warm, servable: Servable, tmp_path: Path) -> None:
    with status_error(Code.INVALID_ARGUMENT, "Failed to parse warmup record: "):
        warm(b"\xff")
    (tmp_path / RECORDS).write_bytes(b"no records, though long enough for a header")
    with status_error(Code.DATA_LOSS, "Please verify your warmup data is in TFRecord format"):
        warm_up(servable, "m", tmp_path)


def test_more_than_a_thousand_records_are_too_many(warm: Warm) -> None:
    with status_error(Code.INVALID_ARGUMENT, r"Number of warmup records exceeds the maximum \(1000\) at "):
        warm(*[PredictionLog()] * 1001)
