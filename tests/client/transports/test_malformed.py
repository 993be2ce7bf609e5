"""What a server may send and should not: each ends in the documented error, in time, and within a size."""

import json
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import grpc
import pytest

from client.classifier_client import AnswerError, DeadlineError, RefusedError, ServerError, UnavailableError
from client.classifier_client.transports import http
from client.classifier_client.transports import prediction_pb2 as pb
from tests.client import fakes
from tests.client.fakes import PHOTO, FakeServer
from tests.client.raw_fakes import METADATA, OUTPUTS, RawGrpc, RawHttp, to_http, to_shape


@pytest.fixture
def raw_http() -> Iterator[RawHttp]:
    with RawHttp() as server:
        yield server


@pytest.fixture
def raw_grpc() -> Iterator[RawGrpc]:
    with RawGrpc() as server:
        yield server


def classify(server: RawHttp | RawGrpc, **options: Any) -> list[Any]:
    protocol = "REST" if isinstance(server, RawHttp) else "gRPC"
    return fakes.classify(fakes.open_transport(protocol, server.target, **{"num_retries": 0, **options}))


def change(document: Any, path: str, value: Any) -> bytes:
    """Return a document as JSON, with another value at a path."""
    document = json.loads(json.dumps(document))
    *parents, last = path.split(".")
    found = document
    for name in parents:
        found = found[int(name) if isinstance(found, list) else name]
    found[int(last) if isinstance(found, list) else last] = value
    return json.dumps(document).encode()


# --- documents


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *[("outputs", value) for value in (None, 5, [], "text", {}, True)],
        *[
            ("outputs.probabilities", value)
            for value in (5, None, "ab", [None], [5], {}, [[]], [["a", "b"]], [[[1], 2]])
        ],
        *[
            ("outputs.probabilities.0", [value, 0.5])
            for value in (True, None, "0.5", {}, [], 10**400, -0.5, 1.5, 1e300)
        ],
        *[("outputs.probabilities.0.0", value) for value in (float("nan"), float("inf"), -float("inf"))],
        *[("outputs.classes", value) for value in (5, None, "ab", [[1, 2]], [["a"]], [["a", "a"]], [["a", None]], {})],
    ],
    ids=repr,
)
def test_outputs_of_another_form_are_an_error(path: str, value: Any, raw_http: RawHttp) -> None:
    raw_http.outputs = to_http(change(OUTPUTS, path, value))
    with pytest.raises(AnswerError) as failure:
        classify(raw_http)
    assert len(str(failure.value)) < 600


SIGNATURE = "metadata.signature_def.signature_def.images"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *[("model_spec", value) for value in (None, [], 5, "text", {})],
        *[("model_spec.version", value) for value in (None, 1, "", "-1", "1/../2", "x", "9" * 30, "١", [], {}, True)],
        *[("metadata", value) for value in (None, [], 5, "text")],
        *[(f"{SIGNATURE}.inputs.images.tensor_shape.dim", value) for value in (None, [], 5, "text", [1, 2, 3, 4], {})],
        *[
            (f"{SIGNATURE}.inputs.images.tensor_shape.dim", [{"size": size} for size in (-1, side, side, 3)])
            for side in (0, -1, 1 << 62, "9" * 6000, float("inf"), "1e3", " 8", None, [], True, 5000)
        ],
    ],
    ids=lambda value: repr(value)[:40],
)
def test_metadata_of_another_form_is_an_error(path: str, value: Any, raw_http: RawHttp) -> None:
    raw_http.metadata = to_http(change(METADATA, path, value))
    with pytest.raises(AnswerError):
        classify(raw_http)


@pytest.mark.parametrize(
    "content",
    [
        *(b"[null]", b"null", b"5", b'"text"', b"", b"\xff\xfe", b"{", b'{"outputs": ' + b"9" * 6000 + b"}"),
        *(b"[" * 100_000, b'{"a":' * 100_000, b'{"outputs": ' + b"[" * 900 + b"]" * 900 + b"}"),
    ],
    ids=lambda content: repr(content[:20]),
)
def test_content_of_another_form_is_an_error(content: bytes, raw_http: RawHttp) -> None:
    raw_http.outputs = to_http(content)
    with pytest.raises(AnswerError):
        classify(raw_http)
    raw_http.metadata = to_http(content)
    with pytest.raises(AnswerError):
        classify(raw_http)


@pytest.mark.parametrize("error", [None, 5, [], {"a": 1}, "x" * 10_000, "\x1b[2J\u202e"])
def test_error_of_another_form_is_one_line(error: Any, raw_http: RawHttp) -> None:
    raw_http.outputs = to_http(json.dumps({"error": error}).encode(), status="400 Bad Request")
    with pytest.raises(RefusedError) as failure:
        classify(raw_http)
    assert str(failure.value).isprintable()
    assert len(str(failure.value)) < 600


# --- HTTP


