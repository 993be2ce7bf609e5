"""Decode images in other processes, each image with a deadline and limits of processor time and memory.

Decoders are written in C, and cannot be interrupted: an image that was made to keep one busy for minutes, to take all
memory, or to crash it, costs here no more than one process, which another one replaces.
"""

import json
import logging
import math
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias, cast

from PIL import Image

from . import decoder_process, preprocessing
from .decoder_process import ERROR, LOAD, READY, REQUEST, RESULT, SHRINK
from .errors import ClassifierError, ImageError
from .sources import Source

log = logging.getLogger(__name__)

Encoded: TypeAlias = bytes | bytearray | memoryview

_START_S = 60
_END_S = 5
_WATCH_S = 0.25
# What a model takes, 224 × 224 × 3, passes through at once.
_PIPE_BYTES = 1 << 18
_TOO_COMPLEX = "takes more time or memory to decode than is allowed, or crashes the decoder; make a smaller copy"


@dataclass(frozen=True)
class DecoderLimits:
    """What one image may take.

    Attributes:
        wall_s: seconds, on a machine that may be busy.
        cpu_s: seconds of processor time.
        memory_bytes: beside what the process takes without an image. There is no such limit on macOS and on Windows.
    """

    wall_s: float = 10
    cpu_s: float = 2
    memory_bytes: int = 300_000_000

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be above 0. Received: {value}")


class DecoderPool:
    """Processes that decode images; thread-safe. Its `load` is for `Client(transport, load=pool.load)`.

    Args:
        num_processes: images that are decoded at the same time.
        num_spare: more processes, which wait: what starts in the place of one that was ended takes half a second.
        limits: what one image may take.

    Example:
        >>> with DecoderPool(1) as pool:
        ...     pool.load(b"no image", name="a.jpg", size_px=224)
        Traceback (most recent call last):
        client.classifier_client.errors.ImageError: a.jpg: not an image that can be read ...
    """

    def __init__(self, num_processes: int, *, num_spare: int = 0, limits: DecoderLimits | None = None) -> None:
        if num_processes < 1:
            raise ValueError(f"num_processes must be at least 1. Received: {num_processes}")
        self._limits = limits or DecoderLimits()
        self._num_processes = num_processes
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._running: set[_Decoder] = set()
        self._spent = threading.local()
        self._free = threading.Semaphore(num_processes)
        # The last one is next: it was used last, or has waited for longest.
        self._idle: deque[_Decoder | None] = deque(self._start() for _ in range(num_processes + num_spare))
        # A timer for each image would cost more than most images do.
        threading.Thread(target=self._watch, name="decoder deadlines", daemon=True).start()

    @property
    def last_cpu_s(self) -> float:
        """Return the processor time, in seconds, that the last image took which this thread had decoded."""
        return getattr(self._spent, "cpu_s", 0.0)

    def load(self, source: Source, *, name: str, size_px: int) -> Image.Image:
        """Read, decode and resize one image, as `preprocessing.load` does; encoded bytes in another process.

        Raises:
            ImageError: it cannot be read; the code is "too_complex" where it took too much, or crashed the decoder.
            ClassifierError: no process can be started.
        """
        if not isinstance(source, bytes | bytearray | memoryview):
            return preprocessing.load(source, name=name, size_px=size_px)
        return self._decode(LOAD, source, name, size_px)

    def shrink(self, encoded: bytes, *, name: str, size_px: int) -> Image.Image:
        """Decode an image to upright RGB, as large as fits into a square; it raises what `load` does."""
        return self._decode(SHRINK, encoded, name, size_px)

    def close(self) -> None:
        """End the processes, at once: what is being decoded becomes an `ImageError`."""
        with self._lock:
            self._closed.set()
            for decoder in self._running:
                decoder.kill()
        for _ in range(self._num_processes):
            self._free.acquire()
        for idle in self._idle:
            if idle:
                idle.close()
        self._idle = deque([None] * len(self._idle))  # Later calls fail.
        self._free.release(self._num_processes)

    def __enter__(self) -> "DecoderPool":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _start(self) -> "_Decoder":
        with self._lock:
            if self._closed.is_set():
                raise ClassifierError("A pool of decoders must be open. This one is closed; open another one.")
            decoder = _Decoder(self._limits)
            self._running.add(decoder)
            return decoder

    def _decode(self, kind: bytes, encoded: Encoded, name: str, size_px: int) -> Image.Image:
        with self._free:
            result = self._call(kind, encoded, size_px)
        if isinstance(result, str):
            log.warning("an image is not decoded, and its decoder is replaced: %s", result)
            raise ImageError(name, _TOO_COMPLEX, code="too_complex")
        if isinstance(result, ImageError):
            raise ImageError(name, result.reason, code=result.code)
        return result

    def _call(self, kind: bytes, encoded: Encoded, size_px: int) -> Image.Image | ImageError | str:
        """Call an idle decoder; see `_Decoder.call`."""
        decoder = self._idle.pop()
        try:
            if decoder and not decoder.is_usable:
                self._remove(decoder)
                decoder = None
            decoder = decoder or self._start()
            result = decoder.call(kind, size_px, encoded)
            self._spent.cpu_s = decoder.last_cpu_s
            return result
        finally:
            if decoder and decoder.is_usable:
                self._idle.append(decoder)
            else:
                self._idle.appendleft(self._replace(decoder))

    def _replace(self, decoder: "_Decoder | None") -> "_Decoder | None":
        if decoder:
            self._remove(decoder)
        try:
            return self._start()
        except ClassifierError:
            return None  # An image that needs it tries again.

    def _watch(self) -> None:
        while not self._closed.wait(_WATCH_S):
            with self._lock:
                for decoder in self._running:
                    decoder.kill_if_late()

    def _remove(self, decoder: "_Decoder") -> None:
        with self._lock:
            self._running.discard(decoder)
        decoder.close()


