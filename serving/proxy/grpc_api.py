"""gRPC: every unary call goes to the server as it came, Predict by way of the plan."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from client.classifier_client.transports import prediction_pb2 as pb
from serving.proxy.forwarding import Forwarder, Result
from serving.proxy.predictions import Prediction, to_predictions
from serving.proxy.rest_api import UNKNOWN_LABEL

_SERVICE = "/tensorflow.serving.PredictionService/"
_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
# Of `ModelSpec`: the oneof's `version_label`, which the client's own messages lack.
_LABEL_NUMBER, _BYTES = 4, 2
_FAULTS = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)


class GrpcProxy:
    """The gRPC side of the proxy; the arguments are those of `RestProxy`, and where it listens."""

    def __init__(
        self,
        forwarder: Forwarder,
        server: str,
        *,
        listens_on: str,
        model_name: str,
        stable_label: str,
        timeout_s: float,
        tls: bool = False,
        ca_file: Path | None = None,
    ) -> None:
        self._forwarder = forwarder
        self._model_name, self._label, self._timeout_s = model_name, stable_label, timeout_s
        if tls:
            credentials = grpc.ssl_channel_credentials(ca_file.read_bytes() if ca_file else None)
            self._channel = grpc.aio.secure_channel(server, credentials, options=_OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(server, options=_OPTIONS)
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers((_Everything(self),))
        self._server.add_insecure_port(listens_on)

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Refuse new requests, and wait this long for those at work."""
        await self._server.stop(grace_s)
        await self._channel.close()

    async def handle(self, method: str, body: bytes, context: Any) -> bytes:
        """Return the response to a call, or end it with the server's error."""
        managed = method in (f"{_SERVICE}Predict", f"{_SERVICE}GetModelMetadata")
        request = _parse(method, body) if managed else None
        response = await (
            self._choose(method, body, request, context) if request else self._pass(method, body, context)
        )
        if isinstance(response, grpc.aio.AioRpcError):
            await context.abort(response.code(), response.details())
        return response

    async def _pass(self, method: str, body: bytes, context: Any) -> Any:
        return (await self._send(method, body, context)).response

    async def _choose(self, method: str, body: bytes, request: Any, context: Any) -> Any:
        spec, plan = request.model_spec, self._forwarder.board.plan
        label = _read_label(spec)
        number = spec.version.value if spec.HasField("version") else None
        is_free = label in (None, self._label.encode()) and number is None
        if spec.name != self._model_name or not (is_free or (plan and number == plan.stable)):
            return await self._pass(method, body, context)

        async def call(version: int | None) -> Result:
            if version is None and not is_free:
                return await self._send(method, body, context)
            # A message that follows another one is merged with it: the last choice of a version counts.
            result = await self._send(method, body + _choice(version, self._label), context)
            details = "" if result.is_ok else result.response.details() or ""
            if label is None and UNKNOWN_LABEL in details:
                return await self._send(method, body, context)  # before the first release there are no labels
            return result

        if not method.endswith("/Predict"):
            return (await call(plan.stable if plan else None)).response
        return await self._forwarder.forward(call, partial(_read_photos, request), left_s=context.time_remaining())

    async def _send(self, method: str, body: bytes, context: Any) -> Result:
        metadata = [(key, value) for key, value in context.invocation_metadata() or () if not _is_own(key)]
        left_s = context.time_remaining()
        timeout_s = self._timeout_s if left_s is None else min(left_s, self._timeout_s)
        try:
            send: Any = self._channel.unary_unary(method)
            response = await send(body, timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as exc:
            return Result(exc, False, exc.code() in _FAULTS, list)
        return Result(response, True, False, partial(_read_predictions, response))


class _Everything(grpc.GenericRpcHandler):
    def __init__(self, proxy: GrpcProxy) -> None:
        self._proxy = proxy

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(partial(self._proxy.handle, handler_call_details.method))


def _is_own(key: str) -> bool:
    """Return whether metadata is about the connection to the proxy, and not for the server."""
    return key.startswith(("grpc-", ":")) or key in ("user-agent", "te", "content-type")


def _parse(method: str, body: bytes) -> Any:
    """Return a request's message; `None` where it is none, and the server says so."""
    try:
        return (pb.PredictRequest if method.endswith("/Predict") else pb.ModelMetadataRequest).FromString(body)
    except DecodeError:
        return None


def _read_label(spec: Any) -> bytes | None:
    """Return the label, the last one that is there; it need not be text, which the server refuses."""
    unknown = UnknownFieldSet(spec)
    fields = [unknown[index] for index in range(len(unknown))]
    found = [field.data for field in fields if field.field_number == _LABEL_NUMBER and field.wire_type == _BYTES]
    return found[-1] if found else None


def _choice(version: int | None, label: str) -> bytes:
    """Return the bytes that choose a version, or the label, in a message whose first field is a `ModelSpec`."""
    if version is not None:
        return pb.PredictRequest(model_spec=pb.ModelSpec(version=pb.Version(value=version))).SerializeToString()
    text = label.encode()
    spec = bytes([_LABEL_NUMBER << 3 | 2, len(text)]) + text
    return bytes([1 << 3 | 2, len(spec)]) + spec


def _read_photos(request: Any) -> list[str]:
    """Return the SHA-256 of each photo: of the encoded image, or of its pixels."""
    if len(request.inputs) != 1:
        return []
    (tensor,) = request.inputs.values()
    if tensor.string_val:
        return [hashlib.sha256(value).hexdigest() for value in tensor.string_val]
    num_photos = tensor.tensor_shape.dim[0].size if tensor.tensor_shape.dim else 0
    content = tensor.tensor_content
    if not 0 < num_photos <= len(content):
        return [hashlib.sha256(tensor.SerializeToString(deterministic=True)).hexdigest()] if num_photos == 1 else []
    size = len(content) // num_photos
    return [hashlib.sha256(content[k * size : (k + 1) * size]).hexdigest() for k in range(num_photos)]


def _read_predictions(response: bytes) -> list[Prediction]:
    try:
        outputs = pb.PredictResponse.FromString(response).outputs
        num_photos = outputs["classes"].tensor_shape.dim[0].size
        names = _rows([name.decode() for name in outputs["classes"].string_val], num_photos)
        known = list(outputs["is_known"].bool_val) if "is_known" in outputs else None
        values = {"classes": names, "probabilities": _rows(outputs["probabilities"].float_val, num_photos)}
        return to_predictions(values | {"is_known": known})
    except (DecodeError, LookupError, ValueError):
        return []


def _rows(values: Sequence[Any], num_rows: int) -> list[Sequence[Any]]:
    width = len(values) // num_rows
    return [values[number * width : (number + 1) * width] for number in range(num_rows)]
