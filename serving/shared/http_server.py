"""Run uvicorn on a socket that is already bound, started and stopped by the caller instead of by signals."""

import asyncio
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_GOODBYE_S = 0.5
_UPGRADE = re.compile(rb"\r\nUpgrade:", re.IGNORECASE)


class HttpServer:
    """An HTTP server.

    Args:
        app: responds to the requests.
        bound: the socket to listen on.
        context: for TLS; `None` listens without.
        head_timeout_s: a client may take so long for a request's head.
        grace_s: what was accepted gets so long to finish when the server is stopped.
    """

    def __init__(
        self,
        app: Starlette,
        bound: socket.socket,
        context: ssl.SSLContext | None,
        *,
        head_timeout_s: float,
        grace_s: float,
    ) -> None:
        config = uvicorn.Config(
            app,
            http=partial(_Http, head_timeout_s=head_timeout_s),  # type: ignore[arg-type]
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=int(grace_s),
            # Longer than clients keep an idle connection, or they would send into one that is being closed.
            timeout_keep_alive=75,
        )
        config.load()
        config.ssl = context
        self._backlog = config.backlog
        self._socket = bound
        self._server = _Uvicorn(config)
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Accept requests from now on.

        Raises:
            OSError: another server listens on the port since it was bound.
        """
        self._socket.listen(self._backlog)
        self._running = asyncio.create_task(self._server.serve([self._socket]))
        while not self._server.started and not self._running.done():
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Accept no more requests, and give those in progress time to finish."""
        if self._running:
            self._server.should_exit = True
            await self._running


class _Uvicorn(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        ending = asyncio.create_task(super().shutdown(sockets))
        while not ending.done():
            await asyncio.wait([ending], timeout=_GOODBYE_S)
            # TLS closes when both sides agree, and a client that keeps its connection for later does not.
            for transport in [connection.transport for connection in self.server_state.connections]:
                if transport.is_closing() and not transport.get_write_buffer_size():
                    transport.abort()
        await ending


class _Http(HttpToolsProtocol):
    """HTTP/1.1 with a timeout that uvicorn lacks: a client that takes too long for the head of a request is cut off.

    A client may offer another protocol, as Java's does with every request (`Upgrade: h2c`). The parser takes what
    follows such a head for that protocol, and the request's body would be lost: so the offer is not read.
    """

    def __init__(self, *args: Any, head_timeout_s: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_timeout_s = head_timeout_s
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.cycle is None or not self.cycle.more_body:
            head, end, rest = data.partition(b"\r\n\r\n")
            data = _UPGRADE.sub(b"\r\nDeclined-Upgrade:", head) + end + rest
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._stop_timer()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        self._stop_timer()
        self._head_timer = self.loop.call_later(self._head_timeout_s, self.timeout_keep_alive_handler)

    def _stop_timer(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
