"""Requests that are made to go wrong: no failure, no traceback, no hang, and every response is as described.

A few hundred examples by default, the same each time; `-m slow` sends other ones, tens of thousands.
"""

import json
import logging
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from serving.web.models import FileModel
from serving.web.settings import Limits
from tests.serving.web.conftest import GREEN, RED, Page, make_photo, open_page

NUM_EXAMPLES = 300
NUM_SLOW_EXAMPLES = 25_000
# A client that announces more than it sends is cut off after `patience_s`; anything longer is a hang.
PATIENCE_S = 0.1
HANG_S = 15
MAX_PHOTO_BYTES = 4000

# What is often well-formed reaches further.
BOUNDARIES = st.sampled_from([*[b"b"] * 9, b"b" * 70, b"'()+_,-./:=?", b"", b"b b", b'"b"', b"\xff"])
NAMES = st.one_of(
    st.sampled_from(
        [b"a.jpg", b"../../a", b"a\\b", b"\xe2\x80\xae.exe", b"\x00", b"%00", b'"', b"a" * 5000, b"token", b"sample"]
    ),
    st.binary(max_size=30),
    st.text(max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass")),
)
CONTENTS = st.one_of(
    st.sampled_from([RED, GREEN, make_photo((5, 5, 250), "PNG"), make_photo((9, 9, 9), "GIF"), b"", b"rose.jpg"]),
    st.binary(max_size=200),
    st.just(bytes(MAX_PHOTO_BYTES + 1)),
)
PART_HEADERS = st.lists(
    st.sampled_from(
        [
            b"Content-Type: image/jpeg",
            b"Content-Transfer-Encoding: base64",
            b"Content-Disposition: attachment",
            b"Content-Disposition: form-data; name*=utf-8''x; filename*=utf-8''y",
            b"Content-Disposition",
            b": ",
            b"X: " + b"y" * 5000,
            b"X\x00: y",
            b" folded",
        ]
    ),
    max_size=3,
)
KINDS = st.sampled_from(
    [
        *[b"multipart/form-data; boundary=%s"] * 9,
        b"multipart/form-data; boundary*=utf-8''%s",
        b'multipart/form-data; charset=utf-7; boundary="%s"',
        b"multipart/form-data;%s",
        b"multipart/mixed; boundary=%s",
        b"image/jpeg; %s",
        b"application/json%s",
        b"%s",
    ]
)
HEADERS = st.lists(
    st.sampled_from(
        [
            b"Origin: null",
            b"Origin: http://localhost",
            b"Sec-Fetch-Site: cross-site",
            b"Content-Encoding: gzip",
            b"Content-Encoding: identity",
            b"Transfer-Encoding: chunked",
            b"Expect: 100-continue",
            b"Upgrade: h2c",
            b"Authorization: Bearer \xff",
            b"Authorization: bearer",
            b"X-Forwarded-For: nobody, 1.2.3.4",
            b"X-Forwarded-For: \xff",
            b"X-Forwarded-Proto: ws",
            b"Host: localhost",
            b"Content-Length: 3",
            b"Content-Length: -1",
            b"Accept: text/html",
            b"If-None-Match: \xff",
            b"Content-Type: multipart/form-data",
        ]
    ),
    max_size=2,
)


@dataclass(frozen=True)
class Sent:
    """A request as it goes over the wire. One whose head may have no end is given up by its client."""

    head: bytes
    body: bytes
    has_end: bool


@st.composite
def forms(draw: st.DrawFn, boundary: bytes) -> bytes:
    """Write a form whose parts have any names, headers and contents."""
    lines: list[bytes] = []
    for _ in range(draw(st.integers(0, 4))):
        disposition = b'Content-Disposition: form-data; name="%s"' % draw(NAMES)
        if draw(st.booleans()):
            disposition += b'; filename="%s"' % draw(NAMES)
        lines += [b"--" + boundary, disposition, *draw(PART_HEADERS), b"", draw(CONTENTS)]
    return b"\r\n".join([*lines, b"--" + boundary + b"--", b""])


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """Cut, repeat, change or insert bytes."""
    for _ in range(max(0, draw(st.integers(-4, 3)))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 40)))
        piece = draw(st.one_of(st.binary(max_size=8), st.sampled_from([b"", b"\r\n", b"--", content[start:end] * 2])))
        content = content[:start] + piece + content[end:]
    return content


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    """Write a request to a route that takes photos."""
    boundary = draw(BOUNDARIES)
    body = draw(mutated(draw(st.one_of(forms(boundary), CONTENTS))))
    path = draw(
        st.sampled_from([*[b"/api/classify"] * 6, *[b"/"] * 3, b"/api/classify?x=%00", b"/%2e%2e/", b"/api/classify/"])
    )
    lines = [
        draw(st.sampled_from([*[b"POST"] * 12, b"PUT", b"GET"])) + b" " + path + b" HTTP/1.1",
        draw(st.sampled_from([*[b"Host: localhost"] * 12, b"Host: evil.com", b"Host: [", b"Host: \xff"])),
        b"Connection: close",
        b"Content-Type: " + draw(KINDS).replace(b"%s", boundary),
        *draw(HEADERS),
    ]
    if not any(line.startswith((b"Content-Length", b"Transfer-Encoding")) for line in lines):
        lines.append(b"Content-Length: %d" % len(body))
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    changed = draw(mutated(head)) if draw(st.integers(0, 9)) == 0 else head
    return Sent(changed, body, has_end=changed == head)


