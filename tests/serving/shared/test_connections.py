"""Connections that wait for a request make room for new ones."""

import socket
from collections.abc import Iterator

import pytest
from anyio.from_thread import start_blocking_portal
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from serving.shared.http_server import HttpServer
from serving.shared.process import take_port

TIMEOUT_S = 10
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def greet(request: Request) -> Response:
    return PlainTextResponse("hello")


@pytest.fixture
def port() -> Iterator[int]:
    """A server that takes three connections."""
    bound = take_port("127.0.0.1", 0)
    app = Starlette(routes=[Route("/", greet)])
    server = HttpServer(app, bound, None, head_timeout_s=TIMEOUT_S, grace_s=1, max_connections=3)
    with start_blocking_portal() as portal:
        portal.call(server.start)
        try:
            yield bound.getsockname()[1]
        finally:
            portal.call(server.stop)


def connect(port: int, content: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
    connection.sendall(content)
    return connection


def has_response(connection: socket.socket) -> bool:
    """Read a whole response. Return False where the connection is closed instead."""
    received = b""
    try:
        while not received.endswith(b"hello"):
            if not (piece := connection.recv(1000)):
                return False
            received += piece
    except ConnectionError:
        return False
    return received.startswith(b"HTTP/1.1 200")


def is_open(connection: socket.socket) -> bool:
    """Return whether a request on a connection has a response."""
    try:
        connection.sendall(REQUEST)
    except ConnectionError:
        return False
    return has_response(connection)


def test_the_one_that_has_waited_longest_makes_room(port: int) -> None:
    with connect(port, b"") as first, connect(port, b"") as second:
        # A connection with a response is one that the server has surely accepted.
        assert [is_open(first), is_open(second), is_open(first)] == [True, True, True]
        with connect(port, b"GET / HT") as third, connect(port, REQUEST) as new:
            assert has_response(new)
            assert [is_open(first), is_open(second)] == [True, False]
            third.sendall(REQUEST.removeprefix(b"GET / HT"))
            assert has_response(third)
