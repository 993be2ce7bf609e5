"""The command with a cluster: the chief runs the pipeline, the other workers join its training, and may be killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from benchmarks.workers import SETTINGS as OF_BENCHMARK
from components.artifacts.training import read_classifier, read_history
from pipelines.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (
    *OF_BENCHMARK,
    "trainer.epochs=2",
    # Enough that the kill comes before the last.
    "trainer.fine_tune_epochs=12",
)
HALF_A_CLUSTER = '{"cluster": {"worker": ["a:1", "b:1"]}}'
TIMEOUT_S = 300


def described(index: int, addresses: tuple[str, str] = ("127.0.0.1:1", "127.0.0.1:2")) -> str:
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


@pytest.mark.parametrize(
    ("command", "cluster", "message"),
    [
        ("run", HALF_A_CLUSTER, "TF_CONFIG must say in task.type and task.index which worker this is"),
        ("compare", HALF_A_CLUSTER, "TF_CONFIG must say in task.type and task.index which worker this is"),
        ("run", described(1), "The chief (worker 0) at 127.0.0.1:1 must begin to train within 1 s"),
        ("compare", described(0), "A comparison trains with one worker"),
    ],
    ids=["half a cluster", "half a cluster to compare with", "no chief", "a cluster to compare with"],
)
def test_cluster_that_cannot_train_is_an_error_before_any_work(
    command: str,
    cluster: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TF_CONFIG", cluster)
    monkeypatch.setenv("JOIN_TIMEOUT_S", "1")
    assert main([command, "--runs-dir", str(tmp_path / "runs"), "--models-dir", str(tmp_path / "models")]) == 1
    assert f"error: {message}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


class Workers:
    """Two workers on loopback that share a folder of runs, each a command of its own; and the same command alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[int | None, subprocess.Popen[bytes]] = {}
        with ExitStack() as stack:
            servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
            one, two = (f"127.0.0.1:{server.getsockname()[1]}" for server in servers)
        self.addresses = (one, two)

    def runs(self, index: int | None) -> Path:
        return self.folder / ("runs" if index is not None else "alone")

    def start(self, index: int | None, timeout_s: int = TIMEOUT_S) -> None:
        """Start a worker, or the command without others."""
        folders = ["--runs-dir", str(self.runs(index)), "--models-dir", str(self.folder / "models")]
        cluster = {"TF_CONFIG": described(index, self.addresses)} if index is not None else {}
        with (self.folder / f"{index}.log").open("ab") as log:
            self.processes[index] = subprocess.Popen(
                [sys.executable, "-m", "pipelines", "run", "--to", "trainer", "--set", *SETTINGS, *folders],
                cwd=ROOT,
                env={**os.environ, **cluster, "JOIN_TIMEOUT_S": str(timeout_s)},
                stdout=log,
                stderr=log,
            )

    def log(self, index: int | None) -> str:
        return (self.folder / f"{index}.log").read_text()

    def wait(self, index: int | None) -> int:
        return self.processes[index].wait(TIMEOUT_S)

    def kill(self, index: int) -> None:
        self.processes[index].send_signal(signal.SIGKILL)
        self.processes[index].wait()

    def until(self, pattern: str) -> None:
        """Wait for a file of the chief."""
        end = time.monotonic() + TIMEOUT_S
        while not list(self.runs(0).glob(pattern)):
            assert time.monotonic() < end, f"{pattern} never came"
            assert self.processes[0].poll() is None, self.log(0)
            time.sleep(0.002)

    def until_log(self, index: int, text: str, times: int) -> None:
        """Wait until a log holds a text so many times."""
        end = time.monotonic() + TIMEOUT_S
        while self.log(index).count(text) < times:
            assert time.monotonic() < end, self.log(index)
            time.sleep(0.02)

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def training(self, index: int | None) -> Path:
        (history,) = self.runs(index).glob("artifacts/trainer/*/history.json")
        return history.parent


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    found = Workers(tmp_path)
    yield found
    found.stop()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [1, 0], ids=["worker", "chief"])
def test_training_whose_worker_is_killed_and_started_again_ends_as_an_undisturbed_one(
    workers: Workers, killed: int
) -> None:
    workers.start(None)
    assert workers.wait(None) == 0, workers.log(None)
    for index in (0, 1):
        workers.start(index)
    workers.until("artifacts/trainer/*.partial/checkpoints/fine_tune/epoch-?????")
    workers.kill(killed)
    workers.start(killed)
    for index in (0, 1):
        assert workers.wait(index) == 0, workers.log(index)
    assert "trainer: starts again (1 of" in workers.log(1 - killed), "the other one goes on by itself"
    assert "fine_tune goes on after epoch" in workers.log(0)
    one, other = workers.training(0), workers.training(None)
    history, expected = read_history(one), read_history(other)
    for phase, columns in expected.items():
        for name, values in columns.items():
            # The order in which two workers' sums are added up is another one.
            np.testing.assert_allclose(history[phase][name], values, rtol=0, atol=1e-4, err_msg=f"{phase} {name}")
    weights = [read_classifier(folder).get_weights() for folder in (one, other)]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)
    waits = workers.log(1).count("waiting for the chief")
    workers.start(1)
    workers.until_log(1, "waiting for the chief", times=waits + 1)
    workers.start(0)
    for index in (0, 1):
        assert workers.wait(index) == 0, workers.log(index)
    assert "Nothing to train" in workers.log(1), "it is cached"


@pytest.mark.slow
def test_worker_that_never_joins_is_an_error_that_names_it(workers: Workers) -> None:
    workers.start(0, timeout_s=5)
    assert workers.wait(0) == 1
    message = "error: Every worker must join within 5 s, and there is no response from "
    message += f"worker 1 at {workers.addresses[1]}. Start"
    assert message in workers.log(0)


@pytest.mark.slow
def test_training_process_ends_with_the_command_that_started_it(workers: Workers) -> None:
    def is_listening() -> bool:
        host, _, port = workers.addresses[0].partition(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    def wait_until(state: bool) -> None:
        end = time.monotonic() + TIMEOUT_S
        while is_listening() is not state:
            assert time.monotonic() < end, workers.log(0)
            time.sleep(0.05)

    workers.start(0)
    wait_until(True)
    workers.kill(0)
    wait_until(False)
