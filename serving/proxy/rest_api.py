"""REST: everything goes to the server as it came, predictions by way of the plan."""

import asyncio
import json
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from serving.proxy.forwarding import Forwarder, Result
from serving.proxy.predictions import read_rest_photos, read_rest_predictions

log = logging.getLogger(__name__)

UNKNOWN_LABEL = "Unrecognized servable version label"
"""In TensorFlow Serving's error where a model has no such label."""

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_NUM_THREADS = 160
_DROPPED = {"connection", "content-length", "content-encoding", "host", "keep-alive", "transfer-encoding", "expect"}


class RestProxy:
    """The REST side of the proxy.

    Args:
        forwarder: decides where predictions go.
        server: `host:port` of the server's REST API.
        model_name: whose requests are managed.
        stable_label: of the version that responds where a request names none.
        timeout_s: for the server.
        tls: speak TLS with the server, and check its certificate.
        ca_file: PEM certificates that vouch for the server instead of the system's; with `tls`.
    """

    def __init__(
        self,
        forwarder: Forwarder,
        server: str,
        *,
        model_name: str,
        stable_label: str,
        timeout_s: float,
        tls: bool = False,
        ca_file: Path | None = None,
    ) -> None:
        self._forwarder = forwarder
        self._url = f"http{'s' if tls else ''}://{server}"
        self._model = f"/v1/models/{quote(model_name, safe='')}"
        self._label = f"/labels/{quote(stable_label, safe='')}"
        self._path = re.compile(
            rf"{re.escape(self._model)}(/versions/\d+|{re.escape(self._label)})?(:predict|/metadata)"
        )
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="rest")
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(ca_file) if ca_file else True
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=_NUM_THREADS))
        self.app = Starlette(routes=[Route("/{path:path}", self._handle, methods=_METHODS)])

    def close(self) -> None:
        """Close the connections to the server."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    async def _handle(self, request: Request) -> Response:
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        path = request.scope.get("raw_path", request.url.path.encode()).decode("latin-1").partition("?")[0]
        query = request.scope["query_string"].decode("latin-1")
        found = None if query else self._path.fullmatch(path)
        plan = self._forwarder.board.plan
        names_stable = found and (found[1] in (None, self._label) or (plan and found[1] == f"/versions/{plan.stable}"))
        if not found or not names_stable:
            return (await self._send(request, body, f"{path}?{query}" if query else path)).response

        async def call(version: int | None) -> Result:
            if version is None and found[1] not in (None, self._label):
                return await self._send(request, body, path)
            chosen = self._label if version is None else f"/versions/{version}"
            result = await self._send(request, body, f"{self._model}{chosen}{found[2]}")
            if not result.is_ok and found[1] is None and UNKNOWN_LABEL.encode() in result.response.body:
                return await self._send(request, body, path)  # before the first release there are no labels
            return result

        if found[2] == "/metadata":
            return (await call(plan.stable if plan else None)).response
        return await self._forwarder.forward(
            call, partial(read_rest_photos, body, request.headers.get("content-encoding", ""))
        )

    async def _send(self, request: Request, body: bytes, path: str) -> Result:
        """Send a request to the server, in a thread; where it cannot be reached, that is the response."""
        headers = {
            name: value for name, value in request.headers.items() if name not in _DROPPED - {"content-encoding"}
        }
        headers["accept-encoding"] = "identity"
        send = partial(self._request, request.method, self._url + path, headers, body)
        return await asyncio.get_running_loop().run_in_executor(self._threads, send)

    def _request(self, method: str, url: str, headers: dict[str, str], body: bytes) -> Result:
        try:
            received = self._session.request(
                method, url, headers=headers, data=body, timeout=self._timeout_s, allow_redirects=False
            )
        except requests.RequestException as exc:
            log.warning("the server does not respond: %s", type(exc).__name__)
            error = {"error": f"The server behind the proxy does not respond ({type(exc).__name__}). Try again later."}
            return Result(Response(json.dumps(error), 503, media_type="application/json"), False, True, list)
        kept = {name: value for name, value in received.headers.items() if name.lower() not in _DROPPED}
        content, status = received.content, received.status_code
        return Result(
            Response(content, status, kept), received.ok, status >= 500, partial(read_rest_predictions, content)
        )