@pytest.mark.parametrize("status", ["100 Continue", "204 No", "206 Part", "301 Moved", "302 Found", "307 T", "308 P"])
def test_other_statuses_and_redirects_are_not_followed(status: str, raw_http: RawHttp) -> None:
    raw_http.closes = True
    raw_http.outputs = to_http(b"", status=status, headers=f"Location: http://{raw_http.target}/else\r\n")
    with pytest.raises(ServerError):
        classify(raw_http)
    assert raw_http.num_requests == 2


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "nonsense"])
def test_compressed_content_was_not_asked_for_and_does_not_swell(coding: str, raw_http: RawHttp) -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    content = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(64)) + bomb.flush()
    for sent in (content, b"not gzip at all"):
        raw_http.outputs = to_http(sent, headers=f"Content-Encoding: {coding}\r\n")
        with pytest.raises(AnswerError, match="is not TensorFlow Serving"):
            classify(raw_http)


@pytest.mark.parametrize(
    "head",
    [
        *(
            b"",
            b"\r\n\r\n",
            b"HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 two hundred\r\n\r\n",
            b"HTTP/9.9 200 OK\r\n\r\n",
            b"\0" * 100,
        ),
        *(
            b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
            b"HTTP/1.1 200 OK\r\na: " + b"b" * 100_000 + b"\r\n\r\n",
        ),
        *(b"HTTP/1.1 200 " + b"x" * 100_000 + b"\r\n\r\n", b"HTTP/1.1 99999 OK\r\n\r\n", b"HTTP/1.1 -1 OK\r\n\r\n"),
        *(
            b"HTTP/1.1 200 OK\r\nContent-Length: " + text + b"\r\n\r\n{}"
            for text in (b"-5", b"x", b"9" * 30, b"1, 2", b"5")
        ),
        *(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + text
            for text in (b"", b"x\r\n", b"-1\r\n", b"f" * 30)
        ),
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=\0\r\n\r\n<html>",
        b"HTTP/1.1 503 Busy\r\nSet-Cookie: \0=\xff; expires=never; max-age=x\r\nRetry-After: \xff\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n: empty\r\n\xff\xfe: \x00\r\n\r\n{}",
    ],
    ids=lambda head: repr(head[:70]),
)
def test_head_without_sense_is_an_error(head: bytes, raw_http: RawHttp) -> None:
    raw_http.closes = True
    raw_http.outputs = head
    start_s = time.monotonic()
    with pytest.raises(ServerError) as failure:
        classify(raw_http)
    assert str(failure.value).isprintable()
    assert time.monotonic() - start_s < 2


def drip(start: bytes, part: bytes) -> Callable[[], Iterable[bytes]]:
    """Return parts without an end, one every few hundredths of a second."""

    def parts() -> Iterable[bytes]:
        yield start
        while True:
            time.sleep(0.02)
            yield part

    return parts


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("start", "part"),
    [
        (HEAD + b"Content-Length: 1000000\r\n\r\n", b" "),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
        (HEAD, b"a"),
        (b"", b"H"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["body", "chunks", "trailers", "headers", "first line", "continue"],
)
def test_server_that_drips_is_given_up_in_time(start: bytes, part: bytes, raw_http: RawHttp) -> None:
    raw_http.outputs = drip(start, part)
    start_s = time.monotonic()
    with pytest.raises(DeadlineError, match=r"must answer within 0\.3 s"):
        classify(raw_http, timeout_s=0.3, num_retries=3)
    assert time.monotonic() - start_s < 1.5
    assert raw_http.num_requests == 2


def test_next_request_of_a_connection_has_the_whole_time_again(raw_http: RawHttp) -> None:
    good = raw_http.outputs
    assert isinstance(good, bytes)

    def slow() -> Iterable[bytes]:
        time.sleep(0.35)
        yield good

    raw_http.outputs = slow
    results = fakes.classify(fakes.open_transport("REST", raw_http.target, timeout_s=0.6), [PHOTO] * 3, batch_size=1)
    assert len(results) == 3


@pytest.mark.parametrize("framing", ["length", "chunks", "close"])
def test_response_without_an_end_is_read_up_to_a_size(framing: str, raw_http: RawHttp) -> None:
    part = b" " * (1 << 20)

    def parts() -> Iterable[bytes]:
        start = {
            "length": b"Content-Length: 999999999999\r\n",
            "chunks": b"Transfer-Encoding: chunked\r\n",
            "close": b"",
        }
        yield HEAD + start[framing] + b"\r\n"
        while True:
            yield b"100000\r\n" + part + b"\r\n" if framing == "chunks" else part

    raw_http.outputs = parts
    with pytest.raises(AnswerError, match="longer than 16 MB"):
        classify(raw_http)


def test_names_that_no_resolver_takes_are_an_error_of_the_server() -> None:
    for host in ("a" * 300, "a..b", "ä" * 70, ".", "%", "\\"):
        with pytest.raises(ServerError):
            fakes.classify(fakes.open_transport("REST", f"{host}:1", num_retries=0))


# --- when to come back


@pytest.mark.parametrize("status", ["503 Unavailable", "429 Too Many"])
def test_server_that_names_a_time_is_called_again_then(status: str, raw_http: RawHttp, waits: list[float]) -> None:
    good = raw_http.outputs
    assert isinstance(good, bytes)
    responses = [to_http(b'{"error": "busy"}', status=status, headers="Retry-After: 7\r\n")] * 2 + [good]
    raw_http.outputs = lambda: [responses.pop(0)]
    assert len(classify(raw_http, num_retries=3)) == 1
    assert len(waits) == 2
    assert all(7 < wait_s < 8 for wait_s in waits)


def test_server_that_names_a_time_far_away_is_given_up(raw_http: RawHttp, waits: list[float]) -> None:
    raw_http.outputs = to_http(b'{"error": "busy"}', status="503 Unavailable", headers="Retry-After: 3600\r\n")
    with pytest.raises(UnavailableError) as failure:
        classify(raw_http, num_retries=3)
    assert failure.value.retry_after_s == 3600
    assert waits == []


def test_time_to_come_back_is_a_number_or_a_date() -> None:
    assert http.parse_retry_after("5") == 5
    soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=20), usegmt=True)
    assert http.parse_retry_after(soon) == pytest.approx(20, abs=2)
    assert http.parse_retry_after("Fri, 31 Dec 1999 23:59:59 GMT") == 0
    for text in ("", "soon", "-1", "1.5", "nan", "٣", "\xff", "Fri, 99 Dec 99999 23:59:59 GMT", "9" * 400 + "x"):
        assert http.parse_retry_after(text) is None
    assert http.parse_retry_after("9" * 400) == float("inf")


