"""HTTP/1.1 as it comes over the wire: heads cut anywhere, several requests in a packet, and heads without an end."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from serving.shared.process import take_port
from tests.serving.local_server.conftest import CALL_S, Server, linux

BODY = b'{"instances": [1.0]}'
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
KNOWN = b"POST /v1/models/default:predict HTTP/1.1\r\nHost: x\r\n" + OFFER + b"Content-Length: 20\r\n\r\n" + BODY
CHUNKED = (
    b"POST /v1/models/default:predict HTTP/1.1\r\nHost: x\r\n"
    + OFFER
    + b"Transfer-Encoding: chunked\r\n\r\n6;why=so\r\n"
    + BODY[:6]
    + b"\r\ne\r\n"
    + BODY[6:]
    + b"\r\n0\r\nTrailer: t\r\n\r\n"
)
BLOCK = b"x" * (1 << 20)
NUM_BLOCKS = 400


@pytest.fixture
def connection(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=CALL_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


def read_responses(connection: socket.socket, count: int) -> list[tuple[int, object]]:
    """Return the status and the JSON of the next responses."""
    found = []
    with connection.makefile("rb") as file:
        for _ in range(count):
            status = int(file.readline().split()[1])
            headers = dict(line.lower().split(b":", 1) for line in iter(file.readline, b"\r\n"))
            found.append((status, json.loads(file.read(int(headers[b"content-length"])))))
    return found


@pytest.mark.parametrize("request_bytes", [KNOWN, CHUNKED], ids=["length", "chunks"])
def test_an_offer_of_another_protocol_costs_no_body_wherever_packets_are_cut(
    server: Server, request_bytes: bytes
) -> None:
    for at in range(1, len(request_bytes), 7):
        with socket.create_connection(("127.0.0.1", server.rest_port), timeout=CALL_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(request_bytes[:at])
            # The server has read the first part when it has answered on another connection that came later.
            assert server.get("/v1/models/default")[0] == 200
            connection.sendall(request_bytes[at:])
            assert read_responses(connection, 1) == [(200, {"predictions": [2.5]})]


def test_requests_may_come_in_one_packet(connection: socket.socket) -> None:
    connection.sendall(b"\r\n" + KNOWN * 300 + CHUNKED + KNOWN + b"\r\n" + CHUNKED * 2 + KNOWN)
    assert read_responses(connection, 305) == [(200, {"predictions": [2.5]})] * 305


def test_a_head_behind_chunks_is_one_wherever_packets_are_cut(server: Server) -> None:
    # One has content with blank lines and what looks like the end of the chunks, and no trailers.
    content = b"\r\n\r\n" + BODY.replace(b" ", b" \r\n\r\n ")
    head = CHUNKED[: CHUNKED.index(b"6;why")]
    chunks = b"4\r\n" + content[:4] + b"\r\n%x\r\n" % len(content[4:]) + content[4:] + b"\r\n0\r\n\r\n"
    for request in (head + chunks, CHUNKED):
        both = request + KNOWN
        for at in range(len(request) - 12, len(request) + len(OFFER), 5):
            with socket.create_connection(("127.0.0.1", server.rest_port), timeout=CALL_S) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.sendall(both[:at])
                assert server.get("/v1/models/default")[0] == 200
                connection.sendall(both[at:])
                assert read_responses(connection, 2) == [(200, {"predictions": [2.5]})] * 2


def test_a_body_in_tiny_chunks_costs_no_seconds(connection: socket.socket) -> None:
    padding = b"1\r\n \r\n" * 300_000 + b"%x\r\n" % (1 << 20) + b"\r\n\r\n" * (1 << 18) + b"\r\n"
    start = time.monotonic()
    connection.sendall(CHUNKED.replace(b"6;why", padding + b"6;why"))
    assert read_responses(connection, 1) == [(200, {"predictions": [2.5]})]
    assert time.monotonic() - start < 10


def test_who_leaves_in_the_middle_of_a_large_response_leaves_nothing_behind(server: Server) -> None:
    text = b'"' + b"x" * (20 << 20) + b'"'
    body = b'{"signature_name": "string", "instances": [' + text + b"]}"
    head = b"POST /v1/models/echo:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    num_tracebacks = server.log().count("Traceback")
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.rest_port), timeout=CALL_S) as connection:
            connection.sendall(head + body)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")
    response = server.request("POST", "/v1/models/echo:predict", body)
    assert response.content == b'{"predictions":[' + text + b"]}"
    assert server.log().count("Traceback") == num_tracebacks


@linux
def test_what_keeps_coming_behind_a_request_takes_no_memory(server: Server, connection: socket.socket) -> None:
    connection.settimeout(0.5)
    before = server.memory_bytes()
    # The model `block` responds when it is told to.
    body = b'{"instances": [1.0]}'
    head = f"POST /v1/models/block:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    with suppress(TimeoutError):
        for _ in range(NUM_BLOCKS):
            connection.sendall(b"GET /v1/models/default HTTP/1.1\r\n\r\n" * 20_000)
        pytest.fail("400 MB were taken")
    assert server.memory_bytes() - before <= 2 << 20
    assert server.predict("block", signature_name="release", instances=[1.0])[0] == 200
    connection.settimeout(CALL_S)
    (first, second) = read_responses(connection, 2)
    assert first == (200, {"predictions": [1.0]})
    assert second[0] == 200


@linux
@pytest.mark.parametrize(
    ("start", "block", "status"),
    [
        (b"GET /v1/models/default HTTP/1.1\r\n", b"X-Some: " + b"x" * 1000 + b"\r\n", b"431"),
        (b"GET /v1/models/default HTTP/1.1\r\nX-Long: ", BLOCK, b"431"),
        (b"GET /", BLOCK, b"414"),
        (b"\r\nGET /v1/models/default HTTP/1.1\r\nX-Long: a", b" " + BLOCK[1:], b"431"),
        (CHUNKED[: CHUNKED.index(b"6;why")] + b"6;why=", BLOCK, b""),
        (CHUNKED[: CHUNKED.index(b"Trailer")] + b"Trailer: ", BLOCK, b""),
        (CHUNKED[: CHUNKED.index(b"Trailer")], b"X-Some: " + b"x" * 1000 + b"\r\n", b""),
    ],
    ids=["lines", "line", "path", "behind a blank line", "extension", "trailer", "trailers"],
)
def test_a_head_without_an_end_is_refused_and_takes_no_memory(
    server: Server, connection: socket.socket, start: bytes, block: bytes, status: bytes
) -> None:
    for _ in range(3):  # what a connection takes once is there by then
        assert server.get("/v1/models/default")[0] == 200
    before = server.memory_bytes()
    connection.sendall(start)
    with suppress(ConnectionError):
        for _ in range(NUM_BLOCKS * len(BLOCK) // len(block)):
            connection.sendall(block)
        pytest.fail("400 MB were taken")
    with suppress(ConnectionError):
        assert connection.recv(1000)[9:12] in (status, b"")
    assert server.memory_bytes() - before <= 1 << 20


def test_a_head_of_many_headers_is_taken(server: Server) -> None:
    headers = {f"X-{i}": "x" * 1000 for i in range(50)}
    assert server.request("GET", "/v1/models/default", headers=headers).status_code == 200


def test_what_is_no_http_is_refused_at_once(connection: socket.socket) -> None:
    connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00")  # how TLS begins
    assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_all_addresses_are_those_of_ipv6_too() -> None:
    with closing(take_port("0.0.0.0", 0)) as taken:
        taken.listen()
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, taken.getsockname()[1]), timeout=CALL_S):
                pass
        with pytest.raises(OSError, match="in use"):
            take_port("0.0.0.0", taken.getsockname()[1]).listen()
