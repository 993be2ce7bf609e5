"""What the tests of the local server share: tiny models, and servers as processes."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests

from serving.local_server.errors import Code, StatusError
from tests.ready import start_ready

ROOT = Path(__file__).resolve().parents[3]
START_S = 120
CALL_S = 30
STOP_S = 20
WAIT_S = 60

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@dataclass
class Server:
    """A running server, and how it is reached."""

    process: "subprocess.Popen[str]"
    port: int
    rest_port: int
    log_path: Path
    ready_line: str
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if 'https://' in self.ready_line else 'http'}://127.0.0.1:{self.rest_port}"

    def log(self) -> str:
        return self.log_path.read_text()

    def memory_bytes(self, kind: str = "VmRSS") -> int:
        """Return the memory in use (VmRSS), or the most that ever was (VmHWM), from /proc/<pid>/status."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{kind}:\s+(\d+) kB", status, re.MULTILINE)
        assert found, f"no {kind} in {status}"
        return int(found[1]) * 1024

    def request(self, method: str, path: str, body: Any = None, **options: Any) -> requests.Response:
        """Send a request whose path stays as it is; a body that is neither text nor bytes becomes JSON."""
        data = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
        data = data.encode() if isinstance(data, str) else data
        prepared = self.session.prepare_request(requests.Request(method, self.url, data=data, **options))
        prepared.url = self.url + path
        return self.session.send(prepared, timeout=CALL_S)

    def post(self, path: str, body: Any, **options: Any) -> tuple[int, Any]:
        """Send a POST request; return the status and the JSON of the response."""
        return _read_json(self.request("POST", path, body, **options))

    def get(self, path: str) -> tuple[int, Any]:
        """Send a GET request; return the status and the JSON of the response."""
        return _read_json(self.request("GET", path))

    def predict(self, model: str, **body: Any) -> tuple[int, Any]:
        return self.post(f"/v1/models/{urllib.parse.quote(model)}:predict", body)

    def stop(self) -> int:
        """End the server as an operator does; return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        finally:
            self.session.close()
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if self.process.stdout:
                self.process.stdout.close()


def _read_json(response: requests.Response) -> tuple[int, Any]:
    assert response.headers["Content-Type"] == "application/json"
    return response.status_code, response.json()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def command(**flags: Any) -> list[str]:
    """Return a command line of the server; of a flag that is `True` only the name is written."""
    written = (f"--{name}" if value is True else f"--{name}={value}" for name, value in flags.items())
    return [sys.executable, "-m", "serving.local_server", *written]


@contextmanager
def start_server(log_path: Path, **flags: Any) -> Iterator[Server]:
    """Run a server on free ports of this machine while the block lasts; it is ready when the block begins."""
    port, rest_port = free_ports(2)
    words = command(host="127.0.0.1", port=port, rest_api_port=rest_port, **flags)
    with start_ready(words, log_path, env={"TF_CPP_MIN_LOG_LEVEL": "2"}) as (process, ready_line):
        server = Server(process, port, rest_port, log_path, ready_line)
        server.session.trust_env = False
        try:
            yield server
        finally:
            with suppress(subprocess.TimeoutExpired):
                server.stop()


@contextmanager
def status_error(code: Code, match: str) -> Iterator[None]:
    """Expect a `StatusError` of this code, whose message a pattern is found in."""
    with pytest.raises(StatusError, match=match) as caught:
        yield
    assert caught.value.code is code


def refusal(call: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Code, str]:
    """Return the code and the text with which a gRPC call is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **kwargs)
    return caught.value.code(), caught.value.details()


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when a condition holds; fail when it does not within a minute."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "the condition never holds"
        time.sleep(0.05)


def write_config(path: Path, models: Mapping[str, Any]) -> Path:
    """Write a `ModelServerConfig` of base paths by name, or of the text that follows such a path."""
    written = []
    for name, base_path in models.items():
        base_path, more = base_path if isinstance(base_path, tuple) else (base_path, "")
        written.append(f'config {{ name: "{name}" base_path: "{base_path}" model_platform: "tensorflow" {more} }}')
    path.write_text(f"model_config_list {{ {' '.join(written)} }}")
    return path


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests in asyncio's event loop."""
    return "asyncio"


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every model of `models.py`, as `<name>/<version>`."""
    from tests.serving.local_server import models

    folder = tmp_path_factory.mktemp("models")
    models.build(folder)
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Server]:
    """A server of all models, with TensorFlow Serving's defaults; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("server")
    labels = 'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 }'
    models = {path.name: path for path in sorted(models_dir.iterdir())}
    models |= {
        "default": models_dir / "half_plus_two",
        "grüße & mehr": models_dir / "half_plus_two",
        "two_versions": (models_dir / "two_versions", f"model_version_policy {{ all {{}} }} {labels}"),
    }
    monitoring = folder / "monitoring.config"
    monitoring.write_text('prometheus_config: { enable: true, path: "/monitoring/prometheus/metrics" }')
    with start_server(
        folder / "server.log",
        model_config_file=write_config(folder / "models.config", models),
        monitoring_config_file=monitoring,
        grpc_socket_path=folder / "grpc.sock",
        allow_version_labels_for_unavailable_models="true",
        max_num_load_retries=0,
    ) as server:
        yield server


@pytest.fixture(scope="session")
def other_server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[tuple[Server, Path]]:
    """A server with the flags that are off by default, and the configuration file, which tests change."""
    folder = tmp_path_factory.mktemp("other_server")
    monitoring = folder / "monitoring.config"
    monitoring.write_text("prometheus_config { enable: true }")
    config = write_config(folder / "models.config", {"default": models_dir / "half_plus_two"})
    with start_server(
        folder / "server.log",
        model_config_file=config,
        model_config_file_poll_wait_seconds=1,
        monitoring_config_file=monitoring,
        rest_api_timeout_in_ms=1500,
        rest_api_enable_cors_support=True,
        enable_serialization_as_tensor_content=True,
        enable_signature_method_name_check="true",
        enable_grpc_reflection=True,
        grpc_channel_arguments="grpc.max_connection_age_ms=2000,grpc.lb_policy_name=grpclb",
        max_num_load_retries=0,
    ) as server:
        yield server, config
