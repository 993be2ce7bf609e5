"""Training with several workers: which they are, and the process of its own that each of them trains in.

Reads `TF_CONFIG`, in TensorFlow's form, `JOIN_TIMEOUT_S` and `REJOIN_TIMEOUT_S`. The chief (the one of type `chief`,
else worker 0) runs the pipeline; its trainer step writes an assignment into its output folder, which all workers see,
and every worker trains in a process that is given the assignment. TensorFlow can join a cluster only once in the life
of a process, so one that has lost a peer ends; it is started again and goes on at the newest checkpoint.
"""

import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from components.artifacts.summary import Summary
from components.errors import ClusterError
from components.storage.files import read_json, write_json
from components.training import worker_process
from components.training.worker_process import MAX_RESTARTS

log = logging.getLogger(__name__)

ASSIGNMENT = "assignment.json"
_RELEASE = "over.json"
_JOIN, _REJOIN = "JOIN_TIMEOUT_S", "REJOIN_TIMEOUT_S"
_PROBE_TIMEOUT_S = 5
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


class Release(TypedDict):
    """`over.json`: the chief trains no more.

    Attributes:
        id: by which workers know that it is a new one.
        error: why training has failed; `None` where there is nothing to train.
    """

    id: int
    error: str | None


@dataclass(frozen=True)
class Cluster:
    """The workers of a training.

    Attributes:
        addresses: `host:port` of every worker, the chief first.
        index: which of them this one is.
        timeout_s: how long to wait for the others when training begins.
        rejoin_timeout_s: how long to wait for all to be back when one of them was lost.
    """

    addresses: tuple[str, ...]
    index: int
    timeout_s: int
    rejoin_timeout_s: int = 600

    @property
    def is_chief(self) -> bool:
        return self.index == 0

    def as_tf_config(self) -> str:
        """Describe the cluster as TensorFlow reads it, the chief as the first of the workers."""
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": self.addresses}, "task": task})

    def missing(self) -> list[int]:
        """Return which workers do not respond; it does not try this one."""
        return [i for i, a in enumerate(self.addresses) if i != self.index and not _is_responding(a)]

    def name(self, index: int) -> str:
        """Name a worker in a message."""
        return f"{f'worker {index}' if index else 'the chief (worker 0)'} at {self.addresses[index]}"

    def patience(self, attempt: int) -> tuple[int, str]:
        """Return how long to wait for the others at an attempt, the first being 0, and the variable that says it."""
        return (self.rejoin_timeout_s, _REJOIN) if attempt else (self.timeout_s, _JOIN)

    def train_as_chief(self, out_dir: Path, work: Work) -> Summary:
        """Train as the chief, with every other worker, and return the summary of the training.

        Raises:
            ClusterError: a worker does not join in time, or is lost again and again.
            ComponentError: the training cannot go on.
        """
        path, assignment = out_dir / ASSIGNMENT, Assignment(id=secrets.randbits(32), **work)
        write_json(path, assignment)
        log.info("trainer: waiting for %s (at most %d s)", ", ".join(self.addresses[1:]), self.timeout_s)
        try:
            for attempt in range(MAX_RESTARTS + 1):
                if (summary := worker_process.train(self, path, attempt)) is not None:
                    path.unlink()
                    return summary
            raise _too_many_restarts()
        except ClusterError as exc:
            release_workers(out_dir.parent, error=str(exc))
            raise


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
    timeouts = {}
    for name, default_s in ((_JOIN, "3600"), (_REJOIN, "600")):
        timeout = timeouts[name] = environment.get(name, default_s)
        if not timeout.isdigit() or int(timeout) < 1:
            raise ClusterError(f"{name} must be a whole number of seconds, at least 1. Received: {timeout!r}")
    number = index + (len(chiefs) if kind == "worker" else 0)
    return Cluster(addresses, number, int(timeouts[_JOIN]), int(timeouts[_REJOIN])) if len(addresses) > 1 else None


def release_workers(trainings_dir: Path, *, error: str | None = None) -> None:
    """Release, as the chief, the workers that still wait: there is nothing to train, or training has failed."""
    write_json(trainings_dir / _RELEASE, Release(id=secrets.randbits(32), error=error))


def train_as_worker(cluster: Cluster, trainings_dir: Path) -> Summary | None:
    """Train as a worker that is not the chief: wait for the chief, and do what the newest assignment says.

    Args:
        cluster: the workers.
        trainings_dir: where the chief's trainer makes its output folders: a folder that all workers share.

    Returns:
        The summary of the training; `None` when the chief finds that there is nothing to train.

    Raises:
        ClusterError: the chief does not begin in time, its assignment is not there, it is lost again and again, or it
            has given up another worker.
        ComponentError: the training cannot go on.
    """
    chief = cluster.addresses[0]
    before = _last_release(trainings_dir)

    def is_released() -> bool:
        release = _last_release(trainings_dir)
        if release is None or release == before:
            return False
        if release["error"]:
            raise ClusterError(f"The chief, {chief}, has given up: {release['error']}")
        return True

    for attempt in range(MAX_RESTARTS + 1):
        timeout_s, variable = cluster.patience(attempt)
        log.info("waiting for the chief, %s, to train (at most %d s)", chief, timeout_s)
        end = time.monotonic() + timeout_s
        while not _is_responding(chief):
            if is_released():
                return None
            if time.monotonic() > end:
                raise ClusterError(
                    f"The chief (worker 0) at {chief} must {'train again' if attempt else 'begin to train'} within "
                    f"{timeout_s} s, and it does not respond. Look at its log, or set {variable} to wait longer."
                )
            time.sleep(0.2)
        assignments = sorted(trainings_dir.glob(f"*/{ASSIGNMENT}"), key=lambda p: p.stat().st_mtime)
        if not assignments:
            raise ClusterError(
                f"All workers must share the folder of runs, and there is no assignment of the chief, {chief}, in "
                f"{trainings_dir}. Give each the same --runs-dir, on a file system that they share."
            )
        if (summary := worker_process.train(cluster, assignments[-1], attempt, check=is_released)) is not None:
            return summary
    raise _too_many_restarts()


def _last_release(trainings_dir: Path) -> Release | None:
    path = trainings_dir / _RELEASE
    return read_json(path) if path.exists() else None


def _too_many_restarts() -> ClusterError:
    return ClusterError(
        f"Workers were lost {MAX_RESTARTS + 1} times, which is more than a training is started again. See what ends "
        "them; the same command goes on at the newest checkpoint."
    )


def _is_responding(address: str) -> bool:
    """Return whether a worker trains there; one that hangs still accepts connections, but sends nothing."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_TIMEOUT_S) as connection:
            # A gRPC server is the first to send: its settings (RFC 9113, 3.4).
            return bool(connection.recv(1))
    except OSError:
        return False
