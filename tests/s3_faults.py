"""A proxy before the tests' S3 server that does to requests what networks and busy stores do to them."""

import contextlib
import http.client
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

LATENCY_S = 0.3
FAULTS = {
    "latency": "each response comes 0.3 s later",
    "slow down": "503 Slow Down",
    "internal error": "500 InternalError",
    "cut download": "the connection ends in the middle of the response",
    "cut upload": "the connection ends in the middle of the request",
    "lost response": "the request is done, and its response lost",
    "silence": "the request is read, and nothing sent",
    "stalled download": "half of the response is sent, and no more",
    "stalled upload": "half of the request is read, and no more",
}
_ERRORS = {
    "slow down": (503, "SlowDown", "Please reduce your request rate."),
    "internal error": (500, "InternalError", "We encountered an internal error."),
}
_OWN_HEADERS = {"connection", "content-length", "date", "server", "transfer-encoding"}


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def num_bytes(self) -> int:
        return int(self.headers.get("content-length", 0))


@dataclass
class Rule:
    """Which requests for a bucket are hit.

    Attributes:
        fault: one of `FAULTS`, or none.
        first: requests before the first one that is hit.
        times: how many are hit.
        num_seen: requests that came.
    """

    fault: str
    first: int
    times: float
    num_seen: int = 0

    @property
    def num_hit(self) -> int:
        return int(min(max(self.num_seen - self.first, 0), self.times)) if self.fault else 0


class FaultyProxy:
    """Passes requests on, but for those that a fault hits."""

    def __init__(self, endpoint_url: str) -> None:
        upstream = urlsplit(endpoint_url)
        self._upstream = (upstream.hostname or "", upstream.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._rules: dict[str, Rule] = {}
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def listener(self) -> socket.socket:
        """What `S3.lead_to` takes."""
        return self._listener

    def inject(self, bucket: str, fault: str = "", *, first: int = 0, times: float = math.inf) -> Rule:
        """Let a fault hit requests for a bucket, instead of what hit them before.

        Args:
            bucket: its name; other buckets are not hit.
            fault: one of `FAULTS`, or none.
            first: requests before the first one that is hit.
            times: how many are hit.
        """
        with self._lock:
            rule = self._rules[bucket] = Rule(fault, first, times)
        return rule

    def close(self) -> None:
        self._closing.set()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file, contextlib.suppress(OSError, http.client.HTTPException):
            while request := _read_head(file):
                fault = self._choose(request)
                size = request.num_bytes
                if fault in ("cut upload", "stalled upload"):
                    file.read(size // 2)
                    if fault == "stalled upload":
                        self._closing.wait()
                    return
                if request.headers.get("expect"):
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = file.read(size)
                if fault == "silence":
                    file.read(1)  # until the client ends it
                    return
                if fault in _ERRORS:
                    connection.sendall(_to_error(request, *_ERRORS[fault]))
                    continue
                response = self._pass(request, body)
                if fault == "latency":
                    self._closing.wait(LATENCY_S)
                if fault == "lost response":
                    return
                if fault in ("cut download", "stalled download"):
                    connection.sendall(response[: -(len(response.partition(b"\r\n\r\n")[2]) // 2) or -2])
                    if fault == "stalled download":
                        file.read(1)
                    return
                connection.sendall(response)

    def _choose(self, request: Request) -> str:
        with self._lock:
            rule = self._rules.get(request.path.split("/")[1].partition("?")[0])
            if rule is None:
                return ""
            rule.num_seen += 1
            return rule.fault if rule.first < rule.num_seen <= rule.first + rule.times else ""

    def _pass(self, request: Request, body: bytes) -> bytes:
        server = http.client.HTTPConnection(*self._upstream, timeout=60)
        try:
            server.putrequest(request.method, request.path, skip_accept_encoding=True, skip_host=True)
            for name, value in request.headers.items():
                if name != "expect":
                    server.putheader(name, value)
            server.endheaders(body)
            response = server.getresponse()
            content = response.read()
        finally:
            server.close()
        kept = [(name, value) for name, value in response.getheaders() if name.lower() not in _OWN_HEADERS]
        size = response.getheader("content-length", "0") if request.method == "HEAD" else len(content)
        lines = [
            f"HTTP/1.1 {response.status} {response.reason}",
            *(f"{n}: {v}" for n, v in kept),
            f"Content-Length: {size}",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + content


@contextmanager
def faulty_proxy(endpoint_url: str) -> Iterator[FaultyProxy]:
    """Yield a proxy before a server."""
    proxy = FaultyProxy(endpoint_url)
    try:
        yield proxy
    finally:
        proxy.close()


def _read_head(file: Any) -> Request | None:
    """Return a request without its body; `None` where the client has ended the connection."""
    lines = []
    while (line := file.readline()) not in (b"\r\n", b""):
        lines.append(line)
    if not lines:
        return None
    method, path, _ = lines[0].decode("latin-1").split(" ", 2)
    pairs = (line.decode("latin-1").partition(":") for line in lines[1:])
    return Request(method, path, {name.lower(): value.strip() for name, _, value in pairs})


def _to_error(request: Request, status: int, code: str, message: str) -> bytes:
    content = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    head = (
        f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    )
    return head if request.method == "HEAD" else head + content
