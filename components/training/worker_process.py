"""The process in which a worker trains, `components.training.worker`, as the one that starts it sees it."""

import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypedDict

from components.artifacts.summary import Summary
from components.errors import ClusterError, ComponentError

if TYPE_CHECKING:
    from components.training.cluster import Cluster

log = logging.getLogger(__name__)

MAX_RESTARTS = 10
JOINED = "joined"
"""The line that a training process prints when all workers have come together, before its outcome."""
_CHECK_INTERVAL_S = 1
_MAX_READ_BYTES = 65536
_CHIEF_FIRST_S = 30
"""How much longer than the chief another worker waits: the chief decides who is missing, and tells the others."""


class Outcome(TypedDict, total=False):
    """How the process of a worker ends, one of three.

    Attributes:
        summary: of the finished training.
        error: the message of what ends the training for good.
        lost: why it must be started again.
    """

    summary: Summary
    error: str
    lost: str


def train(
    cluster: "Cluster", assignment: Path, attempt: int, *, check: Callable[[], object] = lambda: None
) -> Summary | None:
    """Train in a process of its own; `None` when it, or another worker, was lost and it must be started again.

    What `check` raises meanwhile ends it.
    """
    timeout_s, variable = cluster.patience(attempt)
    if attempt:
        log.warning(
            "trainer: starts again (%d of at most %d times), waiting for all workers at most %d s",
            attempt,
            MAX_RESTARTS,
            timeout_s,
        )
    timeout_s += 0 if cluster.is_chief else _CHIEF_FIRST_S
    end = time.monotonic() + timeout_s
    output = b""
    with _process(cluster, assignment) as process:
        while (part := _read(process.stdout)) != b"":
            output += part or b""
            check()
            if not output and time.monotonic() > end:
                # As this one's process does, the others' wait for all: who does not respond is the one that is lost.
                missing = " and ".join(cluster.name(index) for index in cluster.missing())
                found = f"there is no response from {missing}" if missing else "though all respond, one does not train"
                raise ClusterError(
                    f"Every worker must {'be back' if attempt else 'join'} within {timeout_s} s, and {found}. "
                    f"Start the same command on each, or set {variable} to wait longer."
                )
        process.wait()
    if process.returncode > 0:
        raise ComponentError(f"The training ended with status {process.returncode}. See its log above.")
    _, _, last = output.decode().strip().rpartition("\n")
    outcome: Outcome = {"lost": f"the training was ended by signal {-process.returncode}"}
    if last not in ("", JOINED):
        outcome = json.loads(last)
    if "error" in outcome:
        raise ComponentError(outcome["error"])
    if "lost" in outcome:
        log.warning("trainer: %s", outcome["lost"])
    return outcome.get("summary")


@contextmanager
def _process(cluster: "Cluster", assignment: Path) -> Iterator[subprocess.Popen[bytes]]:
    # It ends when its standard input does, so it ends with this process, however that ends.
    with subprocess.Popen(
        [sys.executable, "-m", "components.training.worker", str(assignment.absolute())],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "TF_CONFIG": cluster.as_tf_config()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _read(pipe: IO[bytes] | None) -> bytes | None:
    """Return what comes within an interval; `None` while there is nothing, and `b""` at the end."""
    if pipe is None:
        return b""
    return pipe.read(_MAX_READ_BYTES) if select.select([pipe], [], [], _CHECK_INTERVAL_S)[0] else None
