"""REST: TensorFlow Serving's paths under /v1/, its metrics, and a /healthz that does not depend on any model."""

import asyncio
import json
import logging
import re
import zlib
from collections.abc import AsyncIterator, Coroutine
from contextlib import ExitStack, asynccontextmanager
from typing import Any
from urllib.parse import unquote

from google.protobuf import json_format as proto_json
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)

from serving.local_server import inference, json_responses
from serving.local_server.errors import HTTP_STATUS, Code, StatusError, invalid_argument
from serving.local_server.json_bodies import LARGE_BODY_BYTES, MANY_VALUES, Bodies, convert
from serving.local_server.servable import DEFAULT_SIGNATURE
from serving.local_server.service import Service

log = logging.getLogger(__name__)

_VERSION = r"(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?"
_INFERENCE = re.compile(rf"/v1/models/([^/:]+){_VERSION}:(classify|regress|predict)", re.IGNORECASE)
_STATUS = re.compile(rf"/v1/models(?:/([^/:]+))?{_VERSION}(?:/(metadata))?", re.IGNORECASE)
_PAGE = re.compile("https?://")
_CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
_TOO_LARGE = 413
_MAX_SHOWN_CHARS = 100
_MAX_VERSION_DIGITS = 19


class _TooLargeError(StatusError):
    def __init__(self, limit: int) -> None:
        super().__init__(
            Code.RESOURCE_EXHAUSTED,
            f"A request body may take {limit} bytes, unpacked. Send less at once, or raise --max_request_bytes.",
        )


