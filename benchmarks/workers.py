"""A training of a chief and two workers on machines of `benchmarks.network`, which share a folder of runs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.network import Network
from components.artifacts.training import read_classifier, read_history

_ROOT = Path(__file__).resolve().parents[1]
_PORT = 2222
NUM_MACHINES = 3
CHIEF, WORKER = 0, 2
SETTINGS = (
    "examples.source=synthetic",
    "examples.num_synthetic_per_class=10",
    "model.backbone=small_cnn",
    "model.weights=none",
    "model.image_size_px=32",
    "features.num_augmented_views=1",
    "features.precision=float32",
    "trainer.num_heads=1",
    "trainer.epochs=4",
    "trainer.batch_size=16",
    "trainer.fine_tune=1",
    "trainer.fine_tune_epochs=8",
    "trainer.early_stopping_patience=12",
    "trainer.precision=float32",
)
LIMIT_S = 600
"""After which a training that has not ended counts as hanging."""


class Training:
    """One training of the three machines; a context manager that ends what it started.

    Attributes:
        network: between them.
        processes: the command on each.
        folder: of the runs that they share, and their logs.
    """

    def __init__(self, network: Network, folder: Path, *, rejoin_timeout_s: int) -> None:
        self.network = network
        self.folder = folder
        self.rejoin_timeout_s = rejoin_timeout_s
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.addresses = [f"{host}:{_PORT}" for host in network.hosts]

    def __enter__(self) -> "Training":
        for number in range(NUM_MACHINES):
            self.start(number)
        return self

    def __exit__(self, *_: object) -> None:
        for number in self.processes:
            self.signal(number, signal.SIGKILL)
            self.processes[number].wait()

    def start(self, number: int) -> None:
        """Start the command on a machine, for the first time or again."""
        task = {"type": "worker", "index": number}
        environment = {
            "TF_CONFIG": json.dumps({"cluster": {"worker": self.addresses}, "task": task}),
            "JOIN_TIMEOUT_S": str(LIMIT_S),
            "REJOIN_TIMEOUT_S": str(self.rejoin_timeout_s),
        }
        command = self.network.on(number, _command(self.folder))
        self.processes[number] = _start(command, self.folder / f"{number}.log", environment)

    def signal(self, number: int, sent: signal.Signals) -> None:
        """Send a signal to all processes of a machine."""
        if self.processes[number].poll() is None:
            os.killpg(self.processes[number].pid, sent)

    def kill(self, number: int) -> None:
        self.signal(number, signal.SIGKILL)
        self.processes[number].wait()

    def log(self, number: int) -> str:
        return (self.folder / f"{number}.log").read_text()

    def wait_for(self, pattern: str) -> None:
        """Wait for a file of the chief's trainer."""
        while not list(self.folder.glob(f"runs/artifacts/trainer/*.partial/{pattern}")):
            if self.processes[CHIEF].poll() is not None:
                raise RuntimeError(f"The chief ended before {pattern} was there:\n{self.log(CHIEF)}")
            time.sleep(0.002)


def prepare(folder: Path) -> None:
    """Train with one process in `folder`: what the others are compared with, and what comes before the trainer."""
    log = folder / "log"
    process = _start(_command(folder), log, {})
    try:
        status = process.wait(LIMIT_S)
    finally:
        process.kill()
    if status:
        raise RuntimeError(f"Training with one process failed:\n{log.read_text()}")


def _command(folder: Path) -> list[str]:
    folders = ["--runs-dir", str(folder / "runs"), "--models-dir", str(folder / "models")]
    return [sys.executable, "-m", "pipelines", "run", "--to", "trainer", "--set", *SETTINGS, *folders]


def _start(command: list[str], log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own."""
    with log.open("ab") as output:
        environment = {**os.environ, **environment}
        return subprocess.Popen(
            command, cwd=_ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )


def compare(prepared: Path, folder: Path) -> float | None:
    """Return the largest difference of any weight, loss or accuracy of two trainings; `None` without the second."""
    found = [list(each.glob("runs/artifacts/trainer/*/history.json")) for each in (prepared, folder)]
    if not found[1]:
        return None
    (one,), (other,) = ([path.parent for path in paths] for paths in found)
    weights = zip(*(read_classifier(each).get_weights() for each in (one, other)), strict=True)
    differences = [np.abs(a - b).max() for a, b in weights]
    histories = [read_history(each) for each in (one, other)]
    for phase, columns in histories[0].items():
        differences += [
            np.abs(np.subtract(values, histories[1][phase][name])).max() for name, values in columns.items()
        ]
    return float(max(differences))
