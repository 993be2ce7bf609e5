"""Training with several workers: which they are, and the process of its own that each of them trains in.

Reads `TF_CONFIG`, in TensorFlow's form, and `JOIN_TIMEOUT_S`. The chief (the one of type `chief`, else
worker 0) runs the pipeline; its trainer step writes an assignment into its output folder, which all workers see, and
every worker trains in a process that is given the assignment. TensorFlow can join a cluster only once in the life of a
process, so one that has lost a peer ends; it is started again and goes on at the newest checkpoint.
"""

import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from components.artifacts.summary import Summary
from components.errors import ClusterError, ComponentError
from components.storage.files import read_json, write_json

log = logging.getLogger(__name__)

ASSIGNMENT = "assignment.json"
_RELEASE = "over.json"
MAX_RESTARTS = 10
_EXAMPLE = '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'


class Work(TypedDict):
    """What every worker is to train.

    Attributes:
        function: `package.module:function` that trains: it takes the output folder, the work and the replicas.
        inputs: paths of the inputs, relative to the output folder.
        options: of the trainer.
        transform: options of the transform.
    """

    function: str
    inputs: dict[str, str]
    options: dict[str, Any]
    transform: dict[str, Any]


class Assignment(Work):
    """`assignment.json`: the work, with an id by which workers know that they train the same."""

    id: int


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


@dataclass(frozen=True)
class Cluster:
    """The workers of a training.

    Attributes:
        addresses: `host:port` of every worker, the chief first.
        index: which of them this one is.
        timeout_s: how long to wait for the others.
    """

    addresses: tuple[str, ...]
    index: int
    timeout_s: int

    @property
    def is_chief(self) -> bool:
        return self.index == 0

    def as_tf_config(self) -> str:
        """Describe the cluster as TensorFlow reads it, the chief as the first of the workers."""
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": self.addresses}, "task": task})

    def missing(self) -> list[str]:
        """Return the addresses, but one's own, at which no worker listens."""
        return [a for i, a in enumerate(self.addresses) if i != self.index and not _is_listening(a)]

    def train_as_chief(self, out_dir: Path, work: Work) -> Summary:
        """Train as the chief, with every other worker, and return the summary of the training.

        Raises:
            ClusterError: a worker does not join in time, or is lost again and again.
            ComponentError: the training cannot go on.
        """
        path, assignment = out_dir / ASSIGNMENT, Assignment(id=secrets.randbits(32), **work)
        write_json(path, assignment)
        log.info("trainer: waiting for %s (at most %d s)", ", ".join(self.addresses[1:]), self.timeout_s)
        for attempt in range(MAX_RESTARTS + 1):
            if (summary := _train(self, path, attempt)) is not None:
                path.unlink()
                return summary
        raise _too_many_restarts()


