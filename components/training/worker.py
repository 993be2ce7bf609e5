"""The process in which one of several workers trains: `python -m components.training.worker ASSIGNMENT`.

Reads `TF_CONFIG` and the chief's assignment; trains together with the other workers. Prints a line when all have come
together, and the `Outcome` as one JSON object. It ends when its standard input does.
"""

import fcntl
import importlib
import json
import logging
import os
import re
import select
import sys
import time
from pathlib import Path
from typing import NoReturn

from components.errors import ComponentError
from components.storage.files import read_json
from components.training import cluster
from components.training.cluster import Assignment, Cluster
from components.training.hardware import Replicas
from components.training.worker_process import JOINED, Outcome

_FAREWELL_S = 5


def main(workers: Cluster, path: Path) -> Outcome:
    """Join the other workers and train what the assignment says."""
    import tensorflow as tf

    from components.training import replicas as distributed

    assignment: Assignment = read_json(path)
    try:
        strategy = distributed.join()
    except tf.errors.OpError as exc:
        return {"lost": f"the workers did not come together ({str(exc).strip().splitlines()[0]})"}
    print(JOINED, flush=True)
    try:
        if not distributed.barrier(strategy, assignment["id"]):
            return {"lost": "another worker has another assignment"}
        module, _, name = assignment["function"].partition(":")
        train = getattr(importlib.import_module(module), name)
        summary = train(path.parent, assignment, Replicas(strategy, workers.is_chief))
        # No worker leaves before the chief has written its files: until then, it may have to start again with all.
        distributed.barrier(strategy, assignment["id"])
    except tf.errors.OpError as exc:
        if not distributed.is_lost(exc):
            raise
        reported = re.search(r"Error reported from /job:worker/task:(\d+)", str(exc))
        lost = workers.name(int(reported[1])) if reported else "another worker, or this one,"
        # From here: to return frees what waits for the lost worker, which can take half a minute.
        _end({"lost": f"{lost} was lost ({type(exc).__name__})"})
    except ComponentError as exc:
        return {"error": str(exc)}
    return {"summary": summary}


def _let_others_leave(workers: Cluster) -> None:
    """Wait until the other workers are gone: what they have not yet received is lost when the chief's process ends."""
    end = time.monotonic() + _FAREWELL_S
    while len(workers.missing()) < len(workers.addresses) - 1 and time.monotonic() < end:
        time.sleep(0.05)


def _end(outcome: Outcome) -> NoReturn:
    print(json.dumps(outcome), flush=True)
    # TensorFlow's own farewell to the cluster waits for everyone.
    os._exit(0)


def _end_with_standard_input() -> None:
    """Let the system end this process (`SIGIO`) when the other end of its standard input is closed."""
    fcntl.fcntl(sys.stdin, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sys.stdin, fcntl.F_SETFL, fcntl.fcntl(sys.stdin, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([sys.stdin], [], [], 0)[0]:
        sys.exit("The process that started this one is gone already.")


if __name__ == "__main__":
    _end_with_standard_input()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for package in ("components", "export"):
        logging.getLogger(package).setLevel(logging.INFO)
    for package in ("absl", "tensorflow"):
        logging.getLogger(package).setLevel(logging.ERROR)
    workers = cluster.from_environment()
    if workers is None:
        sys.exit("A training worker needs a TF_CONFIG with several workers. Received: none.")
    outcome = main(workers, Path(sys.argv[1]))
    if workers.is_chief and "lost" not in outcome:
        _let_others_leave(workers)
    _end(outcome)
