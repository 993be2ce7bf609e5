"""`make serve` and the infra validator with Docker: what a container does, and that none is left however it ends."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from components import infra_validator
from components.artifacts.blessing import read_blessing
from components.artifacts.infra_validation import SERVER_LOG
from components.errors import InfraValidationError
from components.infra_validator import InfraValidatorOptions
from serving import docker as engine_docker
from serving import launcher
from serving.errors import ServerError
from tests.containers.docker import ROOT, docker

pytestmark = [pytest.mark.containers, pytest.mark.usefixtures("serving_image")]

READY_S = 60
GONE_S = 10
USER = 1000
NO_IMAGE = "127.0.0.1:9/tensorflow/serving:none"
"""Nothing listens on the port of that registry."""

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")


class Models:
    """A folder of models with one of a name of its own, so that its containers are known from others."""

    def __init__(self, folder: Path, export_dir: Path) -> None:
        self.name = f"flowers{secrets.token_hex(4)}"
        self.folder = folder
        self.base_path = folder / self.name
        shutil.copytree(export_dir, self.base_path / "1")

    def containers(self) -> list[str]:
        return docker("ps", "--all", "--filter", f"name=serving-{self.name}-", "--format", "{{.Names}}").split()

    def wait_until_gone(self) -> None:
        end = time.monotonic() + GONE_S
        while found := self.containers():
            assert time.monotonic() < end, found
            time.sleep(0.1)

    def serve(self, **options: Any) -> Any:
        defaults = {"model_name": self.name, "base_path": self.base_path, "log_path": self.folder / "server.log"}
        return launcher.serve(**{**defaults, "engine": "docker", **options})

    @contextmanager
    def serve_command(self, *prefix: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        """Run `python -m serving` until the model is available; yield its process and the port of REST."""
        grpc_port, rest_port = launcher._find_free_ports()
        ports = (f"--port={grpc_port}", f"--rest-api-port={rest_port}")
        command = [*prefix, sys.executable, "-m", "serving", "--engine=docker", *ports]
        with (self.folder / "command.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--models-dir", self.folder, "--model-name", self.name],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            end = time.monotonic() + READY_S
            while not self._is_available(rest_port):
                printed = (self.folder / "command.log").read_text()
                assert process.poll() is None, printed
                assert time.monotonic() < end, printed
                time.sleep(0.1)
            yield process, rest_port
        finally:
            process.kill()
            process.wait()

    def _is_available(self, rest_port: int) -> bool:
        try:
            return "AVAILABLE" in requests.get(f"http://127.0.0.1:{rest_port}/v1/models/{self.name}", timeout=5).text
        except requests.RequestException:
            return False


@pytest.fixture
def models(tmp_path: Path, export_dir: Path) -> Iterator[Models]:
    models = Models(tmp_path / "models", export_dir)
    yield models
    for name in models.containers():
        docker("rm", "--force", name)


# The infra validator.


@pytest.fixture
def validate(tmp_path: Path, inputs: Callable[[str], dict[str, Path]]) -> Callable[..., tuple[bool, list[str], str]]:
    """Return the function that validates a candidate: whether it is blessed, the messages, and the server's log."""

    def validate(engine: str, **folders: Path) -> tuple[bool, list[str], str]:
        out_dir = tmp_path / "out"
        out_dir.mkdir()
        options = InfraValidatorOptions(engine=engine, num_examples=2)
        infra_validator.validate(**{**inputs("infra_validator"), **folders}, out_dir=out_dir, options=options)
        blessing = read_blessing(out_dir)
        messages = [check["message"] for check in blessing["checks"]]
        return blessing["blessed"], messages, (out_dir / SERVER_LOG).read_text()

    return validate


def test_a_candidate_is_blessed_over_every_interface_of_a_container(validate) -> None:
    blessed, messages, log = validate("docker")
    assert blessed, (messages, log)
    assert messages[0] == "the server (docker, as asked) has the model AVAILABLE"
    assert len(messages) == 5
    assert docker("ps", "--all", "--filter", "name=serving-flowers-", "--quiet") == ""


def test_a_damaged_candidate_is_not_blessed_and_the_log_says_why(validate, export_dir, tmp_path, caplog) -> None:
    damaged = shutil.copytree(export_dir, tmp_path / "damaged")
    graph = damaged / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])
    blessed, (message,), log = validate("docker", export_dir=damaged)
    assert not blessed
    assert message.startswith("A server (docker) must have a version of flowers AVAILABLE within 120 s. Received: ")
    assert "saved_model.pb" in log
    assert "the server's log ends with:" in caplog.text