class _Decoder:
    """One process."""

    def __init__(self, limits: DecoderLimits) -> None:
        self._limits = limits
        self._is_ready = False
        self.last_cpu_s = 0.0
        self._end: str | None = None
        self._deadline_s = math.inf
        self._command = [sys.executable, "-m", decoder_process.__name__, str(limits.cpu_s), str(limits.memory_bytes)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PYTHONSAFEPATH": "1",  # no module of the folder that it happens to run in
            # Or glibc keeps what a large image took: it raises this by itself to what was freed once.
            "MALLOC_MMAP_THRESHOLD_": "1048576",
        }
        try:
            # Decoders complain about damaged images on their standard error.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                pipesize=_PIPE_BYTES,
            )
        except OSError as exc:
            raise ClassifierError(f"A process that decodes images must start. {exc.strerror}.") from exc
        self._requests = cast(BinaryIO, self._process.stdin)
        self._results = cast(BinaryIO, self._process.stdout)

    @property
    def is_usable(self) -> bool:
        return self._end is None and self._process.poll() is None

    def call(self, kind: bytes, size_px: int, encoded: Encoded) -> Image.Image | ImageError | str:
        """Return the decoded image, why it cannot be read, or why the process ended.

        Raises:
            ClassifierError: the process does not start.
        """
        try:
            if not self._is_ready:
                self._deadline_s = time.monotonic() + _START_S
                self._read(len(READY))
                self._is_ready = True
            self._deadline_s = time.monotonic() + self._limits.wall_s
            self.last_cpu_s = self._limits.cpu_s  # until it says how much it was
            self._requests.write(REQUEST.pack(kind, size_px, len(encoded)))
            self._requests.write(encoded)
            self._requests.flush()
            status, self.last_cpu_s, width, height, num_bytes = RESULT.unpack(self._read(RESULT.size))
            content = self._read(num_bytes)
            self._deadline_s = math.inf
        except (EOFError, BrokenPipeError) as exc:
            self._end = self._end or _describe(self._process.wait(_END_S))
            if not self._is_ready:
                raise ClassifierError(
                    f"A process that decodes images must start, and this one {self._end}. Run it yourself to see why: "
                    f"{shlex.join(self._command)}"
                ) from exc
            return self._end
        if status == ERROR:
            return ImageError("", **json.loads(content))
        return Image.frombytes("RGB", (width, height), content)

    def kill(self, reason: str = "was closed") -> None:
        """End the process; whoever waits for it learns it."""
        self._end = self._end or reason
        self._process.kill()

    def kill_if_late(self) -> None:
        if time.monotonic() > self._deadline_s:
            self.kill("took too long")

    def close(self) -> None:
        """End the process; nobody may use it any more."""
        self._process.kill()
        self._process.wait(_END_S)
        self._results.close()
        with suppress(BrokenPipeError):  # of what was not sent
            self._requests.close()

    def _read(self, num_bytes: int) -> bytes:
        content = self._results.read(num_bytes)
        if len(content) < num_bytes:
            raise EOFError
        return content


def _describe(status: int) -> str:
    if status == -signal.SIGPROF:
        return "took more processor time than is allowed"
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
