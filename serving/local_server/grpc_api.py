"""gRPC: PredictionService and ModelService of TensorFlow Serving, and gRPC's own health service."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    model_service_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
)

from serving.local_server.errors import Code, StartError, StatusError
from serving.local_server.service import Service

log = logging.getLogger(__name__)

_MAX_SHOWN_CHARS = 100
_SERVICE_NAMES = (
    prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name,
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
)


class GrpcApi:
    """The gRPC server.

    Args:
        service: handles the requests.
        addresses: to listen on, `host:port` or `unix:path`.
        credentials: for TLS; `None` listens without.
        channel_arguments: gRPC's own options.
        enable_reflection: let tools list the services.
    """

    def __init__(
        self,
        service: Service,
        addresses: Sequence[str],
        *,
        credentials: grpc.ServerCredentials | None,
        channel_arguments: Sequence[tuple[str, int | str]],
        enable_reflection: bool,
    ) -> None:
        self._server = grpc.aio.server(interceptors=[_Parsing()], options=channel_arguments)
        self._health = health.aio.HealthServicer()
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(service), self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Model(service), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if enable_reflection:
            names = [*_SERVICE_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME]
            reflection.enable_server_reflection(names, self._server)
        for address in addresses:
            try:
                # A socket is for processes of this machine, and the file's permissions guard it.
                if credentials is None or address.startswith("unix:"):
                    self._server.add_insecure_port(address)
                else:
                    self._server.add_secure_port(address, credentials)
            except RuntimeError as exc:
                flag = "--grpc_socket_path" if address.startswith("unix:") else "--port or --host"
                raise StartError(
                    f"The server listens for gRPC on {address}, and cannot; gRPC says why above. Choose another {flag}."
                ) from exc

    async def start(self) -> None:
        await self._server.start()
        for name in ("", *_SERVICE_NAMES):  # all of the server, and each service
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace_s: float) -> None:
        """Refuse new requests, and wait this long for those at work."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)


class _Parsing(grpc.aio.ServerInterceptor):
    """Refuse a request that is not a message as the client's error, not as a failure of the server."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        return handler and handler._replace(request_deserializer=partial(_parse, handler.request_deserializer))


def _parse(parse: Callable[[bytes], Any], body: bytes) -> Any:
    try:
        return parse(body)
    except DecodeError:
        return None


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, service: Service) -> None:
        self._service = service

    async def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _respond(self._service, self._service.predict, request, context, "Predict")

    async def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _respond(self._service, self._service.classify, request, context, "Classify")

    async def Regress(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _respond(self._service, self._service.regress, request, context, "Regress")

    async def MultiInference(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _respond(self._service, self._service.multi_inference, request, context, "MultiInference")

    async def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _respond(self._service, self._service.get_model_metadata, request, context, "GetModelMetadata")


class _Model(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, service: Service) -> None:
        self._service = service

    async def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _respond(self._service, self._service.get_model_status, request, context, "GetModelStatus")

    async def HandleReloadConfigRequest(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await _respond(self._service, self._service.reload_config, request, context, "HandleReloadConfigRequest")


async def _respond(
    service: Service, handle: Callable[[Any], Awaitable[Any]], request: Any, context: Any, api: str
) -> Any:
    if request is None:
        # gRPC's own code for it: github.com/grpc/grpc/blob/master/doc/statuscodes.md.
        await context.abort(Code.INTERNAL, "the request is not a valid protobuf message of its type")
    name = _name_model(request)
    try:
        return await service.counted(
            handle(request), model_name=name, api=api, entrypoint="GRPC", timeout_s=context.time_remaining()
        )
    except StatusError as exc:
        # Not the message, which may quote what was sent.
        log.debug("%s of model %r: %s", api, name[:_MAX_SHOWN_CHARS], exc.code.name)
        await context.abort(exc.code, exc.message)
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("%s of model %r failed", api, name[:_MAX_SHOWN_CHARS])
        await context.abort(Code.INTERNAL, "the server failed; its log says more")


def _name_model(request: Any) -> str:
    if hasattr(request, "tasks"):
        return request.tasks[0].model_spec.name if request.tasks else ""
    return request.model_spec.name if hasattr(request, "model_spec") else ""
