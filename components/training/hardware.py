"""What the machine has: graphics cards, replicas on them, and processors that multiply in bfloat16."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

log = logging.getLogger(__name__)

# NVIDIA's cards, those of the Windows Subsystem for Linux, AMD's.
_GPU_DEVICES = ("nvidia[0-9]*", "dxg", "kfd")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Replicas:
    """The replicas that train together.

    Attributes:
        strategy: TensorFlow's distribution of a training step over them.
        is_chief: whether this process writes what they have trained.
    """

    strategy: "tf.distribute.Strategy"
    is_chief: bool = True

    @property
    def are_several(self) -> bool:
        return bool(self.strategy.num_replicas_in_sync > 1)

    @property
    def worker(self) -> int:
        """The number of this process among the workers, from 0."""
        cluster = self.strategy.cluster_resolver
        return (cluster and cluster.task_id) or 0


def resolve_precision(precision: str) -> str:
    """Return the precision; for `auto` the fastest one that costs no accuracy worth the name.

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
def local_replicas() -> Replicas:
    """Return the replicas of this machine alone: one on each graphics card, where there are several, or else one."""
    import tensorflow as tf

    num_gpus = len(tf.config.list_physical_devices("GPU"))
    if num_gpus < 2:
        return Replicas(tf.distribute.get_strategy())
    log.info("training in parallel on %d graphics cards", num_gpus)
    return Replicas(tf.distribute.MirroredStrategy())


@contextmanager
def bfloat16_graphs(on: bool) -> Iterator[None]:
    """Let TensorFlow's graph optimizer multiply in bfloat16 while inside: on a processor faster than Keras' policy."""
    import tensorflow as tf

    name = "auto_mixed_precision_onednn_bfloat16"
    before = tf.config.optimizer.get_experimental_options().get(name, False)
    tf.config.optimizer.set_experimental_options({name: on})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({name: before})
