"""Commands that serve, and say in a line when they are ready."""

import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_START_S = 120


@contextmanager
def start_ready(
    command: Sequence[str], log_path: Path, *, env: dict[str, str] | None = None
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run a command for as long as the block lasts; yield its process and the line that says `ready: …`.

    What it logs is appended to a file. It is killed where it is not ready within two minutes, or still runs in the end.
    """
    with log_path.open("a") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout
    alarm = threading.Timer(_START_S, process.kill)  # which ends the line that is waited for
    alarm.daemon = True
    alarm.start()
    try:
        ready_line = process.stdout.readline().strip()
        alarm.cancel()
        assert ready_line.startswith("ready: "), log_path.read_text()
        yield process, ready_line
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
