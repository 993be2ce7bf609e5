"""Read the photos of a request, one after the other as they arrive, in memory only and within the limits.

Starlette's own form parser spools what is larger than a megabyte to disk, and reads everything before it returns
anything. Here a photo is yielded, and released, before the next one is read.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from serving.web.bodies import Body
from serving.web.errors import RequestError
from serving.web.settings import Limits

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_FORM = b"multipart/form-data"
_MAX_FIELD_BYTES = 4_000
_MAX_FIELDS = 20
_MAX_NAME_CHARS = 80
_FOLDERS = re.compile(r".*[/\\]", re.DOTALL)


@dataclass(frozen=True)
class Photo:
    """A file of a request.

    Attributes:
        name: the file's own name without folders and unprintable characters, or its position.
        content: its bytes; `None` where it is larger than allowed, and was not kept.
        client: who sent it; empty where that does not matter.
    """

    name: str
    content: bytes | None
    client: str = ""


@dataclass(frozen=True)
class Field:
    """A field of a form that is not a file."""

    name: str
    value: str


async def read(request: Request, limits: Limits, body: Body) -> AsyncIterator[Photo | Field]:
    """Read a form (`multipart/form-data`), or a body that is itself one photo.

    Args:
        request: holds it.
        limits: see `Limits`.
        body: counts the bytes that arrive; the caller releases them.

    Raises:
        RequestError: the request is too large, too slow, or damaged, or there is no memory for it.
        ClientDisconnect: the client hung up.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(415, "Photos are sent as they are, and this request is packed. Send it without packing.")
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind == _FORM:
        async for part in _read_form(request, limits, body, options.get(b"boundary", b"")):
            yield part
        return
    content = bytearray()
    async for chunk in _read_chunks(request, limits, body, max_bytes=limits.max_photo_bytes, what="A photo"):
        content += chunk
        body.hold(len(content))
    if content:
        yield Photo(clean_name(b"", 1), bytes(content))


async def _read_form(request: Request, limits: Limits, body: Body, boundary: bytes) -> AsyncIterator[Photo | Field]:
    form = _Form(limits)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        what = f"A request of {limits.max_photos} photos"
        async for chunk in _read_chunks(request, limits, body, max_bytes=limits.max_request_bytes, what=what):
            parser.write(chunk)
            body.hold(form.num_bytes)
            while form.done:
                yield form.done.popleft()
    except FormParserError as exc:
        raise RequestError(400, "The form that was sent is damaged. Send it again.") from exc
    if not form.is_complete:
        raise RequestError(400, "The form that was sent is cut short. Send it again.")


async def _read_chunks(
    request: Request, limits: Limits, body: Body, *, max_bytes: int, what: str
) -> AsyncIterator[bytes]:
    """Read the body, no more of it than is allowed, as long as the client keeps sending."""
    too_large = RequestError(413, f"{what} may take {max_bytes / 1e6:.0f} MB, and this is larger. Send less at once.")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise too_large
    num_bytes, waited_s, is_complete = 0, 0.0, False
    while not is_complete:
        start_s = time.monotonic()
        patience_s = limits.patience_s + num_bytes / limits.min_bytes_per_s - waited_s
        message = await _receive(request, body, min(patience_s, limits.patience_s, limits.max_upload_s - waited_s))
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        waited_s += time.monotonic() - start_s
        chunk = message.get("body", b"")
        num_bytes += len(chunk)
        if num_bytes > max_bytes:
            raise too_large
        is_complete = not message.get("more_body", False)
        yield chunk


async def _receive(request: Request, body: Body, timeout_s: float) -> Message:
    """Return what arrives next, unless it takes too long, or the request must end."""
    receiving = asyncio.ensure_future(request.receive())
    body.is_arriving = True
    try:
        waited: list[asyncio.Future[Any]] = [receiving, body.refused]
        await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        body.is_arriving = False
        if not receiving.done():
            receiving.cancel()
    body.check()
    if not receiving.done() or receiving.cancelled():
        raise RequestError(408, "The photo did not arrive in time. Check the connection, and send it again.")
    return receiving.result()


class _Form:
    """Assembles parts as the parser finds their pieces; `done` holds those that are complete."""

    def __init__(self, limits: Limits) -> None:
        self.done: deque[Photo | Field] = deque()
        self.is_complete = False
        self._limits = limits
        self._content: bytearray | None = None
        self._num_photos = 0
        self._num_fields = 0

    @property
    def num_bytes(self) -> int:
        """Return the number of bytes of all photos that were not taken yet."""
        done = sum(len(part.content or b"") for part in self.done if isinstance(part, Photo))
        return done + len(self._content or b"")

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._header, self._value, self._disposition = b"", b"", b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._filename = options.get(b"filename")
        self._content = bytearray()
        self._num_fields += 1
        if self._num_fields > self._limits.max_photos + _MAX_FIELDS:
            raise self._too_many()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._content is None:
            return
        max_bytes = _MAX_FIELD_BYTES if self._filename is None else self._limits.max_photo_bytes
        if len(self._content) + end - start > max_bytes:
            self._content = None
        else:
            self._content += data[start:end]

    def _part_end(self) -> None:
        content = None if self._content is None else bytes(self._content)
        self._content = None
        if self._filename is None:
            self.done.append(Field(self._name, (content or b"").decode("utf-8", "replace")))
        elif self._filename or content != b"":  # Else no file was chosen.
            self._num_photos += 1
            if self._num_photos > self._limits.max_photos:
                raise self._too_many()
            self.done.append(Photo(clean_name(self._filename, self._num_photos), content))

    def _end(self) -> None:
        self.is_complete = True

    def _too_many(self) -> RequestError:
        return RequestError(
            413, f"A request may hold {self._limits.max_photos} photos, and this one holds more. Send fewer at once."
        )


def clean_name(filename: bytes, position: int) -> str:
    """Return a name that can be shown, of one that a stranger chose: no folders, nothing unprintable, not long."""
    name = _FOLDERS.sub("", filename.decode("utf-8", "replace"))
    name = "".join(char for char in name if char.isprintable()).strip()
    return name[:_MAX_NAME_CHARS] or f"photo {position}"
