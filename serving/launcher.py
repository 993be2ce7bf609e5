"""Start a server for a model and stop it again: TensorFlow Serving in Docker, or the local server.

Both take the same flags. `make serve`, the infra validator, the tests and the benchmarks all start their server here,
so what is validated is what will serve.
"""

import logging
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypedDict

import requests

from serving import docker
from serving.errors import ServerError

log = logging.getLogger(__name__)

ENGINES = ("auto", "docker", "local")
IMAGE = docker.IMAGE
CONFIG = Path(__file__).resolve().parent / "config"

_ROOT = CONFIG.parent.parent
_HOST = docker.HOST
_CALL_S = 5
_POLL_S = 0.1
_STOP_S = 15


@dataclass(frozen=True)
class Server:
    """A server that runs on this machine, the path of its log, the process that ends with it, and why this engine."""

    engine: str
    host: str
    grpc_port: int
    rest_port: int
    log_path: Path
    process_id: int
    reason: str = "as asked"

    @property
    def grpc_target(self) -> str:
        return f"{self.host}:{self.grpc_port}"

    @property
    def rest_url(self) -> str:
        return f"http://{self.host}:{self.rest_port}"


class Engine(NamedTuple):
    """What runs the server, "docker" or "local", and why it is that one."""

    name: str
    reason: str


class VersionStatus(TypedDict):
    error_code: str
    error_message: str


class VersionState(TypedDict):
    """The state of a version, as the server's model status has it."""

    version: str
    state: str
    status: VersionStatus


def find_engine(engine: str = "auto") -> Engine:
    """Return the engine to use; "auto" takes Docker where an engine responds that has the image or can pull it.

    Raises:
        ValueError: no such engine.
        ServerError: "docker" is requested, and no Docker engine responds or the one that does cannot be used.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}. Received: {engine!r}")
    if engine == "local":
        return Engine("local", "as asked")
    if not docker.responds():
        if engine == "auto":
            return Engine("local", "no Docker engine answers")
        raise ServerError(
            "The engine docker needs a Docker engine, and `docker info` does not reach one. "
            "Start Docker, or choose the engine local."
        )
    try:
        docker.prepare()
    except ServerError as exc:
        if engine == "docker":
            raise
        log.warning("FALLBACK: the local server stands for TensorFlow Serving. %s", exc.reason)
        return Engine("local", f"as Docker cannot be used: {exc.reason}")
    return Engine("docker", "a Docker engine answers" if engine == "auto" else "as asked")


def command(
    *,
    engine: str,
    model_name: str,
    base_path: Path,
    grpc_port: int,
    rest_port: int,
    version: int | None = None,
    flags: Sequence[str] = (),
    config_dir: Path | None = CONFIG,
) -> list[str]:
    """Return the command line that serves a model in the foreground, on this machine only.

    Args:
        engine: "docker" or "local".
        model_name: the name that clients use for the model.
        base_path: the folder of its numeric version folders.
        grpc_port: port of gRPC on this machine.
        rest_port: port of REST on this machine.
        version: for "docker", says that `base_path` is itself a SavedModel, to be served under this number.
        flags: more flags of `tensorflow_model_server`; the last one of a name wins.
        config_dir: holds `batching.config` and `monitoring.config`; `None` serves without either.

    Raises:
        ServerError: root serves with Docker, where the server runs as nobody, and not everybody may read the models.
    """
    base_path, config_dir = base_path.absolute(), config_dir and config_dir.absolute()
    if engine == "local":
        start = [sys.executable, "-m", "serving.local_server", f"--host={_HOST}"]
        ports, models, configs = (grpc_port, rest_port), str(base_path), str(config_dir)
    else:
        ports, models, configs = (8500, 8501), f"/models/{model_name}", "/config"
        mounts = {base_path: f"{models}/{version}" if version else models}
        if config_dir:
            mounts[config_dir] = configs
        publish = {grpc_port: ports[0], rest_port: ports[1]}
        start = docker.run_command(_container(model_name, rest_port), mounts, publish)
    configuration = [
        "--enable_batching=true",
        f"--batching_parameters_file={configs}/batching.config",
        f"--monitoring_config_file={configs}/monitoring.config",
    ]
    return [
        *start,
        f"--port={ports[0]}",
        f"--rest_api_port={ports[1]}",
        f"--model_name={model_name}",
        f"--model_base_path={models}",
        *(configuration if config_dir else ()),
        *flags,
    ]


@contextmanager
def serve(
    *,
    model_name: str,
    base_path: Path,
    log_path: Path,
    engine: str = "auto",
    version: int | None = None,
    flags: Sequence[str] = (),
    config_dir: Path | None = CONFIG,
    timeout_s: float = 120,
) -> Iterator[Server]:
    """Run a server on free ports for as long as the block lasts; it is AVAILABLE when the block begins.

    However the block ends, the server is stopped. It also ends when this process is killed: in Docker everywhere, the
    local server on Linux.

    Args:
        model_name: the name that clients use for the model.
        base_path: the folder of its numeric version folders.
        log_path: receives what the server prints.
        engine: "auto", "docker" or "local".
        version: says that `base_path` is itself a SavedModel, to be served under this number.
        flags: more flags of `tensorflow_model_server`; paths in them are absolute.
        config_dir: holds `batching.config` and `monitoring.config`; `None` serves without either.
        timeout_s: how long the server may take to have a version AVAILABLE.

    Raises:
        ServerError: there is no such engine, the server may not read the models, or no version becomes AVAILABLE; then
            the end of the log is in the message.
    """
    engine, reason = find_engine(engine)
    grpc_port, rest_port = _find_free_ports()
    with ExitStack() as stack:
        if version and engine == "local":
            # Beside the log: whoever clears up after a process that was killed finds it there.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=log_path.parent)))
            (folder / str(version)).symlink_to(base_path.absolute())
            base_path = folder
        arguments = command(
            engine=engine,
            model_name=model_name,
            base_path=base_path,
            grpc_port=grpc_port,
            rest_port=rest_port,
            version=version,
            # The caller waits for the first error, not for five more attempts a minute apart.
            flags=("--max_num_load_retries=0", *flags),
            config_dir=config_dir,
        )
        process = subprocess.Popen(
            _tied_to_this_process(arguments),
            cwd=_ROOT,
            # The container ends with its standard input: see `docker.run_command`.
            stdin=subprocess.PIPE if engine == "docker" else subprocess.DEVNULL,
            stdout=stack.enter_context(log_path.open("wb")),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        server = Server(engine, _HOST, grpc_port, rest_port, log_path, process.pid, reason)
        try:
            _wait_until_available(server, process, model_name, timeout_s)
            yield server
        finally:
            _stop(process, _container(model_name, rest_port) if engine == "docker" else None)


def _container(model_name: str, rest_port: int) -> str:
    return f"serving-{model_name}-{rest_port}"


def _find_free_ports() -> tuple[int, int]:
    """Return two free ports; both are bound until both are found, so they differ."""
    with socket.socket() as first, socket.socket() as second:
        first.bind((_HOST, 0))
        second.bind((_HOST, 0))
        return first.getsockname()[1], second.getsockname()[1]


def _tied_to_this_process(arguments: list[str]) -> list[str]:
    """Return the command that ends with this process, even when it is killed: on Linux, where `setpriv` is there."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", *arguments] if setpriv else arguments


