"""The machine that a benchmark ran on: its processor, what that computes at most, and what a process took of it."""

import os
import platform
import time
from pathlib import Path

import numpy as np

_SIZE = 2048
_NUM_TRIES = 5


def describe() -> str:
    """Name the processor, the cores that this process may use, and the peak of a float32 matrix product on them."""
    left = np.ones((_SIZE, _SIZE), np.float32)
    best_s = min(_time_product(left) for _ in range(_NUM_TRIES))
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_name_processor()}, {num_cores} cores, {2 * _SIZE**3 / best_s / 1e9:.0f} GFLOP/s in float32"


def processor_s(process_id: int) -> float:
    """Return the processor time that a process has taken so far, from Linux's /proc."""
    fields = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _time_product(left: np.ndarray) -> float:
    start = time.perf_counter()
    left @ left
    return time.perf_counter() - start


def _name_processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
