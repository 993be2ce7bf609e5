"""Run uvicorn on a socket that is already bound, started and stopped by the caller instead of by signals."""

import asyncio
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import httptools
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

_GOODBYE_S = 0.5
_MAX_HEAD_BYTES = 1 << 16
_END_OF_HEAD = b"\r\n\r\n"
_UPGRADE = re.compile(rb"\r\nUpgrade:", re.IGNORECASE)


class HttpServer:
    """An HTTP server.

    Args:
        app: responds to the requests.
        bound: the socket to listen on.
        context: for TLS; `None` listens without.
        head_timeout_s: a client may take so long for a request's head.
        grace_s: what was accepted gets so long to finish when the server is stopped.
        max_connections: with one more, the one that has waited longest for a request is closed; `None` is no limit.
    """

    def __init__(
        self,
        app: Starlette,
        bound: socket.socket,
        context: ssl.SSLContext | None,
        *,
        head_timeout_s: float,
        grace_s: float,
        max_connections: int | None = None,
    ) -> None:
        connections = _Connections(max_connections)
        config = uvicorn.Config(
            _Ending(app),
            http=partial(_Http, head_timeout_s=head_timeout_s, connections=connections),  # type: ignore[arg-type]
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


class _Ending:
    """Respond to a request that outlives the grace period, instead of dying with it."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def note_and_send(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, note_and_send)
        except asyncio.CancelledError:
            if not has_begun:
                error = {"error": "The server is ending. Ask another one, or try again later."}
                await JSONResponse(error, 503, {"Connection": "close"})(scope, receive, send)


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


class _Connections:
    """All connections of a server. Those without a request under way make room for new ones, the oldest first."""

    def __init__(self, max_connections: int | None) -> None:
        self._max_connections = max_connections
        self._all: set[_Http] = set()
        self._waiting: dict[_Http, None] = {}

    def add(self, connection: "_Http") -> None:
        self._all.add(connection)
        if self._max_connections and len(self._all) > self._max_connections and self._waiting:
            oldest = next(iter(self._waiting))
            self.remove(oldest)
            oldest.transport.abort()

    def remove(self, connection: "_Http") -> None:
        self._all.discard(connection)
        self._waiting.pop(connection, None)

    def note(self, connection: "_Http", *, is_waiting: bool) -> None:
        self._waiting.pop(connection, None)
        if is_waiting and connection in self._all:
            self._waiting[connection] = None


class _Http(HttpToolsProtocol):
    """HTTP/1.1 with the bounds that uvicorn lacks.

    A head may take some time, and 64 KiB. What comes behind a request waits until that has its response. A connection
    without a request under way is closed after a while, whatever else comes over it.

    A client may offer another protocol, as Java's does with every request (`Upgrade: h2c`). The parser takes what
    follows such a head for that protocol, and the request's body would be lost: so the offer is not read. To find it
    wherever packets are cut, a head goes to the parser as a whole.
    """

    def __init__(self, *args: Any, head_timeout_s: float, connections: _Connections, **options: Any) -> None:
        super().__init__(*args, **options)
        self._connections = connections
        self._head_timeout_s = head_timeout_s
        self._head_timer: asyncio.TimerHandle | None = None
        # What has come of the next head; `None` while a body is read.
        self._head: bytearray | None = bytearray()
        # Of a body whose length is known.
        self._num_left: int | None = None
        # The last bytes of a body in chunks: a blank line may have begun with them.
        self._last = b""
        # What a body in chunks has taken since the last byte of content: sizes, extensions, trailers.
        self._num_framing = 0
        # Of a body, parts that the request has not got yet: it gets those of a packet at once.
        self._content: list[bytes] = []
        # What came behind a request that has no response yet.
        self._later = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._connections.add(self)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        while data and not self.transport.is_closing():
            if self._head is None:
                data = self._receive_body(data)
            elif self._is_busy():
                self._later += data
                self.flow.pause_reading()
                return
            else:
                data = self._receive_head(self._head, data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is not None:  # else a trailer, which nobody reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_timer()
        self._connections.note(self, is_waiting=False)
        found = dict(self.headers)
        self._head, self._last = None, b""
        self._num_left = None if b"transfer-encoding" in found else int(found.get(b"content-length", 0))
        self._num_framing = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._num_framing = 0
        if self._num_left is not None:
            self._num_left -= len(body)
        self._content.append(body)

    def on_message_complete(self) -> None:
        self._hand_on()
        self._head = bytearray()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._connections.note(self, is_waiting=True)
        later, self._later = self._later, b""
        self.data_received(later)

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _receive_head(self, head: bytearray, data: bytes) -> bytes:
        """Take data until a head is whole, and give it to the parser; return what follows it."""
        if not head:
            data = data.lstrip(b"\r\n")
            if not data:
                return b""
            self._unset_keepalive_if_required()
            self._expect_head()
        searched = max(0, len(head) - len(_END_OF_HEAD) + 1)
        head += data
        end = head.find(_END_OF_HEAD, searched)
        end = end + len(_END_OF_HEAD) if end >= 0 else len(head)
        if end > _MAX_HEAD_BYTES:
            self._refuse(431 if b"\r\n" in head[:_MAX_HEAD_BYTES] else 414)
            return b""
        # What does not even begin like HTTP is refused at once.
        if not head.endswith(_END_OF_HEAD, 0, end) and head[:1].isalpha():
            return b""
        self._head = bytearray()
        self._parse(_UPGRADE.sub(b"\r\nDeclined-Upgrade:", head[:end]))
        return bytes(head[end:])

    def _receive_body(self, data: bytes) -> bytes:
        """Give a body's data to the parser; return what follows it."""
        start = 0
        while self._head is None and start < len(data) and not self.transport.is_closing():
            end = self._find_end(data, start)
            self._num_framing += end - start
            self._parse(data[start:end])
            if self._num_framing > _MAX_HEAD_BYTES and self._head is None:
                self._refuse(431)
            start = end
        self._hand_on()
        return data[start:]

    def _hand_on(self) -> None:
        if self._content:
            super().on_body(b"".join(self._content))
            self._content = []

    def _find_end(self, data: bytes, start: int) -> int:
        """Return where a body ends, if it ends in `data`: in chunks it may, with any blank line."""
        if self._num_left is not None:
            return start + self._num_left
        known = self._last
        if _END_OF_HEAD in (overlap := known + data[start : start + len(_END_OF_HEAD) - 1]):
            end = start - len(known) + overlap.index(_END_OF_HEAD) + len(_END_OF_HEAD)
        else:
            end = data.find(_END_OF_HEAD, start)
            end = end + len(_END_OF_HEAD) if end >= 0 else len(data)
        self._last = (known + data[max(start, end - len(_END_OF_HEAD)) : end])[1 - len(_END_OF_HEAD) :]
        return end

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the method CONNECT, which has its response like any other
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def _refuse(self, status: int) -> None:
        """End the connection, with a response where none is under way."""
        if not self._is_busy():
            head = STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n"
            self.transport.write(head)
        self.transport.close()

    def _expect_head(self) -> None:
        self._stop_timer()
        self._connections.note(self, is_waiting=True)
        self._head_timer = self.loop.call_later(self._head_timeout_s, self.timeout_keep_alive_handler)

    def _stop_timer(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
