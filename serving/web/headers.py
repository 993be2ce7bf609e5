"""The headers of every response: they keep a browser from doing more than the page needs."""

import time
from collections.abc import Awaitable, Callable

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.web.metrics import Metrics

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}
MODEL_POLICY = HEADERS["Content-Security-Policy"].replace(
    "script-src 'self'", "script-src 'self' 'wasm-unsafe-eval'; manifest-src 'self'"
)
"""Of a page that runs the model itself, by WebAssembly, and can be installed."""

_NO_STORE = "no-store"
_UNKNOWN = "other"


class Headers:
    """Adds the headers, and counts each request once its response starts, also where the application failed.

    What a response sets itself stays. One without a `Cache-Control` of its own is not stored anywhere.

    Args:
        app: responds to the requests.
        metrics: counts them; `None` counts none.
        respond_to_failure: responds to a request whose handling raised an exception, which goes on to the log.
        policy: the Content-Security-Policy.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics | None,
        respond_to_failure: Callable[[Request, Exception], Awaitable[Response]],
        policy: str = HEADERS["Content-Security-Policy"],
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._respond_to_failure = respond_to_failure
        self._headers = {**HEADERS, "Content-Security-Policy": policy}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start_s = time.perf_counter()
        is_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", _NO_STORE)
                if self._metrics:
                    route = getattr(scope.get("route"), "path", _UNKNOWN)
                    self._metrics.requests.labels(route, message["status"]).inc()
                    self._metrics.request_seconds.labels(route).observe(time.perf_counter() - start_s)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as exc:
            if not is_started:
                response = await self._respond_to_failure(Request(scope), exc)
                await response(scope, receive, send_with_headers)
            raise