def _wait_until_available(server: Server, process: subprocess.Popen[bytes], model_name: str, timeout_s: float) -> None:
    """Poll the model's status until a version is AVAILABLE."""
    end = time.monotonic() + timeout_s
    with requests.Session() as session:
        session.trust_env = False  # A proxy of the environment is not for this machine.
        while True:
            states = _read_states(session, f"{server.rest_url}/v1/models/{model_name}")
            failed = [state for state in states if state["state"] == "END"]
            if process.poll() is not None:
                received = f"it ended with status {process.returncode}"
            elif any(state["state"] == "AVAILABLE" for state in states):
                return
            elif failed:
                received = f"version {failed[0]['version']} failed: {failed[0]['status']['error_message']}"
            elif time.monotonic() > end:
                found = ", ".join(f"version {state['version']} is {state['state']}" for state in states)
                received = found or "no response"
            else:
                time.sleep(_POLL_S)
                continue
            raise ServerError(
                f"A server ({server.engine}) must have a version of {model_name} AVAILABLE within {timeout_s:g} s. "
                f"Received: {received}. Its log says more.",
                log_path=server.log_path,
            )


def _read_states(session: requests.Session, url: str) -> list[VersionState]:
    """Read the state of every version; none while the server does not respond or knows none."""
    try:
        return session.get(url, timeout=_CALL_S).json().get("model_version_status", [])
    except requests.RequestException:
        return []


def _stop(process: subprocess.Popen[bytes], container: str | None) -> None:
    """End this server and no other: terminate, wait, kill."""
    if container:
        # Where the client is gone, or ignores signals, the engine still ends the container.
        docker.stop(container, _STOP_S)
    if process.stdin:
        process.stdin.close()
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
