"""Requests and responses as records of `PredictionLog`: those of models whose configuration has a `logging_config`."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tensorflow_serving.apis import prediction_log_pb2

from serving.local_server import tensor_protos
from serving.local_server.flags import Flags
from serving.local_server.metrics import Metrics
from serving.local_server.model_config import LoggingConfig, ModelConfig
from serving.local_server.servable import Array
from serving.local_server.versions import Version
from serving.shared.capture.recorder import Recorder
from serving.shared.capture.writer import CaptureOptions

PREDICT, CLASSIFY, REGRESS, MULTI_INFERENCE = "predict_log", "classify_log", "regress_log", "multi_inference_log"
"""The kinds of records, as the fields of a `PredictionLog` are called."""


class RequestLog:
    """Writes requests to files, off the event loop.

    Args:
        flags: how much is kept, and for how long.
        metrics: counts the requests.
    """

    def __init__(self, flags: Flags, metrics: Metrics) -> None:
        self._flags = flags
        self._metrics = metrics
        self._recorders: dict[LoggingConfig, Recorder] = {}
        self._models: dict[str, Recorder] = {}

    def configure(self, configs: Sequence[ModelConfig]) -> None:
        """Log the requests of these models as their configurations say; models with the same one share files."""
        wanted = {config.name: config.logging for config in configs if config.logging is not None}
        before, self._recorders = self._recorders, {}
        for logging in wanted.values():
            if logging not in self._recorders:
                self._recorders[logging] = before.pop(logging) if logging in before else self._open(logging)
        gauge = self._metrics.request_log_is_capturing
        for name in self._models.keys() - wanted.keys():
            gauge.remove(name)
        self._models = {name: self._recorders[logging] for name, logging in wanted.items()}
        for name, recorder in self._models.items():
            gauge.labels(name).set_function(partial(getattr, recorder, "is_capturing"))
        for recorder in before.values():
            recorder.close(timeout_s=0)

    def add(self, kind: str, version: Version, request: Any, response: Any) -> None:
        """Log a request, perhaps, and its response, as messages of TensorFlow Serving.

        Args:
            kind: such as `PREDICT`.
            version: that responded.
            request: which nobody changes from now on.
            response: likewise.
        """
        recorder = self._models.get(version.model_name)
        if recorder is None or not recorder.chooses():
            return

        def build(when_s: float) -> bytes:
            record = _make_record(recorder, version, when_s)
            log = getattr(record, kind)
            if recorder.options.with_inputs:
                log.request.CopyFrom(request)
            elif hasattr(request, "model_spec"):
                log.request.model_spec.CopyFrom(request.model_spec)
            log.response.CopyFrom(response)
            return record.SerializeToString()

        num_bytes = response.ByteSize() + (request.ByteSize() if recorder.options.with_inputs else 0)
        recorder.offer(version.model_name, build, num_bytes)

    def add_arrays(
        self, version: Version, signature_name: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> None:
        """Log a predict request, perhaps, and its response, as arrays by alias."""
        recorder = self._models.get(version.model_name)
        if recorder is None or not recorder.chooses():
            return
        inputs = inputs if recorder.options.with_inputs else {}

        def build(when_s: float) -> bytes:
            record = _make_record(recorder, version, when_s)
            log = record.predict_log
            for spec in (log.request.model_spec, log.response.model_spec):
                spec.CopyFrom(record.log_metadata.model_spec)
                spec.signature_name = signature_name
            for arrays, protos in ((inputs, log.request.inputs), (outputs, log.response.outputs)):
                for alias, array in arrays.items():
                    tensor_protos.to_proto(array, protos[alias], as_content=True)
            return record.SerializeToString()

        num_bytes = sum(_count_bytes(array) for arrays in (inputs, outputs) for array in arrays.values())
        recorder.offer(version.model_name, build, num_bytes)

    def close(self) -> None:
        """Write what waits, and end."""
        for recorder in self._recorders.values():
            recorder.close()

    def _open(self, logging: LoggingConfig) -> Recorder:
        folder, name = os.path.split(logging.filename_prefix)
        options = CaptureOptions(
            folder=Path(folder),
            name=name,
            rate=logging.sampling_rate,
            with_inputs=self._flags.request_log_inputs,
            max_mb=self._flags.request_log_max_mb,
            max_age_days=self._flags.request_log_max_age_days,
        )
        return Recorder(options, count=self._metrics.count_logged)


def _make_record(recorder: Recorder, version: Version, when_s: float) -> Any:
    record = prediction_log_pb2.PredictionLog()
    metadata = record.log_metadata
    metadata.model_spec.name = version.model_name
    metadata.model_spec.version.value = version.number
    metadata.sampling_config.sampling_rate = recorder.options.rate
    metadata.timestamp_secs = int(when_s)
    return record


def _count_bytes(array: Array) -> int:
    return array.nbytes if array.dtype != object else sum(map(len, array.ravel()))
