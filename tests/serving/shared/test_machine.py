from pathlib import Path

import pytest

from serving.shared.machine import count_processors, read_memory_bytes

V2, V1 = "0::/kubepods/pod1\n", "5:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "share"),
    [
        ({}, None),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/kubepods/pod1/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/kubepods/pod1/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/kubepods/pod1/cpu.max": "20000 100000\n"}, 1),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/kubepods/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/docker/a/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/docker/a/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_a_quota_counts_and_without_one_the_affinity(tmp_path: Path, files: dict[str, str], share: int | None) -> None:
    write(tmp_path, files)
    assert count_processors(tmp_path) == (share or count_processors(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/kubepods/pod1/memory.max": "max\n"}, None),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/kubepods/pod1/memory.max": "1000000\n"}, 1_000_000),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/kubepods/memory.max": "1000000\n"}, 1_000_000),
        ({"proc/self/cgroup": V1, "sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes": "1000000\n"}, 1_000_000),
        ({"proc/self/cgroup": V1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
    ],
)
def test_a_limit_counts_and_without_one_the_memory_of_the_machine(
    tmp_path: Path, files: dict[str, str], limit: int | None
) -> None:
    write(tmp_path, files)
    assert read_memory_bytes(tmp_path) == (limit or read_memory_bytes(tmp_path / "nowhere"))
