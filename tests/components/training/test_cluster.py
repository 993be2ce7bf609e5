"""Who the workers are, and how each trains in a process that is started again when a worker was lost."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.errors import ClusterError, ComponentError
from components.storage.files import read_json, write_json
from components.training import cluster
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
    assert read(described({"worker": TWO}, index=1), JOIN_TIMEOUT_S="7") == Cluster(tuple(TWO), 1, 7)
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
def test_timeout_that_is_no_number_of_seconds_is_an_error(timeout: str) -> None:
    with pytest.raises(ClusterError, match=r"JOIN_TIMEOUT_S must be a whole number of seconds, at least 1. Received"):
        read(described({"worker": TWO}), JOIN_TIMEOUT_S=timeout)


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
    """An address at which a server listens."""
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


def test_workers_that_do_not_join_in_time_are_named(script: Script, tmp_path: Path, chief_address: str) -> None:
    script.write("kill -ALRM $$")
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(ClusterError, match=rf"Every worker must join within 5 s, and nothing listens at {closed}\. "):
        Cluster(("127.0.0.1:1", chief_address, closed), 0, 5).train_as_chief(tmp_path, WORK)
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
    with pytest.raises(ClusterError, match=rf"The chief, {address}, must begin to train within 1 s"):
        cluster.train_as_worker(Cluster((address, TWO[1]), 1, 1), tmp_path)


def test_worker_is_released_where_there_is_nothing_to_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.release_workers(tmp_path)  # by an earlier run

    def is_listening(_: str) -> bool:
        """While the worker looks for it, the chief ends."""
        cluster.release_workers(tmp_path)
        return False

    monkeypatch.setattr(cluster, "_is_listening", is_listening)
    assert cluster.train_as_worker(Cluster(TWO, 1, 5), tmp_path) is None


def test_folder_that_is_not_shared_is_an_error(script: Script, tmp_path: Path, chief_address: str) -> None:
    with pytest.raises(ClusterError, match="All workers must share the folder of runs"):
        cluster.train_as_worker(Cluster((chief_address, TWO[1]), 1, 5), tmp_path)
    assert not script.arguments


def test_missing_workers_are_those_that_do_not_answer(chief_address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"127.0.0.1:{server.getsockname()[1]}"
    assert Cluster((chief_address, closed, "127.0.0.1:1"), 2, 5).missing() == [closed]
