import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from serving.web.bodies import Bodies
from serving.web.errors import RequestError
from serving.web.settings import Limits
from serving.web.uploads import Field, Photo, clean_name, read

FORM = (
    b'--b\r\nContent-Disposition: form-data; name="token"\r\n\r\nsecret\r\n'
    b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    b"first\r\n"
    b'--b\r\nContent-Disposition: form-data; name="photo"; filename=""\r\n\r\n\r\n'
    b'--b\r\nContent-Disposition: form-data; name="photo"; filename="b.jpg"\r\n\r\n\r\n--b--\r\n'
)
MAX_BYTES = 1_000_000
TOKEN, FIRST, LAST = Field("token", "secret"), Photo("a.jpg", b"first"), Photo("b.jpg", b"")


def make_request(chunks: Sequence[bytes | None], kind: str = "multipart/form-data; boundary=b") -> Request:
    """Return a request whose body comes in chunks; at `None` the client hangs up, after the last it is silent."""
    messages: list[dict[str, Any]] = [
        {"type": "http.disconnect"} if chunk is None else {"type": "http.request", "body": chunk, "more_body": True}
        for chunk in chunks
    ]

    async def receive() -> Any:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    return Request({"type": "http", "method": "POST", "headers": [(b"content-type", kind.encode())]}, receive)


async def read_parts(request: Request, count: int, **limits: Any) -> list[Photo | Field]:
    """Read the first parts, and nothing after them."""
    with Bodies(MAX_BYTES).hold("a") as body:
        parts = read(request, Limits(**limits), body)
        return [await anext(parts) for _ in range(count)]


@pytest.mark.anyio
@pytest.mark.parametrize("chunk_bytes", [1, 7, 1000])
async def test_a_form_is_read_however_it_is_cut(chunk_bytes: int) -> None:
    request = make_request([FORM[i : i + chunk_bytes] for i in range(0, len(FORM), chunk_bytes)])
    assert await read_parts(request, 3) == [TOKEN, FIRST, LAST]


@pytest.mark.anyio
async def test_a_photo_is_yielded_before_the_next_one_arrives() -> None:
    assert await read_parts(make_request([FORM[: FORM.index(b"first") + 20]]), 2) == [TOKEN, FIRST]


@pytest.mark.anyio
async def test_a_photo_that_is_too_large_is_not_kept() -> None:
    assert await read_parts(make_request([FORM]), 2, max_photo_bytes=4) == [TOKEN, Photo("a.jpg", None)]


@pytest.mark.anyio
async def test_a_client_that_sends_nothing_is_cut_off() -> None:
    start_s = time.monotonic()
    with pytest.raises(RequestError, match="did not arrive in time") as caught:
        await read_parts(make_request([b"abc"], "image/jpeg"), 1, patience_s=0.1)
    assert caught.value.status == 408
    assert time.monotonic() - start_s < 5


@pytest.mark.anyio
@pytest.mark.parametrize("limits", [{"patience_s": 0.2, "min_bytes_per_s": 1000}, {"max_upload_s": 0.2}])
async def test_a_client_that_drips_is_cut_off(limits: dict[str, Any]) -> None:
    async def drip() -> Any:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    request = Request({"type": "http", "method": "POST", "headers": []}, drip)
    with pytest.raises(RequestError, match="did not arrive in time"):
        await read_parts(request, 1, **limits)


@pytest.mark.anyio
async def test_a_client_that_hangs_up_is_noticed() -> None:
    with pytest.raises(ClientDisconnect):
        await read_parts(make_request([FORM[:50], None]), 1)


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        (b"tulip.jpg", "tulip.jpg"),
        ("grüße.jpg".encode(), "grüße.jpg"),
        (b"\xff\xfe.jpg", "\ufffd\ufffd.jpg"),
        (b"a/b\\c.jpg", "c.jpg"),
        (b"\x00\x1b[31m\n", "[31m"),
        (b"  ", "photo 3"),
    ],
)
def test_a_name_is_cleaned(filename: bytes, name: str) -> None:
    assert clean_name(filename, 3) == name
