"""The process in which one of several workers trains: `python -m components.training_worker ASSIGNMENT`.

Reads `TF_CONFIG` and the chief's assignment; trains together with the other workers. Prints one JSON object: the
`summary` of the training, the `error` that ends it, or what was `lost` when it must be started again. It ends when its
standard input does.
"""

import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

from components import cluster, trainer
from components.errors import ClusterError, ComponentError
from components.files import read_json
from components.trainer import TrainerOptions
from components.transform import TransformOptions


def main(assignment: Path) -> dict[str, Any]:
    """Train as the assignment says."""
    import tensorflow as tf

    from components import distributed, hardware

    work = read_json(assignment)
    workers = cluster.from_environment()
    if workers is None:
        raise ClusterError("A training worker needs a TF_CONFIG with several workers, and there is none.")
    try:
        strategy = hardware.strategy()
    except tf.errors.OpError as exc:
        if missing := workers.missing():
            return {
                "error": f"Every worker must join within {workers.timeout_s} s, and nobody answers at "
                f"{', '.join(missing)}. Start the same command there, or set JOIN_TIMEOUT_S to wait longer."
            }
        return {"lost": f"the workers did not come together ({str(exc).strip().splitlines()[0]})"}
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


def _end_with_standard_input() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for package in ("components", "export"):
        logging.getLogger(package).setLevel(logging.INFO)
    for package in ("absl", "tensorflow"):
        logging.getLogger(package).setLevel(logging.ERROR)
    print(json.dumps(main(Path(sys.argv[1]))), flush=True)
    # TensorFlow's own farewell to the cluster waits for everyone.
    os._exit(0)
