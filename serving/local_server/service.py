"""The core behind gRPC and REST: finds the model, runs the request in time, counts what happened."""

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2

from serving.local_server import inference, model_config, request_log
from serving.local_server.batching import FOREVER, Scheduler
from serving.local_server.errors import Code, StatusError, invalid_argument
from serving.local_server.manager import ModelManager
from serving.local_server.metrics import Metrics
from serving.local_server.request_log import RequestLog
from serving.local_server.servable import Array, Servable
from serving.local_server.versions import Version

T = TypeVar("T")

# A model whose time is up ends within milliseconds, or not at all.
_END_S = 0.1

# Of the request at work, on `time.monotonic`.
_deadline_s: ContextVar[float] = ContextVar("_deadline_s", default=FOREVER)


class Service:
    """PredictionService and ModelService of TensorFlow Serving, free of any transport.

    Every method raises `StatusError` where a request fails.

    Args:
        manager: the models.
        scheduler: runs requests on them.
        metrics: counts them.
        max_tensor_bytes: of one input.
        as_content: return tensors as bytes (`tensor_content`) instead of typed fields.
        check_methods: classify and regress only with signatures whose method says so.
        log: gets each request that succeeds; `None` for none.
    """

    def __init__(
        self,
        manager: ModelManager,
        scheduler: Scheduler,
        metrics: Metrics,
        *,
        max_tensor_bytes: int,
        as_content: bool = False,
        check_methods: bool = False,
        log: RequestLog | None = None,
    ) -> None:
        self.manager = manager
        self.metrics = metrics
        self._scheduler = scheduler
        self._max_tensor_bytes = max_tensor_bytes
        self._as_content = as_content
        self._check_methods = check_methods
        self._request_log = log

    async def predict(self, request: Any) -> Any:
        version = self._find(request)
        run = self._runner(version.model_name, "Predict")
        response = await inference.predict(
            version,
            request,
            run,
            max_tensor_bytes=self._max_tensor_bytes,
            as_content=self._as_content,
            check_method=self._check_methods,
        )
        self._log(request_log.PREDICT, version, request, response)
        return response

    async def predict_arrays(
        self, version: Version, signature_name: str, signature: Any, inputs: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Run arrays, by alias, through a signature of a version: what a REST request has come to."""
        run = self._runner(version.model_name, "Predict")
        outputs = await inference.run_signature(version, signature, inputs, run, check_method=self._check_methods)
        if self._request_log:
            self._request_log.add_arrays(version, signature_name, inputs, outputs)
        return outputs

    async def classify(self, request: Any) -> Any:
        version = self._find(request)
        run = self._runner(version.model_name, "Classify")
        response = await inference.classify(
            version, request, run, max_tensor_bytes=self._max_tensor_bytes, check_method=self._check_methods
        )
        self.metrics.count_examples(request.model_spec.name, len(response.result.classifications))
        self._log(request_log.CLASSIFY, version, request, response)
        return response

    async def regress(self, request: Any) -> Any:
        version = self._find(request)
        run = self._runner(version.model_name, "Regress")
        response = await inference.regress(
            version, request, run, max_tensor_bytes=self._max_tensor_bytes, check_method=self._check_methods
        )
        self.metrics.count_examples(request.model_spec.name, len(response.result.regressions))
        self._log(request_log.REGRESS, version, request, response)
        return response

    async def multi_inference(self, request: Any) -> Any:
        version = self.manager.get(inference.choose_model(request))
        run = self._runner(version.model_name, "MultiInference")
        response = await inference.multi_inference(
            version, request, run, max_tensor_bytes=self._max_tensor_bytes, check_method=self._check_methods
        )
        given = request.input
        num_examples = len(given.example_list.examples) + len(given.example_list_with_context.examples)
        self.metrics.count_examples(version.model_name, num_examples)
        self._log(request_log.MULTI_INFERENCE, version, request, response)
        return response

    async def get_model_metadata(self, request: Any) -> Any:
        _need_spec(request)
        inference.check_metadata_fields(request)
        return inference.get_metadata(self._find(request))

    async def get_model_status(self, request: Any) -> Any:
        _need_spec(request)
        response = get_model_status_pb2.GetModelStatusResponse()
        for version in self.manager.status(request.model_spec):
            status = response.model_version_status.add(version=version.number, state=version.state)
            status.status.error_code = version.error.code.value[0] if version.error else 0
            status.status.error_message = version.error.message if version.error else ""
        return response

    async def reload_config(self, request: Any) -> Any:
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
                "supported"
            )
        await self.manager.configure(model_config.from_proto(request.config))
        return model_management_pb2.ReloadConfigResponse()

    async def counted(
        self, work: Awaitable[T], *, model_name: str, api: str, entrypoint: str, timeout_s: float | None
    ) -> T:
        """Await a request's work, in time, and count how it went.

        Args:
            work: the request's.
            model_name: which the request names.
            api: `Predict` over gRPC, `predict` over REST, and so on: the labels of TensorFlow Serving's metrics.
            entrypoint: `GRPC` or `REST`.
            timeout_s: after which the work is cancelled, and a model's run for it ended; `None` waits.

        Raises:
            StatusError: what the work raises, or DEADLINE_EXCEEDED.
        """
        start = time.perf_counter()
        code = Code.INTERNAL
        _deadline_s.set(FOREVER if timeout_s is None else time.monotonic() + timeout_s)
        try:
            # The model's own end comes first, where it can: then nothing of the request is left at work.
            result = await asyncio.wait_for(work, timeout_s and timeout_s + _END_S)
            code = Code.OK
            return result
        except asyncio.TimeoutError as exc:
            code = Code.DEADLINE_EXCEEDED
            raise StatusError(code, "Timed out waiting for notification") from exc
        except StatusError as exc:
            code = exc.code
            # Its frames hold all that was sent, and refer to it in a circle that would keep them for minutes.
            raise exc.with_traceback(None)  # noqa: B904
        except asyncio.CancelledError:
            code = Code.CANCELLED
            raise
        finally:
            # A name that is not served would let callers make as many counters as they like.
            name = model_name if self.manager.knows(model_name) else ""
            self.metrics.count_request(name, code, api, entrypoint, time.perf_counter() - start)

    def _log(self, kind: str, version: Version, request: Any, response: Any) -> None:
        if self._request_log:
            self._request_log.add(kind, version, request, response)

    def _runner(self, model_name: str, api: str) -> inference.Run:
        """Return a function that runs a model and times it, its wait for a batch included."""
        latency = self.metrics.runtime_latency

        async def run(servable: Servable, feeds: Mapping[str, Array], fetches: Sequence[str]) -> list[Array]:
            start = time.perf_counter()
            outputs = await self._scheduler.run(servable, feeds, fetches, _deadline_s.get())
            latency.labels(model_name, api, servable.runtime).observe((time.perf_counter() - start) * 1e6)
            return outputs

        return run

    def _find(self, request: Any) -> Version:
        _need_spec(request)
        return self.manager.get(request.model_spec)


def _need_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