# --- gRPC


def to_response(**changed: Any) -> bytes:
    """Return the good prediction with other fields of `probabilities`, or of `classes`."""
    tensors = {
        "probabilities": {"dtype": pb.DT_FLOAT, "tensor_shape": to_shape(1, 2), "float_val": [0.25, 0.75]},
        "classes": {"dtype": pb.DT_STRING, "tensor_shape": to_shape(1, 2), "string_val": [b"daisy", b"tulip"]},
    }
    for name, fields in changed.items():
        tensors[name].update(fields)
    return pb.PredictResponse(outputs={name: pb.Tensor(**t) for name, t in tensors.items()}).SerializeToString(
        deterministic=True
    )


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\xff", b"\x0a\x05ab", b"text " * 100),
        *(to_response(probabilities={"tensor_shape": shape}) for shape in (to_shape(), to_shape(2), to_shape(1, 1, 2))),
        *(to_response(probabilities={"tensor_shape": to_shape(*s)}) for s in ((-1, -2), (0, 0), (1 << 62, 4), (1, 3))),
        *(to_response(probabilities={"dtype": dtype}) for dtype in (0, 7, 99)),
        *(
            to_response(probabilities={"float_val": values})
            for values in ([], [0.5], [0.5] * 4, [float("nan"), 1], [7, 1])
        ),
        *(to_response(classes={"string_val": values}) for values in ([], [b"a"], [b"\xff", b"b"], [b"a", b"a"])),
        *(to_response(probabilities={"float_val": [], "tensor_content": b"\0" * size}) for size in (4, 7, 9, 12)),
        to_response(classes={"dtype": pb.DT_FLOAT}),
        to_response(classes={"tensor_shape": to_shape(2, 1)}),
    ],
    ids=repr,
)
def test_message_of_another_form_is_an_error(content: bytes, raw_grpc: RawGrpc, capfd: Any) -> None:
    raw_grpc.outputs = content
    with pytest.raises(AnswerError):
        classify(raw_grpc)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"\x12\x03\x0a\x01\xff",
        pb.ModelMetadataResponse(
            metadata={"signature_def": pb.ModelMetadataResponse.Any(value=b"\xff")}
        ).SerializeToString(deterministic=True),
    ],
    ids=repr,
)
def test_metadata_message_of_another_form_is_an_error(content: bytes, raw_grpc: RawGrpc) -> None:
    raw_grpc.metadata = content
    with pytest.raises(AnswerError):
        classify(raw_grpc)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK], ids=str)
def test_every_code_is_an_error(code: grpc.StatusCode, raw_grpc: RawGrpc) -> None:
    raw_grpc.code, raw_grpc.details = code, "\x1b[2J\u202e" + "x" * 3000
    with pytest.raises(ServerError) as failure:
        classify(raw_grpc)
    assert str(failure.value).isprintable()


def test_message_that_is_too_long_is_an_error(raw_grpc: RawGrpc) -> None:
    raw_grpc.outputs = bytes(17 << 20)
    with pytest.raises(RefusedError, match=r"RESOURCE_EXHAUSTED.*larger than max"):
        classify(raw_grpc)


# --- closed


def test_closed_connection_is_an_error_of_ours_and_closes_again(fake: FakeServer) -> None:
    transport = fake.connect()
    for _ in range(2):
        transport.close()
    for use in (transport.image_size_px, lambda: transport.predict([PHOTO])):
        with pytest.raises(
            ValueError, match=r"Transport must be open to classify\. This one is closed\. Make a new one"
        ):
            use()
