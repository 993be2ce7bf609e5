"""The process in which one of several workers trains: `python -m components.training.worker ASSIGNMENT`.

Reads `TF_CONFIG` and the chief's assignment; trains together with the other workers. Prints one JSON object: the
`summary` of the training, the `error` that ends it, or what was `lost` when it must be started again. It ends when its
standard input does, and by `SIGALRM` when the other workers do not join in time.
"""

import fcntl
import json
import logging
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from components import trainer
from components.data.transform import TransformOptions
from components.errors import ClusterError, ComponentError
from components.storage.files import read_json
from components.trainer import TrainerOptions
from components.training import cluster

_FAREWELL_S = 5


def main(assignment: Path) -> dict[str, Any]:
    """Train as the assignment says."""
    import tensorflow as tf

    from components.training import hardware
    from components.training import replicas as distributed

    work = read_json(assignment)
    workers = cluster.from_environment()
    if workers is None:
        raise ClusterError("A training worker needs a TF_CONFIG with several workers, and there is none.")
    # While TensorFlow waits for the other workers no Python runs: only a signal ends it.
    signal.alarm(workers.timeout_s)
    try:
        strategy = hardware.strategy()
    except tf.errors.OpError as exc:
        return {"lost": f"the workers did not come together ({str(exc).strip().splitlines()[0]})"}
    finally:
        signal.alarm(0)
    try:
        if not distributed.agree(strategy, work["id"]):
            return {"lost": "another worker has another assignment"}
        summary = trainer.train_here(
            **{name: assignment.parent / path for name, path in work["inputs"].items()},
            out_dir=assignment.parent,
            options=TrainerOptions(**work["options"]),
            transform=TransformOptions(**work["transform"]),
        )
        # Nobody leaves before the chief has written its files, so that it can be started again with the others there.
        distributed.agree(strategy, work["id"])
    except distributed.LOST as exc:
        return {"lost": f"another worker was lost ({type(exc).__name__})"}
    except ComponentError as exc:
        return {"error": str(exc)}
    return {"summary": summary}


def _let_others_go_first() -> None:
    """Wait, as the chief, until the others are gone: what they have not yet received is lost when this process ends."""
    workers = cluster.from_environment()
    end = time.monotonic() + _FAREWELL_S
    while workers and workers.is_chief and time.monotonic() < end:
        if len(workers.missing()) == len(workers.addresses) - 1:
            return
        time.sleep(0.05)


def _end_with_standard_input() -> None:
    """Let the system end this process (`SIGIO`) when whoever holds the other end of its standard input is gone."""
    fcntl.fcntl(sys.stdin, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sys.stdin, fcntl.F_SETFL, fcntl.fcntl(sys.stdin, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([sys.stdin], [], [], 0)[0]:
        sys.exit("Whoever started this is gone already.")


if __name__ == "__main__":
    _end_with_standard_input()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for package in ("components", "export"):
        logging.getLogger(package).setLevel(logging.INFO)
    for package in ("absl", "tensorflow"):
        logging.getLogger(package).setLevel(logging.ERROR)
    print(json.dumps(main(Path(sys.argv[1]))), flush=True)
    _let_others_go_first()
    # TensorFlow's own farewell to the cluster waits for everyone.
    os._exit(0)
