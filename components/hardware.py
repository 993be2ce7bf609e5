"""What the machine can do: graphics cards, and processors that multiply in bfloat16."""

import logging
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from components import cluster

if TYPE_CHECKING:
    import tensorflow as tf

log = logging.getLogger(__name__)

_COLLECTIVE_TIMEOUT_S = 600
"""How long an operation over all workers may take: longer than one of them needs to save a checkpoint."""
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
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return "float16"
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text().split() if cpu.exists() else []
    return "bfloat16" if {"avx512_bf16", "amx_bf16"} & set(flags) else "float32"


@cache
def strategy() -> "tf.distribute.Strategy":
    """Give the distribution of a training step: over the graphics cards of all workers, or of this machine, else none.

    With several workers, waits until all have joined; TensorFlow must not have been used in this process before.
    """
    import tensorflow as tf

    if workers := cluster.from_environment():
        return _join(workers)
    num_gpus = len(tf.config.list_physical_devices("GPU"))
    if num_gpus < 2:
        return tf.distribute.get_strategy()
    log.info("training in parallel on %d graphics cards", num_gpus)
    return tf.distribute.MirroredStrategy()


def _join(workers: "cluster.Cluster") -> "tf.distribute.Strategy":
    import tensorflow as tf
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
    from tensorflow.python.eager import context

    # What the strategy would set by itself, with a timeout of ours: its own is an hour.
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        cluster_register_timeout_in_ms=workers.timeout_s * 1000,
        coordinated_jobs=[coordination_config_pb2.CoordinatedJob(name="worker", num_tasks=len(workers.addresses))],
    )
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=_COLLECTIVE_TIMEOUT_S)
    joined = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    log.info("training in parallel with %d workers, %d replicas", len(workers.addresses), joined.num_replicas_in_sync)
    return joined
