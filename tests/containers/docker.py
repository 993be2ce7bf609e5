"""Commands of `docker`, with what they print."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CALL_S = 120

RESTRICTED = (
    *("--read-only", "--tmpfs", "/tmp"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)
"""The rights that our images have where they are used, as options of `docker run`."""


def docker(*arguments: str | Path, timeout_s: float = CALL_S) -> str:
    """Run a command of `docker` and return what it prints; an error has what it said."""
    done = subprocess.run(
        ["docker", *map(str, arguments)], capture_output=True, text=True, timeout=timeout_s, check=False, cwd=ROOT
    )
    assert done.returncode == 0, f"docker {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()
