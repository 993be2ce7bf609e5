"""Who the workers are, and how each trains in a process that is started again when a worker was lost."""

import json
import os
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.errors import ClusterError, ComponentError
from components.storage.files import read_json, write_json
from components.training import cluster, worker_process
from components.training.cluster import ASSIGNMENT, MAX_RESTARTS, Cluster, Work

TWO = ["10.0.0.1:2222", "10.0.0.2:2222"]
WORK: Work = {"inputs": {}, "options": {}, "transform": {}}


def described(jobs: Any, kind: str = "worker", index: Any = 0) -> dict[str, Any]:
    return {"cluster": jobs, "task": {"type": kind, "index": index}}


def read(config: Any, **environment: str) -> Cluster | None:
    return cluster.from_environment({"TF_CONFIG": json.dumps(config), **environment})


@pytest.mark.parametrize("environment", [{}, {"TF_CONFIG": ""}, {"TF_CONFIG": "{}"}], ids=str)
def test_without_a_cluster_there_is_one_worker(environment: dict[str, str]) -> None:
    assert cluster.from_environment(environment) is None


def test_cluster_of_one_is_no_cluster() -> None:
    assert read(described({"worker": TWO[:1]})) is None


def test_workers_are_numbered_from_the_chief() -> None:
    assert read(described({"worker": TWO}, index=1), JOIN_TIMEOUT_S="7", REJOIN_TIMEOUT_S="8") == Cluster(
        tuple(TWO), 1, 7, 8
    )
    jobs = {"worker": TWO, "chief": ["10.0.0.9:1"]}
    found = [read(described(jobs, "chief")), read(described(jobs)), read(described(jobs, index=1))]
    assert found == [Cluster(("10.0.0.9:1", *TWO), index, 3600) for index in range(3)]
    assert [worker.is_chief for worker in found if worker] == [True, False, False]
    assert found[2] is not None
    assert cluster.from_environment({"TF_CONFIG": found[2].as_tf_config()}) == found[2]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([], "must name its workers in cluster.worker"),
        ({"task": {"type": "worker", "index": 0}}, "must name its workers in cluster.worker"),
        (described({"chief": TWO[:1]}, "chief"), "must name its workers in cluster.worker"),
        (described({"worker": []}), "must name its workers in cluster.worker"),
        (described({"worker": TWO, "ps": ["a:1"]}), "tasks of type chief and worker only. Received: 'ps'"),
        (described({"worker": TWO, "evaluator": ["a:1"]}), "chief and worker only. Received: 'evaluator'"),
        (described({"worker": TWO[0]}), "must give cluster.worker as a list of addresses"),
        (described({"worker": {"0": TWO[0]}}), "must give cluster.worker as a list of addresses"),
        (described({"worker": [TWO[0], "10.0.0.2"]}), "as host:port, with a port of 1 to 65535. Received: '10.0.0.2'"),
        (described({"worker": [TWO[0], ":2222"]}), "as host:port"),
        (described({"worker": [TWO[0], "10.0.0.2:65536"]}), "as host:port"),
        (described({"worker": [TWO[0], TWO[0]]}), "an address of its own"),
        (described({"worker": TWO, "chief": ["a:1", "b:1"]}), "at most one chief"),
        ({"cluster": {"worker": TWO}}, "must say in task.type and task.index which worker this is"),
        (described({"worker": TWO}, "chief"), "which worker this is: worker"),
        (described({"worker": TWO}, index=2), "task.index of 0 to 1 for a worker. Received: 2"),
        (described({"worker": TWO}, index=-1), "task.index of 0 to 1 for a worker. Received: -1"),
        (described({"worker": TWO}, index="0"), "task.index of 0 to 1 for a worker. Received: '0'"),
        ({"cluster": {"worker": TWO}, "task": {"type": "worker"}}, "Received: None"),
    ],
    ids=str,
)
def test_half_a_cluster_is_an_error(config: Any, message: str) -> None:
    with pytest.raises(ClusterError) as caught:
        read(config)
    assert message in str(caught.value)
    assert "An example for the first of two workers: {" in str(caught.value)


