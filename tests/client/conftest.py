"""What the tests of the client share: one real server, and fakes that speak its protocol and misbehave on demand."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serving import launcher
from tests.client.fakes import FakeGrpc, FakeRest, FakeServer

VERSION = 3


@dataclass(frozen=True)
class RealServer:
    """The server, and the model that it serves."""

    rest_target: str
    grpc_target: str
    socket_path: Path
    base_path: Path
    model_dir: Path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, export_dir: Path) -> Iterator[RealServer]:
    """A server of `export_dir` as `flowers`, with this project's batching; a test that changes it puts it back."""
    folder = tmp_path_factory.mktemp("client")
    base_path, socket_path = folder / "flowers", folder / "grpc.sock"
    base_path.mkdir()
    (base_path / str(VERSION)).symlink_to(export_dir)
    with launcher.serve(
        model_name="flowers",
        base_path=base_path,
        log_path=folder / "server.log",
        engine="local",
        flags=[f"--grpc_socket_path={socket_path}", "--file_system_poll_wait_seconds=0.2"],
    ) as running:
        yield RealServer(f"{running.host}:{running.rest_port}", running.grpc_target, socket_path, base_path, export_dir)


@pytest.fixture(params=["REST", "gRPC"])
def fake(request: Any) -> Iterator[FakeServer]:
    """A server of either protocol that fails as a test scripts it."""
    with FakeRest() if request.param == "REST" else FakeGrpc() as server:
        yield server


@pytest.fixture
def fake_rest() -> Iterator[FakeRest]:
    with FakeRest() as server:
        yield server


@pytest.fixture
def fake_grpc() -> Iterator[FakeGrpc]:
    with FakeGrpc() as server:
        yield server


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let waits between attempts pass at once; return how long each would have been."""
    from client.classifier_client.transports import connection

    noted: list[float] = []
    monkeypatch.setattr(connection.time, "sleep", noted.append)
    return noted