class _LargeResponse(Response):
    """A response that is sent in parts: each waits until the connection has taken the one before, others run between.

    To send it at once would copy all of it on the event loop, twice.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for start in range(0, len(self.body), LARGE_BODY_BYTES):
            part = self.body[start : start + LARGE_BODY_BYTES]
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})


class RestApi:
    """The REST API.

    Args:
        service: handles the requests.
        timeout_s: for one request; `None` for no end.
        max_body_bytes: of one request, unpacked; all requests at once may take eight times as much.
        metrics_path: where Prometheus reads; empty for nowhere.
        enable_cors: let pages of other sites call.
    """

    def __init__(
        self, service: Service, *, timeout_s: float | None, max_body_bytes: int, metrics_path: str, enable_cors: bool
    ) -> None:
        self._service = service
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._bytes_left = 8 * max_body_bytes
        self._bodies = Bodies()
        self._headers = _CORS_HEADERS if enable_cors else {}
        routes = [Route("/healthz", _healthz, methods=["GET"])]
        if metrics_path:
            routes.append(Route(metrics_path, self._show_metrics, methods=["GET"]))
        routes.append(Route("/{path:path}", self._handle, methods=_METHODS))
        self.app = Starlette(routes=routes)

    async def _show_metrics(self, request: Request) -> Response:
        return Response(self._service.metrics.page(), media_type="text/plain")

    async def _handle(self, request: Request) -> Response:
        path = request.scope.get("raw_path", request.url.path.encode()).decode("latin-1").partition("?")[0]
        if query := request.scope["query_string"].decode("latin-1"):
            path = f"{path}?{query}"  # to TensorFlow Serving a part of the path, which no path of its own has
        if not path.lower().startswith("/v1/"):
            return Response("Not Found", status_code=404, media_type="text/plain")
        if request.method == "OPTIONS":
            # A browser asks for a page, and says whose; without the flag the headers that permit it are missing.
            status = 200 if _PAGE.search(request.headers.get("origin", "")) else HTTP_STATUS[Code.FAILED_PRECONDITION]
            return Response(status_code=status, headers=self._headers)
        status = 200
        try:
            body = await self._dispatch(request, path)
        except StatusError as exc:
            # Not the message, which may quote what was sent.
            log.debug("%s %s: %s", request.method, path[:_MAX_SHOWN_CHARS], exc.code.name)
            status = _TOO_LARGE if isinstance(exc, _TooLargeError) else HTTP_STATUS[exc.code]
            body = json_responses.write_error(exc.message)
        except Exception:
            log.exception("%s %s failed", request.method, path[:_MAX_SHOWN_CHARS])
            status, body = 500, json_responses.write_error("the server failed; its log says more")
        # Who was too slow to send a request is not waited for any longer.
        headers = self._headers | ({"Connection": "close"} if status == HTTP_STATUS[Code.DEADLINE_EXCEEDED] else {})
        kind = _LargeResponse if len(body) > LARGE_BODY_BYTES else Response
        return kind(body, status_code=status, media_type="application/json", headers=headers)

    async def _dispatch(self, request: Request, path: str) -> bytes:
        # The path may be written in capitals, but for the method's name.
        if request.method == "POST" and (match := _INFERENCE.fullmatch(path)) and match[4].islower():
            spec, api = _read_spec(match), match[4]
            work = self._infer(request, spec, api)
        elif request.method == "GET" and (match := _STATUS.fullmatch(path)):
            spec, api = _read_spec(match), match[4] if match[4] == "metadata" else "status"
            work = self._describe(spec, api)
        else:
            spec, api, work = model_pb2.ModelSpec(), "", _refuse(f"Malformed request: {request.method} {path}")
        return await self._service.counted(
            work, model_name=spec.name, api=api, entrypoint="REST", timeout_s=self._timeout_s
        )

    async def _describe(self, spec: Any, api: str) -> bytes:
        if not spec.name:
            raise invalid_argument("Missing model name in request.")
        if api == "status":
            status_request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
            return _write_proto(_to_dict(await self._service.get_model_status(status_request)))
        response = await self._service.get_model_metadata(
            get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        )
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        # Not the `Any` itself, which names its type: TensorFlow Serving writes the plain map.
        return _write_proto(
            {"model_spec": _to_dict(response.model_spec), "metadata": {"signature_def": _to_dict(signatures)}}
        )

    async def _infer(self, request: Request, spec: Any, api: str) -> bytes:
        async with self._read(request) as body:
            work = self._predict(spec, body) if api == "predict" else self._run_examples(spec, api, body)
            return await _unless_hung_up(request, work)

    @asynccontextmanager
    async def _read(self, request: Request) -> AsyncIterator[bytes]:
        """Read the body of a request, unpacked; what is too large is read to its end and dropped.

        A response to a client that still sends would reach it as a broken connection, unless it waits for leave to
        send.
        """
        gzipped = "gzip" in request.headers.get("content-encoding", "").lower()
        unpack = zlib.decompressobj(16 + zlib.MAX_WBITS) if gzipped else None
        chunks: list[bytes] = []
        num_bytes = 0
        refusal: StatusError | None = None
        if int(request.headers.get("content-length", 0)) > self._max_body_bytes:
            refusal = _TooLargeError(self._max_body_bytes)
            if request.headers.get("expect", "").lower() == "100-continue":
                raise refusal
        try:
            async for chunk in request.stream():
                if refusal:
                    continue
                part = chunk
                if unpack and chunk:
                    # What follows the end is refused: it would be kept, and not be counted.
                    is_over = unpack.eof
                    part = await asyncio.to_thread(unpack.decompress, chunk, self._max_body_bytes + 1)
                    if is_over or unpack.unused_data:
                        refusal = invalid_argument("Failed to gunzip the request body: more follows its end")
                num_bytes += len(part)
                self._bytes_left -= len(part)
                chunks.append(part)
                refusal = refusal or self._find_excess(num_bytes)
                if refusal:
                    chunks.clear()
                    self._bytes_left += num_bytes
                    num_bytes = 0
            if refusal:
                raise refusal
            if unpack and not unpack.eof:
                raise invalid_argument("Failed to gunzip the request body: it ends too early")
            body = await asyncio.to_thread(b"".join, chunks) if num_bytes >= LARGE_BODY_BYTES else b"".join(chunks)
            chunks.clear()
            yield body
        except zlib.error as exc:
            raise invalid_argument(f"Failed to gunzip the request body: {exc}") from exc
        except ClientDisconnect as exc:
            raise StatusError(Code.CANCELLED, "the client hung up") from exc
        finally:
            self._bytes_left += num_bytes

    def _find_excess(self, num_bytes: int) -> StatusError | None:
        """Return the error for a body that has become too large, alone or with all others."""
        if num_bytes > self._max_body_bytes:
            return _TooLargeError(self._max_body_bytes)
        if self._bytes_left < 0:
            return StatusError(Code.UNAVAILABLE, "Too many large requests at once. Try again later.")
        return None

    async def _predict(self, spec: Any, body: bytes) -> bytes:
        with ExitStack() as stack:
            async with self._bodies.read(body) as document:
                spec.signature_name = document.signature_name
                version = self._service.manager.get(spec)
                servable = stack.enter_context(version.lease())
                name = spec.signature_name or DEFAULT_SIGNATURE
                signature = servable.signatures.get(name)
                if signature is None:
                    raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
                if not signature.inputs:
                    raise invalid_argument(f"Failed to get input map for signature: {spec.signature_name or 'DEFAULT'}")
                inference.check_inputs(signature)
                inputs, rows = await document.read_inputs(signature.inputs)
                del document
            outputs = await self._service.predict_arrays(version, name, signature, inputs)
        in_thread = sum(map(json_responses.count_values, outputs.values())) > MANY_VALUES
        return await convert(json_responses.write_predictions, outputs, rows=rows, in_thread=in_thread)

    async def _run_examples(self, spec: Any, api: str, body: bytes) -> bytes:
        kind = classification_pb2.ClassificationRequest if api == "classify" else regression_pb2.RegressionRequest
        async with self._bodies.read(body) as document:
            spec.signature_name = document.signature_name
            message = kind(model_spec=spec)
            await document.fill_examples(message.input)
            del document
        if api == "classify":
            result = (await self._service.classify(message)).result
            found = result.classifications
            in_thread = len(found) * len(found[0].classes) > MANY_VALUES
            return await convert(json_responses.write_classifications, result, in_thread=in_thread)
        result = (await self._service.regress(message)).result
        in_thread = len(result.regressions) > MANY_VALUES
        return await convert(json_responses.write_regressions, result, in_thread=in_thread)


async def _refuse(message: str) -> bytes:
    """Fail as a request's work does, and so be counted like one."""
    raise invalid_argument(message)


async def _healthz(request: Request) -> Response:
    return Response("ok\n", media_type="text/plain")


async def _unless_hung_up(request: Request, work: Coroutine[Any, Any, bytes]) -> bytes:
    """Await a request's work; when the client hangs up, cancel it: what still waits for the model is not computed."""
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_wait_for_hang_up(request))
    try:
        await asyncio.wait([working, watching], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise StatusError(Code.CANCELLED, "the client hung up")
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.wait([working, watching])


async def _wait_for_hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _read_spec(match: re.Match[str]) -> Any:
    spec = model_pb2.ModelSpec(name=unquote(match[1] or ""))
    if match[2]:
        digits = match[2].lstrip("0") or "0"
        if len(digits) > _MAX_VERSION_DIGITS or int(digits) >= 2**63:
            raise invalid_argument(f"Failed to convert version: {match[2]} to numeric.")
        spec.version.value = int(digits)
    if match[3]:
        spec.version_label = unquote(match[3])
    return spec


def _to_dict(message: Any) -> dict[str, Any]:
    return proto_json.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _write_proto(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=1).encode()
