"""How much of this machine the process may use: what its container allows, not what the host has."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/")
# A cgroup without a limit says "max" (v2), or a number near the largest there is (v1).
_NO_LIMIT = 1 << 60


def count_processors(root: Path = _ROOT) -> int:
    """Return the number of processors that the process may keep busy, by its affinity and its cgroups' quota.

    Args:
        root: holds `proc` and `sys`.
    """
    # macOS has no affinity.
    num_allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [num_allowed, *_read_quotas(root)]
    return max(1, int(min(shares)))


def read_memory_bytes(root: Path = _ROOT) -> int:
    """Return the memory that the process may take, with all others of its cgroups.

    Args:
        root: holds `proc` and `sys`.
    """
    limits = [
        int(text)
        for folder, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes"))
        for text in _read(root, folder, name)
        if text.isdecimal() and int(text) < _NO_LIMIT
    ]
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *limits])


def _read_quotas(root: Path) -> Iterator[float]:
    """Yield processors: the processor time that a cgroup may take in a period, by the period."""
    for text in _read(root, "", "cpu.max"):
        quota, _, period = text.partition(" ")
        if quota.isdecimal() and period.isdecimal():
            yield int(quota) / int(period)
    quotas, periods = (list(_read(root, "cpu", f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
    for quota, period in zip(quotas, periods, strict=False):
        if quota.isdecimal() and period.isdecimal():  # else -1: no limit
            yield int(quota) / int(period)


def _read(root: Path, controller: str, name: str) -> Iterator[str]:
    """Yield a file's content of the process's cgroup and of those around it; "" is version 2, which has no controllers.

    In a container its own cgroup may be named as on the host, and stand at the top.
    """
    top = root / "sys" / "fs" / "cgroup" / controller
    folder = top / _find_cgroup(root, controller)
    for each in (folder, *folder.parents):
        with suppress(OSError):
            yield (each / name).read_text().strip()
        if each == top:
            return


def _find_cgroup(root: Path, controller: str) -> str:
    """Return the path of the process's cgroup (cgroups(7), /proc/[pid]/cgroup)."""
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path.lstrip("/")
    return ""
