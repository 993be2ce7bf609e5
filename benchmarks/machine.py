"""The machine that a benchmark ran on: its processor, what that computes at most, and what a process took of it."""

import os
import platform
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

_SIZE = 2048
_NUM_TRIES = 5
_PEAK = Path(__file__).with_name("peak.c")
_TYPES = ("float32", "bfloat16", "int8")
_INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")


def describe() -> str:
    """Name the processor, its instructions, the cores that this process may use, and what they compute at most."""
    left = np.ones((_SIZE, _SIZE), np.float32)
    best_s = min(_time_product(left) for _ in range(_NUM_TRIES))
    product = f"{2 * _SIZE**3 / best_s / 1e9:.0f} GFLOP/s in a float32 matrix product"
    peaks = (
        ", ".join(f"{name} {peak:.0f}" for name, peak in measure_peaks().items())
        or "not measured, without a C compiler"
    )
    found = _read_info("flags").split()
    instructions = " ".join(name for name in _INSTRUCTIONS if name in found) or "unknown"
    return (
        f"{_name_processor()} ({instructions}), {count_cores()} cores: {product}; "
        f"one core, 10^9 multiply-adds a second: {peaks}"
    )


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure_peaks(num_cores: int = 1) -> dict[str, float]:
    """Return what cores compute at most together, in 10^9 multiply-adds a second, by the type of the factors.

    Types whose instructions the processor lacks are left out; all are where there is no C compiler, or no x86-64.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peak"
        if subprocess.run([compiler, "-O2", "-o", program, _PEAK], capture_output=True, check=False).returncode:
            return {}
        with ThreadPoolExecutor(num_cores) as pool:
            printed = list(pool.map(_run, [program] * num_cores))
    peaks = (sum(map(float, column)) for column in zip(*printed, strict=True))
    return {name: peak for name, peak in zip(_TYPES, peaks, strict=True) if peak}


def _run(program: Path) -> list[str]:
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()


def processor_s(process_id: int) -> float:
    """Return the processor time that a process has taken so far, from Linux's /proc."""
    fields = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _time_product(left: np.ndarray) -> float:
    start = time.perf_counter()
    left @ left
    return time.perf_counter() - start


def _name_processor() -> str:
    return _read_info("model name") or platform.processor() or platform.machine()


def _read_info(name: str) -> str:
    """Return a field of Linux's /proc/cpuinfo; empty where there is none."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
