"""Classify photos in a process that does nothing else: `python -m export.measure MODEL FOLDER [NUM_PHOTOS]`.

Reads a model, a LiteRT file (through the thin client) or the folder of a SavedModel, and the encoded photos in a
folder: all, or the first `NUM_PHOTOS`. Prints one JSON object, `Measured`. It exists because time and memory of a model
can only be measured where nothing else is loaded.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

Classify = Callable[[bytes], tuple[dict[str, float] | None, float | None, bool | None]]
"""An encoded photo's probabilities by class, its p-value, and whether it is known: `None` where that is not told."""


class Measured(TypedDict):
    """What is printed.

    Attributes:
        predictions: of each photo, in the order of the files' names: `{class: probability}`, or null where the client
            cannot read it.
        p_values: likewise, its p-value; null also where the model does not know its limits.
        is_known: likewise, whether it is known.
        latency_ms: median, from the encoded photo to its prediction, one at a time.
        peak_memory_bytes: of this process.
    """

    predictions: list[dict[str, float] | None]
    p_values: list[float | None]
    is_known: list[bool | None]
    latency_ms: float
    peak_memory_bytes: int


def main(model: Path, photos_dir: Path, num_photos: int | None = None) -> None:
    """Classify the photos in a folder and print what was measured."""
    classify = open_saved_model(model) if model.is_dir() else _open_litert(model)
    found, times_ms = [], []
    for path in sorted(photos_dir.iterdir())[:num_photos]:
        encoded = path.read_bytes()
        start_s = time.perf_counter()
        found.append(classify(encoded))
        times_ms.append((time.perf_counter() - start_s) * 1000)
    measured: Measured = {
        "predictions": [probabilities for probabilities, _, _ in found],
        "p_values": [p_value for _, p_value, _ in found],
        "is_known": [is_known for _, _, is_known in found],
        "latency_ms": statistics.median(times_ms),
        "peak_memory_bytes": peak_memory_bytes(),
    }
    print(json.dumps(measured))


def _open_litert(file: Path) -> Classify:
    from client.classifier_client import Client, ImageError, LiteRTTransport

    client = Client(LiteRTTransport(file))

    def classify(encoded: bytes) -> tuple[dict[str, float] | None, float | None, bool | None]:
        (result,) = client.classify(encoded)
        if isinstance(result, ImageError):
            return None, None, None
        return result.probabilities, result.p_value, result.is_known

    return classify


def open_saved_model(folder: Path) -> Classify:
    """Load a SavedModel; return what classifies an encoded photo by `serving_default`."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    call = loaded.signatures["serving_default"]
    call.model = loaded  # whose variables the signature alone does not keep

    def classify(encoded: bytes) -> tuple[dict[str, float], float | None, bool | None]:
        outputs = call(image_bytes=tf.constant([encoded]))
        (probabilities,), (classes,) = (outputs[name].numpy() for name in ("probabilities", "classes"))
        p_value, is_known = (outputs[n].numpy().item() if n in outputs else None for n in ("p_value", "is_known"))
        return {name.decode(): p for name, p in zip(classes, probabilities.tolist(), strict=True)}, p_value, is_known

    return classify


def peak_memory_bytes() -> int:
    """Return the peak memory of this process (Linux: `VmHWM`; `ru_maxrss` counts its parent there)."""
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