def upload(body: bytes, *headers: bytes, missing: int = 0) -> Sent:
    """Write a plain upload, which may announce more than it sends."""
    lines = [b"POST /api/classify HTTP/1.1", b"Host: localhost", b"Connection: close", *headers]
    return Sent(b"\r\n".join([*lines, b"Content-Length: %d" % (len(body) + missing), b"", b""]), body, has_end=True)


@dataclass
class Fuzzed:
    """A service, and what it logged that it should not."""

    page: Page
    complaints: list[str]
    statuses: dict[str, set[str]]
    seen: Counter[str] = field(default_factory=Counter)


class _Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(logging.Formatter().format(record))


@pytest.fixture(scope="module")
def fuzzed(file_model: FileModel) -> Iterator[Fuzzed]:
    limits = Limits(
        max_photo_bytes=MAX_PHOTO_BYTES,
        max_photos=3,
        patience_s=PATIENCE_S,
        photos_per_minute=10**9,
        burst_photos=10**9,
    )
    handler = _Complaints()
    logging.getLogger().addHandler(handler)
    with open_page(file_model, limits=limits) as page:
        paths = page.get("/openapi.json").json()["paths"]
        yield Fuzzed(
            page, handler.lines, {path: set(paths[path]["post"]["responses"]) for path in ("/api/classify", "/")}
        )
    logging.getLogger().removeHandler(handler)


def exchange(page: Page, sent: Sent) -> bytes:
    """Send a request and return all that comes back; fail where nothing more comes, and no end."""
    with socket.create_connection(("127.0.0.1", page.port), timeout=HANG_S) as connection:
        received = b""
        try:
            connection.sendall(sent.head + sent.body)
            if not sent.has_end:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                received += part
        except ConnectionError:
            pass  # Refused before it was read to its end.
        except TimeoutError:
            pytest.fail(f"no end after {HANG_S} s, only {received!r}")
    return received


def check(fuzzed: Fuzzed, sent: Sent) -> None:
    received = exchange(fuzzed.page, sent)
    assert not fuzzed.complaints
    if not received:
        return
    head, _, body = received.partition(b"\r\n\r\n")
    version, status, *_ = head.decode("latin-1").split(maxsplit=2)
    assert version == "HTTP/1.1"
    if status == "100":
        return
    fuzzed.seen[status] += 1
    path = "/" if sent.head.split()[1:2] == [b"/"] else "/api/classify"
    assert status in fuzzed.statuses[path] | {"404", "405"}
    assert int(status) < 500
    if b"application/json" in head and b"chunked" not in head and sent.head.startswith(b"POST /api"):
        # A head that was cut in two is two requests, and the second one has its response too.
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        response = json.loads(body[:length])
        assert response.get("results") or response.get("error")
        for result in response.get("results", []):
            assert result["image"].isprintable()
            assert len(result["image"]) <= 80


def fuzz(num_examples: int, *, is_repeated: bool) -> settings:
    return settings(
        max_examples=num_examples,
        deadline=None,
        derandomize=is_repeated,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


# Few of the requests that are drawn are responded to as these are, and not in every run.
@example(sent=upload(RED))
@example(sent=upload(RED, missing=1))
@example(sent=upload(RED, b"Content-Encoding: gzip"))
@example(sent=upload(bytes(MAX_PHOTO_BYTES + 1)))
@fuzz(NUM_EXAMPLES, is_repeated=True)
@given(sent=requests())
def test_no_request_makes_the_service_fail_or_hang(fuzzed: Fuzzed, sent: Sent) -> None:
    check(fuzzed, sent)


def test_the_requests_reach_all_of_the_service(fuzzed: Fuzzed) -> None:
    """Of the requests of the test before: as many are taken as refused, for every reason."""
    assert {"200", "400", "403", "405", "408", "413", "415", "421", "422"} <= set(fuzzed.seen), fuzzed.seen


@pytest.mark.slow
@fuzz(NUM_SLOW_EXAMPLES, is_repeated=False)
@given(sent=requests())
def test_no_request_of_very_many_makes_the_service_fail_or_hang(fuzzed: Fuzzed, sent: Sent) -> None:
    check(fuzzed, sent)
