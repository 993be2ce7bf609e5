"""The memory of photos that wait is bounded, and who takes most of it gives way."""

import asyncio

import pytest

from serving.web.bodies import Bodies
from serving.web.errors import RequestError
from serving.web.settings import Limits
from serving.web.uploads import Photo, read
from tests.serving.web.test_uploads import make_request

pytestmark = pytest.mark.anyio


async def test_the_client_that_has_most_loses_its_largest_upload() -> None:
    bodies = Bodies(100)
    with bodies.hold("a") as small, bodies.hold("a") as large, bodies.hold("b") as other:
        for body, num_bytes in ((small, 20), (large, 40), (other, 30)):
            body.hold(num_bytes)
            body.is_arriving = True
        other.hold(50)
        small.check()
        with pytest.raises(RequestError, match="than there is memory for") as caught:
            large.check()
        assert (caught.value.status, caught.value.retry_after_s) == (503, 2)


async def test_what_is_being_classified_is_kept_and_what_would_be_too_much_is_refused() -> None:
    bodies = Bodies(100)
    with bodies.hold("a") as working, bodies.hold("b") as body:
        working.hold(90)
        with pytest.raises(RequestError):
            body.hold(20)
        working.check()
        working.release()
    with bodies.hold("b") as body:
        body.hold(100)


async def test_an_upload_that_must_give_way_ends_while_it_waits_for_its_client() -> None:
    bodies, limits = Bodies(1000), Limits()

    async def upload(content: bytes) -> None:
        with bodies.hold("a") as body:
            async for _ in read(make_request([content], "image/jpeg"), limits, body):
                pass

    waiting = asyncio.create_task(upload(bytes(900)))
    await asyncio.sleep(0.01)
    with bodies.hold("b") as body:
        body.hold(200)
    with pytest.raises(RequestError, match="than there is memory for"):
        await asyncio.wait_for(waiting, 5)


async def test_a_form_counts_what_it_keeps() -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n'
    with Bodies(1000).hold("a") as body:
        parts = read(make_request([head, *[bytes(100)] * 50, b"\r\n--b--\r\n"]), Limits(max_photo_bytes=500), body)
        assert await anext(parts) == Photo("a.jpg", None)
        assert body.num_bytes == 0
