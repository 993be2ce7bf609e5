"""Decode images in a process of its own, which can be ended: requests by standard input, results by standard output.

`decoder_pool.py` starts it. It imports Pillow and the decoding, and ends when its standard input is closed, so also
when the process that started it dies.

A request is `REQUEST` and the encoded image. A result is `RESULT`, and an image's RGB bytes or an error's JSON.
"""

import json
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from PIL import AvifImagePlugin, Image

from . import preprocessing
from .colours import to_rgb
from .decoding import failures, find_turn, open_encoded, reduce_jpeg
from .errors import ImageError

REQUEST = struct.Struct("<cIQ")
"""`LOAD` or `SHRINK`, `size_px`, and the number of bytes that follow."""

RESULT = struct.Struct("<cdIIQ")
"""`IMAGE` or `ERROR`, seconds of processor time, width and height, and the number of bytes that follow."""

LOAD, SHRINK = b"L", b"S"
IMAGE, ERROR = b"I", b"E"
READY = b"R"
"""Written once, when requests are read."""

_TOO_COMPLEX = "takes more memory to decode than is allowed; make a smaller copy"


def main() -> None:
    """Serve requests until there are no more. Arguments: seconds of processor time, and bytes, for each image."""
    cpu_s, memory_bytes = float(sys.argv[1]), int(sys.argv[2])
    # Ctrl-C and an ending service reach all its processes, and what was accepted is still finished.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # What a library prints is no result.
    results = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # Each thread takes memory for its stack, so the limit would depend on the number of cores.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.init()
    _limit_memory(memory_bytes)
    with suppress(BrokenPipeError):
        results.write(READY)
        results.flush()
        _serve(sys.stdin.buffer, results, cpu_s)


def shrink(encoded: bytes, *, name: str, size_px: int) -> Image.Image:
    """Decode an image to upright RGB, as large as fits into a square.

    Raises:
        ImageError: it cannot be read.
    """
    with open_encoded(encoded, name) as image, failures(name):
        reduce_jpeg(image, least_px=size_px)
        turn = find_turn(image)
        image.thumbnail((size_px, size_px), reducing_gap=None)
        small = to_rgb(image, name)
        small.load()  # A small RGB image is still the one that is about to be closed.
        return small if turn is None else small.transpose(turn)


def _serve(requests: BinaryIO, results: BinaryIO, cpu_s: float) -> None:
    while len(head := requests.read(REQUEST.size)) == REQUEST.size:
        kind, size_px, num_bytes = REQUEST.unpack(head)
        encoded = requests.read(num_bytes)
        # SIGPROF ends the process: a decoder's loop runs no Python code that could look at a clock.
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        start_s = time.process_time()
        result = _decode(shrink if kind == SHRINK else preprocessing.load, encoded, size_px)
        signal.setitimer(signal.ITIMER_PROF, 0)
        spent_s = time.process_time() - start_s
        if isinstance(result, Image.Image):
            content = result.tobytes()
            results.write(RESULT.pack(IMAGE, spent_s, *result.size, len(content)))
        else:
            content = json.dumps({"reason": result.reason, "code": result.code}).encode()
            results.write(RESULT.pack(ERROR, spent_s, 0, 0, len(content)))
        results.write(content)
        results.flush()


def _decode(function: Callable[..., Image.Image], encoded: bytes, size_px: int) -> Image.Image | ImageError:
    try:
        return function(encoded, name="", size_px=size_px)
    except ImageError as exc:
        return ImageError("", exc.reason, code=exc.code)
    except MemoryError:
        return ImageError("", _TOO_COMPLEX, code="too_complex")


def _limit_memory(num_bytes: int) -> None:
    """Let the process take no more memory than it has, and so much more; no limit where the system knows none."""
    try:
        import resource

        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123
            data_pages = int(statm.read().split()[5])
    except (ImportError, OSError):
        return  # macOS and Windows; what an image claims is still limited.
    limit = data_pages * resource.getpagesize() + num_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


if __name__ == "__main__":
    main()
