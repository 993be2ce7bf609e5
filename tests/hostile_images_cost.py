"""Measure what each image of the corpus costs at an entrance, in a process of its own.

Run with the entrance's name and, if not all, the images' names; prints JSON, name to processor seconds, megabytes and
the error's code, or "" where the image is taken.
"""

import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.hostile_images import CORPUS


def _client() -> Callable[[bytes], str]:
    from client.classifier_client import ImageError, preprocessing

    def read(encoded: bytes) -> str:
        try:
            preprocessing.load(encoded, name="hostile", size_px=224)
        except ImageError as exc:
            return exc.code
        return ""

    return read


def _pipeline() -> Callable[[bytes], str]:
    from components.data import examination
    from components.data.sources.source import Photo

    examine = examination.make_examiner()

    def read(encoded: bytes) -> str:
        result, _ = examine(Photo("hostile", 0, "train", encoded))
        return result["rule"] if isinstance(result, dict) else ""

    return read


ENTRANCES = {"client": _client, "pipeline": _pipeline}


def _memory_mb(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1000


def main(entrance: str, *names: str) -> None:
    from PIL import Image

    read = ENTRANCES[entrance]()
    Image.init()
    libc = ctypes.CDLL(None)
    warm = CORPUS["gif_of_frames"]()
    read(warm)
    costs = {}
    for name in names or CORPUS:
        encoded = CORPUS[name]()
        gc.collect()
        libc.malloc_trim(0)  # What an image leaves behind would hide the cost of the next.
        Path("/proc/self/clear_refs").write_text("5")  # The peak starts anew.
        before_mb, before_s = _memory_mb("VmRSS"), time.process_time()
        code = read(encoded)
        costs[name] = (time.process_time() - before_s, _memory_mb("VmHWM") - before_mb, code)
    sys.stdout.write(json.dumps(costs))


if __name__ == "__main__":
    main(*sys.argv[1:])
