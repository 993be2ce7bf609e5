"""What the machine can do: graphics cards, and processors that multiply in bfloat16."""

import logging
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from components.training import cluster

if TYPE_CHECKING:
    import tensorflow as tf

log = logging.getLogger(__name__)

# NVIDIA's cards, those of the Windows Subsystem for Linux, AMD's.
_GPU_DEVICES = ("nvidia[0-9]*", "dxg", "kfd")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}. Received: {precision!r}")


def resolve_precision(precision: str) -> str:
    """Turn `auto` into the fastest precision that costs no accuracy worth the name.

    float16 on graphics cards, bfloat16 on processors with instructions for it (AVX512_BF16, AMX), else float32.
    """
    if precision != "auto":
        return precision
    if _has_gpu():
        return "float16"
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text().split() if cpu.exists() else []
    return "bfloat16" if {"avx512_bf16", "amx_bf16"} & set(flags) else "float32"


@cache
def _has_gpu() -> bool:
    """Return whether TensorFlow finds a graphics card; it is not imported on Linux without a card's device file."""
    if sys.platform == "linux" and not any(p for kind in _GPU_DEVICES for p in Path("/dev").glob(kind)):
        return False
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


@cache
def strategy() -> "tf.distribute.Strategy":
    """Give the distribution of a training step: over the graphics cards of all workers, or of this machine, else none.

    With several workers, waits until all have joined; TensorFlow must not have been used in this process before.
    """
    import tensorflow as tf

    if cluster.from_environment():
        from components.training import replicas as distributed

        return distributed.join()
    num_gpus = len(tf.config.list_physical_devices("GPU"))
    if num_gpus < 2:
        return tf.distribute.get_strategy()
    log.info("training in parallel on %d graphics cards", num_gpus)
    return tf.distribute.MirroredStrategy()