def from_environment(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """Read the cluster that `TF_CONFIG` describes; `None` where this is the only worker.

    Raises:
        ClusterError: it does not describe a cluster of workers.
    """
    text = environment.get("TF_CONFIG", "").strip()
    if not text:
        return None

    def wrong(rule: str, received: Any) -> ClusterError:
        return ClusterError(
            f"TF_CONFIG {rule}. Received: {received!r}. An example for the first of two workers: {_EXAMPLE}. "
            "Unset it to train with one."
        )

    try:
        config = json.loads(text)
    except json.JSONDecodeError as exc:
        raise wrong("must be JSON", text) from exc
    if config == {}:
        return None
    jobs = config.get("cluster") if isinstance(config, dict) else None
    if not isinstance(jobs, dict) or not jobs.get("worker"):
        raise wrong("must name its workers in cluster.worker", config)
    if unknown := sorted(set(jobs) - {"chief", "worker"}):
        raise wrong("may have tasks of type chief and worker only", ", ".join(unknown))
    for job, addresses in jobs.items():
        if not isinstance(addresses, list) or not all(isinstance(a, str) for a in addresses):
            raise wrong(f"must give cluster.{job} as a list of addresses", addresses)
    chiefs, workers = jobs.get("chief", []), jobs["worker"]
    addresses = (*chiefs, *workers)
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not (host and port.isdigit() and 0 < int(port) < 65536):
            raise wrong("must give each address as host:port, with a port of 1 to 65535", address)
    if len(set(addresses)) < len(addresses) or len(chiefs) > 1:
        raise wrong("must give each worker an address of its own, and at most one chief", list(addresses))
    task = config.get("task")
    if not isinstance(task, dict) or task.get("type") not in jobs:
        raise wrong(f"must say in task.type and task.index which worker this is: {' or '.join(sorted(jobs))}", task)
    kind, index = task["type"], task.get("index")
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(jobs[kind]):
        raise wrong(f"must give a task.index of 0 to {len(jobs[kind]) - 1} for a {kind}", index)
    timeout = environment.get("JOIN_TIMEOUT_S", "3600")
    if not timeout.isdigit() or int(timeout) < 1:
        raise ClusterError(f"JOIN_TIMEOUT_S must be a whole number of seconds, at least 1. Received: {timeout!r}")
    number = index + (len(chiefs) if kind == "worker" else 0)
    return Cluster(addresses, number, int(timeout)) if len(addresses) > 1 else None


def release_workers(trainings_dir: Path) -> None:
    """Release, as the chief, the workers that still wait: there is nothing to train, it was trained before."""
    write_json(trainings_dir / _RELEASE, secrets.randbits(32))


def train_as_worker(cluster: Cluster, trainings_dir: Path) -> Summary | None:
    """Train as a worker that is not the chief: wait for the chief, and do what the newest assignment says.

    Args:
        cluster: the workers.
        trainings_dir: where the chief's trainer makes its output folders: a folder that all workers share.

    Returns:
        The summary of the training; `None` when the chief finds that there is nothing to train.

    Raises:
        ClusterError: the chief does not begin in time, its assignment is not there, or it is lost again and again.
        ComponentError: the training cannot go on.
    """
    chief = cluster.addresses[0]
    released = _last_release(trainings_dir)
    for attempt in range(MAX_RESTARTS + 1):
        log.info("waiting for the chief, %s, to train (at most %d s)", chief, cluster.timeout_s)
        end = time.monotonic() + cluster.timeout_s
        while not _is_listening(chief):
            if _last_release(trainings_dir) != released:
                return None
            if time.monotonic() > end:
                raise ClusterError(
                    f"The chief, {chief}, must begin to train within {cluster.timeout_s} s, and nothing listens there. "
                    "Look at its log, or set JOIN_TIMEOUT_S to wait longer."
                )
            time.sleep(0.2)
        assignments = sorted(trainings_dir.glob(f"*/{ASSIGNMENT}"), key=lambda p: p.stat().st_mtime)
        if not assignments:
            raise ClusterError(
                f"All workers must share the folder of runs, and there is no assignment of the chief, {chief}, in "
                f"{trainings_dir}. Give each the same --runs-dir, on a file system that they share."
            )
        if (summary := _train(cluster, assignments[-1], attempt)) is not None:
            return summary
    raise _too_many_restarts()


def _last_release(trainings_dir: Path) -> int | None:
    path = trainings_dir / _RELEASE
    return read_json(path) if path.exists() else None


def _too_many_restarts() -> ClusterError:
    return ClusterError(
        f"Workers were lost {MAX_RESTARTS + 1} times, which is more than a training is started again. See what ends "
        "them; the same command goes on at the newest checkpoint."
    )


def _train(cluster: Cluster, assignment: Path, attempt: int) -> Summary | None:
    """Train in a process of its own; `None` when it, or another worker, was lost and it must be started again."""
    if attempt:
        log.warning("trainer: starts again (%d of at most %d times)", attempt, MAX_RESTARTS)
    with _process(cluster, assignment) as process:
        output = process.stdout.read() if process.stdout else ""
        process.wait()
    if process.returncode == -signal.SIGALRM:
        missing = ", ".join(cluster.missing())
        raise ClusterError(
            f"Every worker must join within {cluster.timeout_s} s, and "
            f"{f'nothing listens at {missing}' if missing else 'not all did'}. "
            "Start the same command on each, or set JOIN_TIMEOUT_S to wait longer."
        )
    if process.returncode > 0:
        raise ComponentError(f"The training ended with status {process.returncode}. See its log above.")
    outcome: Outcome = (
        json.loads(output) if output else {"lost": f"the training was ended by signal {-process.returncode}"}
    )
    if "error" in outcome:
        raise ComponentError(outcome["error"])
    if "lost" in outcome:
        log.warning("trainer: %s", outcome["lost"])
    return outcome.get("summary")


@contextmanager
def _process(cluster: Cluster, assignment: Path) -> Iterator[subprocess.Popen[str]]:
    # It ends when its standard input does, so it ends with this process, however that ends.
    with subprocess.Popen(
        [sys.executable, "-m", "components.training.worker", str(assignment.absolute())],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "TF_CONFIG": cluster.as_tf_config(), "JOIN_TIMEOUT_S": str(cluster.timeout_s)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _is_listening(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=2):
            return True
    except OSError:
        return False
