"""The bodies of REST requests, read where they keep nothing else waiting.

A small one is read at once. One of many values is read in a thread, beside the event loop. A large one is read in a
process of its own, because a thread that parses megabytes lets no other run.
"""

import asyncio
import logging
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from serving.local_server import json_requests, json_worker
from serving.local_server.errors import Code, StatusError
from serving.local_server.servable import Array

log = logging.getLogger(__name__)

T = TypeVar("T")

# What has more values is converted in a thread, and other requests go on meanwhile: two thousand take a millisecond.
# A long string takes none, and a thread would wait for its turn beside a model at work.
MANY_VALUES = 2000
LARGE_BODY_BYTES = 1 << 20
_ROOT = Path(__file__).resolve().parents[2]


class Body(Protocol):
    """A parsed body.

    All raise StatusError where the request is not as TensorFlow Serving wants it.
    """

    signature_name: str

    async def read_inputs(self, infos: Mapping[str, Any]) -> tuple[dict[str, Array], bool]:
        """Read the tensors of a predict request; see `json_requests.read_inputs`."""

    async def fill_examples(self, proto: Any) -> None:
        """Fill the `Input` of a classify or regress request; see `json_requests.fill_examples`."""


class Bodies:
    """Reads bodies; a document takes up to twenty times the memory of its text, so large ones one after the other."""

    def __init__(self) -> None:
        # One in each turn of the event loop, in which gRPC, too, accepts one call.
        self._reading_small = asyncio.Lock()
        self._reading_large = asyncio.Lock()
        self._process: _Process | None = None

    @asynccontextmanager
    async def read(self, body: bytes) -> AsyncIterator[Body]:
        """Wait for a body's turn, and parse it; what it takes is freed when the block ends."""
        if len(body) >= LARGE_BODY_BYTES:
            async with self._reading_large, self._read_large(body) as large:
                yield large
        elif body.count(b",") > MANY_VALUES:
            yield await _Local.parse(body, in_thread=True)
        else:
            async with self._reading_small:
                yield await _Local.parse(body, in_thread=False)

    @asynccontextmanager
    async def _read_large(self, body: bytes) -> AsyncIterator[Body]:
        is_over = False
        try:
            if self._process is None or not self._process.is_running():
                self._process = await asyncio.to_thread(_Process)
            large = _Remote(self._process)
            await large.parse(body)
            yield large
            is_over = True
        except StatusError:
            is_over = True
            raise
        finally:
            # Where a request is given up in the middle of a reply, its work ends, and the next body has a new process.
            if self._process and not (is_over and self._process.finish()):
                self._process.kill()
                self._process = None


class _Local:
    """A body that is read in this process."""

    def __init__(self, document: dict[str, Any], *, in_thread: bool) -> None:
        self._document = document
        self._in_thread = in_thread
        self.signature_name = json_requests.read_signature_name(document)

    @classmethod
    async def parse(cls, body: bytes, *, in_thread: bool) -> "_Local":
        return cls(await convert(json_requests.parse, body, in_thread=in_thread), in_thread=in_thread)

    async def read_inputs(self, infos: Mapping[str, Any]) -> tuple[dict[str, Array], bool]:
        return await convert(json_requests.read_inputs, self._document, infos, in_thread=self._in_thread)

    async def fill_examples(self, proto: Any) -> None:
        await convert(json_requests.fill_examples, self._document, proto, in_thread=self._in_thread)


class _Remote:
    """A body that the other process reads."""

    def __init__(self, process: "_Process") -> None:
        self._process = process
        self.signature_name = ""

    async def parse(self, body: bytes) -> None:
        self.signature_name = await asyncio.to_thread(self._process.parse, body)

    async def read_inputs(self, infos: Mapping[str, Any]) -> tuple[dict[str, Array], bool]:
        return await asyncio.to_thread(self._process.read_inputs, {name: info.dtype for name, info in infos.items()})

    async def fill_examples(self, proto: Any) -> None:
        await asyncio.to_thread(self._process.fill_examples, proto)


class _Process:
    """The other process, which speaks as `json_worker` says. It is called from one thread at a time."""

    def __init__(self) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", json_worker.__name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # A signal from the keyboard is for the server, which ends in good order.
                start_new_session=True,
            )
        log.info("large JSON bodies are read by process %d", self._process.pid)

    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End it at once; a thread that waits for a reply gets an error."""
        self._process.kill()
        # Much memory takes a while to free.
        threading.Thread(target=self._process.wait, daemon=True).start()

    def finish(self) -> bool:
        """Have the process free the body; return whether it is well."""
        try:
            self._connection.send((json_worker.DONE, None))
        except OSError:
            return False
        return True

    def parse(self, body: bytes) -> str:
        """Send a body; return the name of the signature in it."""
        try:
            self._connection.send_bytes(body)
        except OSError as exc:
            raise _died() from exc
        [name] = self._call(json_worker.SIGNATURE_NAME, None)
        return str(name)

    def read_inputs(self, dtypes: dict[str, int]) -> tuple[dict[str, Array], bool]:
        parts = self._call(json_worker.INPUTS, dtypes)
        rows = bool(next(parts))
        arrays: dict[str, Array] = {}
        for name, dtype, shape in parts:
            values: Array = np.empty(int(np.prod(shape)), dtype)
            taken = 0
            while taken < len(values):
                part = _take_strings(parts) if values.dtype == object else next(parts)
                values[taken : taken + len(part)] = part
                taken += len(part)
            arrays[name] = values.reshape(shape)
        return arrays, rows

    def fill_examples(self, proto: Any) -> None:
        parts = self._call(json_worker.EXAMPLES, None)
        json_requests.add_examples((example for part in parts for example in part), proto)

    def _call(self, wanted: str, argument: Any) -> Iterator[Any]:
        try:
            self._connection.send((wanted, argument))
            while True:
                kind, content = self._connection.recv()
                if kind == json_worker.END:
                    return
                if kind == json_worker.ERROR:
                    break
                yield content
        except (EOFError, OSError) as exc:
            raise _died() from exc
        code, message = content
        raise StatusError(code, message)


def _take_strings(parts: Iterator[Any]) -> list[bytes]:
    """Return the next strings: their lengths come first, then their bytes, which are joined while others run."""
    lengths: list[int] = next(parts)
    pieces: list[bytes] = []
    num_left = sum(lengths)
    while num_left:
        pieces.append(next(parts))
        num_left -= len(pieces[-1])
    joined = b"".join(pieces)
    return [joined[end - length : end] for length, end in zip(lengths, accumulate(lengths), strict=True)]


def _died() -> StatusError:
    return StatusError(
        Code.UNAVAILABLE,
        "The process that reads large requests has ended, for want of memory perhaps. Send less at once.",
    )


async def convert(function: Callable[..., T], *args: Any, in_thread: bool, **kwargs: Any) -> T:
    """Call a function, in a thread where the event loop should not wait for it."""
    if not in_thread:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