def test_text_that_is_not_json_is_an_error() -> None:
    with pytest.raises(ClusterError, match=r"TF_CONFIG must be JSON. Received: 'worker=a:1'"):
        cluster.from_environment({"TF_CONFIG": "worker=a:1"})


@pytest.mark.parametrize("timeout", ["0", "-1", "soon", ""])
@pytest.mark.parametrize("name", ["JOIN_TIMEOUT_S", "REJOIN_TIMEOUT_S"])
def test_timeout_that_is_no_number_of_seconds_is_an_error(name: str, timeout: str) -> None:
    with pytest.raises(ClusterError, match=rf"^{name} must be a whole number of seconds, at least 1. Received"):
        read(described({"worker": TWO}), **{name: timeout})


class Script:
    """Stands for the training process: a shell script that counts how often it was started."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = folder / "training"
        self.starts = folder / "starts"
        self.starts.touch()
        monkeypatch.setattr(sys, "executable", str(self.path))

    def write(self, *lines: str) -> None:
        self.path.write_text("\n".join(["#!/bin/sh", f"echo $3 >> {self.starts}", *lines]) + "\n")
        self.path.chmod(0o755)

    @property
    def arguments(self) -> list[str]:
        return self.starts.read_text().split()


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    return Script(tmp_path, monkeypatch)


@pytest.fixture
def chief_address() -> Iterator[str]:
    """An address at which a server speaks first, as gRPC's do."""

    class Settings(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"\0\0\0\4\0\0\0\0\0")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Settings) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def frozen_address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address at which the system accepts connections, and a process that has stopped says nothing."""
    monkeypatch.setattr(cluster, "_PROBE_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_training_is_started_again_until_no_worker_was_lost(script: Script, tmp_path: Path) -> None:
    script.write(
        f"case $(wc -l < {script.starts}) in",
        "1) kill -9 $$;;",
        """2) echo '{"lost": "another worker was lost"}';;""",
        """*) echo '{"summary": {"val_loss": 0.5}}';;""",
        "esac",
    )
    out_dir = tmp_path / "trainer" / "1234.partial"
    assert Cluster(tuple(TWO), 0, 5).train_as_chief(out_dir, WORK) == {"val_loss": 0.5}
    assert script.arguments == [str(out_dir / ASSIGNMENT)] * 3
    assert not (out_dir / ASSIGNMENT).exists(), "what is left is the training's output"


def test_training_that_loses_workers_every_time_is_given_up(script: Script, tmp_path: Path) -> None:
    script.write("kill -9 $$")
    with pytest.raises(ClusterError, match=f"Workers were lost {MAX_RESTARTS + 1} times"):
        Cluster(tuple(TWO), 0, 5).train_as_chief(tmp_path, WORK)
    assert len(script.arguments) == MAX_RESTARTS + 1


@pytest.mark.parametrize(
    ("line", "message"),
    [("""echo '{"error": "Lower the learning rate."}'""", "Lower the learning rate."), ("exit 1", "with status 1")],
)
def test_training_that_fails_is_not_started_again(script: Script, tmp_path: Path, line: str, message: str) -> None:
    script.write(line)
    with pytest.raises(ComponentError, match=message):
        Cluster(tuple(TWO), 0, 5).train_as_chief(tmp_path, WORK)
    assert len(script.arguments) == 1


def test_workers_that_do_not_join_in_time_are_named_to_all(
    script: Script, tmp_path: Path, chief_address: str, frozen_address: str
) -> None:
    script.write("exec sleep 600")
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(ClusterError) as caught:
        Cluster(("127.0.0.1:1", chief_address, frozen_address, closed), 0, 1).train_as_chief(tmp_path / "key", WORK)
    assert str(caught.value) == (
        f"Every worker must join within 1 s, and there is no response from worker 2 at {frozen_address} "
        f"and worker 3 at {closed}. Start the same command on each, or set JOIN_TIMEOUT_S to wait longer."
    )
    assert len(script.arguments) == 1
    assert read_json(tmp_path / "over.json")["error"] == str(caught.value)


def test_worker_that_is_lost_for_good_is_named(script: Script, tmp_path: Path, frozen_address: str) -> None:
    script.write(f"[ $(wc -l < {script.starts}) = 1 ] && kill -9 $$", "exec sleep 600")
    with pytest.raises(ClusterError) as caught:
        Cluster(("127.0.0.1:1", frozen_address), 0, 3600, 1).train_as_chief(tmp_path / "key", WORK)
    assert str(caught.value) == (
        f"Every worker must be back within 1 s, and there is no response from worker 1 at {frozen_address}. "
        "Start the same command on each, or set REJOIN_TIMEOUT_S to wait longer."
    )
    assert len(script.arguments) == 2


def test_training_that_all_have_joined_may_take_any_time(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr(worker_process, "time", SimpleNamespace(monotonic=lambda: now_s))
    has_joined, outcome = tmp_path / "has_joined", tmp_path / "outcome"
    for path in (has_joined, outcome):
        os.mkfifo(path)
    script.write("echo joined", f"echo > {has_joined}", f"cat {outcome}")

    def join() -> None:
        has_joined.read_text()

    def pass_time_and_end() -> None:
        nonlocal now_s
        now_s = 1e6
        outcome.write_text("""{"summary": {"val_loss": 0.5}}""")

    checks = iter((join, pass_time_and_end))
    found = worker_process.train(Cluster(tuple(TWO), 0, 60), tmp_path, 0, check=lambda: next(checks, int)())
    assert found == {"val_loss": 0.5}


def test_worker_ends_when_the_chief_gives_up(script: Script, tmp_path: Path, chief_address: str) -> None:
    write_json(tmp_path / "key.partial" / ASSIGNMENT, {"id": 0})
    reason = "worker 2 is gone"
    script.write(f"""echo '{{"id": 7, "error": "{reason}"}}' > {tmp_path}/over.json""", "exec sleep 600")
    with pytest.raises(ClusterError, match=rf"^The chief, {chief_address}, has given up: {reason}$"):
        cluster.train_as_worker(Cluster((chief_address, TWO[1], "10.0.0.3:2222"), 1, 600), tmp_path)
    assert len(script.arguments) == 1


def test_worker_does_what_the_newest_assignment_says(script: Script, tmp_path: Path, chief_address: str) -> None:
    script.write("""echo '{"summary": {"val_loss": 0.5}}'""")
    for number, key in enumerate(("new", "old")):
        write_json(tmp_path / f"{key}.partial" / ASSIGNMENT, {"id": number})
    os.utime(tmp_path / "old.partial" / ASSIGNMENT, (1, 1))
    assert cluster.train_as_worker(Cluster((chief_address, TWO[1]), 1, 5), tmp_path) == {"val_loss": 0.5}
    assert script.arguments == [str(tmp_path / "new.partial" / ASSIGNMENT)]
    assert read_json(tmp_path / "new.partial" / ASSIGNMENT) == {"id": 0}, "the chief's is left alone"


def test_chief_that_never_begins_is_an_error_that_names_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(ClusterError, match=rf"The chief \(worker 0\) at {address} must begin to train within 1 s"):
        cluster.train_as_worker(Cluster((address, TWO[1]), 1, 1), tmp_path)


def test_worker_is_released_where_there_is_nothing_to_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.release_workers(tmp_path)  # by an earlier run

    def is_responding(_: str) -> bool:
        """While the worker looks for it, the chief ends."""
        cluster.release_workers(tmp_path)
        return False

    monkeypatch.setattr(cluster, "_is_responding", is_responding)
    assert cluster.train_as_worker(Cluster(TWO, 1, 5), tmp_path) is None


def test_folder_that_is_not_shared_is_an_error(script: Script, tmp_path: Path, chief_address: str) -> None:
    with pytest.raises(ClusterError, match="All workers must share the folder of runs"):
        cluster.train_as_worker(Cluster((chief_address, TWO[1]), 1, 5), tmp_path)
    assert not script.arguments


def test_missing_workers_are_those_that_do_not_respond(chief_address: str, frozen_address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"127.0.0.1:{server.getsockname()[1]}"
    assert Cluster((chief_address, closed, "127.0.0.1:1", frozen_address), 2, 5).missing() == [1, 3]