def test_auto_without_the_image_validates_with_the_local_server_and_records_it(validate, monkeypatch, caplog) -> None:
    monkeypatch.setattr(engine_docker, "IMAGE", NO_IMAGE)
    assert infra_validator.describe_engine(InfraValidatorOptions()) == {"engine": "local"}
    assert (
        f"FALLBACK: the local server stands for TensorFlow Serving. The engine docker needs the image {NO_IMAGE}"
        in (caplog.text)
    )
    blessed, messages, _ = validate("auto")
    assert blessed
    assert messages[0].startswith(
        f"the server (local, as Docker cannot be used: The engine docker needs the image {NO_IMAGE}, and it cannot be"
    )
    with pytest.raises(InfraValidationError, match="it cannot be pulled"):
        infra_validator.describe_engine(InfraValidatorOptions(engine="docker"))


# However it ends.


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_no_container_is_left_when_the_block_fails(models, error) -> None:
    def serve() -> None:
        with models.serve():
            assert len(models.containers()) == 1
            raise error

    with pytest.raises(error):
        serve()
    assert models.containers() == []


def test_no_container_is_left_when_its_client_is_killed(models) -> None:
    with models.serve() as server:
        os.kill(server.process_id, signal.SIGKILL)
        models.wait_until_gone()


def test_no_container_is_left_when_the_pipeline_is_killed(models) -> None:
    code = f"""
import os, signal
from pathlib import Path
from serving import launcher
with launcher.serve(model_name={models.name!r}, base_path=Path({str(models.base_path)!r}), engine="docker",
                    log_path=Path({str(models.folder / "server.log")!r})) as server:
    print("available", flush=True)
    # The client goes as well, so it can pass nothing on.
    os.kill(server.process_id, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=READY_S)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout == "available\n"
    models.wait_until_gone()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_command_serves_until_a_signal_and_leaves_no_container(models, number) -> None:
    with models.serve_command() as (process, rest_port):
        target = ("--target", f"127.0.0.1:{rest_port}", "--model", models.name)
        subprocess.run([sys.executable, "client/predict.py", *target], cwd=ROOT, check=True, timeout=READY_S)
        process.send_signal(number)
        process.wait(GONE_S)
        models.wait_until_gone()


# What goes wrong.


def test_a_container_that_ends_is_an_error_with_what_it_printed(models) -> None:
    with pytest.raises(ServerError) as raised, models.serve(flags=("--no_such_flag=1",)):
        pass
    assert "Received: it ended with status " in raised.value.reason
    assert "no_such_flag" in str(raised.value).partition("ends with:")[2]
    assert models.containers() == []


def test_a_folder_that_the_engine_does_not_have_is_an_error_and_is_not_made(models) -> None:
    missing = models.folder / "missing"
    with pytest.raises(ServerError, match="bind source path does not exist"), models.serve(base_path=missing):
        pass
    assert not missing.exists()


def test_a_port_that_is_taken_is_said(models) -> None:
    with models.serve() as server:
        command = ["--engine=docker", f"--rest-api-port={server.rest_port}", f"--port={server.grpc_port}"]
        other = ["--models-dir", models.folder, "--model-name", f"{models.name}-other"]
        (models.folder / f"{models.name}-other").symlink_to(models.base_path)
        done = subprocess.run(
            [sys.executable, "-m", "serving", *command, *other],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=READY_S,
        )
        assert done.returncode == 125
        assert "port is already allocated" in done.stderr
        assert len(models.containers()) == 1


@as_root
@pytest.mark.parametrize("folder", [".", "1"])
def test_models_that_nobody_may_read_are_an_error_that_says_how_to_mend_it(models, folder) -> None:
    """Root's server runs as nobody."""
    (models.base_path / folder).chmod(0o700)
    rule = f"must be able to read {models.base_path}. Received: {models.base_path / folder} with mode 700. Run: chmod"
    with pytest.raises(ServerError, match=re.escape(rule)), models.serve():
        pass
    command = ["--engine=docker", "--models-dir", models.folder, "--model-name", models.name]
    done = subprocess.run([sys.executable, "-m", "serving", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert rule in done.stderr
    subprocess.run(["chmod", "-R", "a+rX", models.base_path], check=True)
    with models.serve():
        pass


@as_root
def test_a_user_serves_what_only_that_user_may_read(models) -> None:
    for path in (models.base_path, *models.base_path.rglob("*")):
        os.chown(path, USER, USER)
        path.chmod(0o700 if path.is_dir() else 0o600)
    models.folder.chmod(0o755)
    # It may read this interpreter and reach the engine as root does; the container gets none of that.
    rights = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
    with models.serve_command("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *rights):
        (container,) = models.containers()
        assert docker("inspect", "--format", "{{.Config.User}}", container) == f"{USER}:{USER}"
