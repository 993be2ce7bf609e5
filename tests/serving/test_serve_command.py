"""`python -m serving` prints which engine it takes, becomes the server, and helps where there is nothing to serve."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving import __main__ as command_line
from serving import launcher

ROOT = Path(__file__).resolve().parents[2]


class Terminal:
    """Runs the command in a process of its own, with a `docker` and a local server that print their arguments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = folder / "models"
        self.programs = folder / "programs"
        self.programs.mkdir()
        # Stands before the project on the path of imports, and takes the rest of `serving` from there.
        package = self.programs / "serving"
        package.mkdir()
        (package / "__init__.py").write_text(f"__path__.append({str(ROOT / 'serving')!r})")
        (package / "local_server.py").write_text("import sys\nprint(*sys.argv[1:], sep='\\n')\nsys.exit(7)")

    def add_docker(self, *, runs: bool, has_image: bool = True) -> None:
        docker = self.programs / "docker"
        docker.write_text(
            "#!/bin/sh\n"
            "case $1 in\n"
            f"info) exit {0 if runs else 1} ;;\n"
            "context) exit ;;\n"
            f"image) exit {0 if has_image else 1} ;;\n"
            "pull) echo not connected >&2; exit 1 ;;\n"
            "esac\n"
            'printf "%s\\n" "$@"\n'
            "exit 9\n"
        )
        docker.chmod(0o755)

    def push(self, name: str = "flowers") -> Path:
        (self.models / name / "1").mkdir(parents=True)
        return self.models / name

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "serving", "--models-dir", self.models, *arguments],
            cwd=self.folder,
            env={**os.environ, "PATH": f"{self.programs}:/usr/bin:/bin", "PYTHONPATH": f"{self.programs}:{ROOT}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


def test_it_becomes_the_local_server_where_no_engine_responds(terminal):
    base_path = terminal.push()
    terminal.add_docker(runs=False)
    done = terminal("--", "--prefer_tflite_model=true")
    first_line, *arguments = done.stdout.splitlines()
    assert first_line == (
        f"Serving {base_path} with the local server (no Docker engine answers): "
        "REST http://localhost:8501/v1/models/flowers, gRPC localhost:8500"
    )
    expected = launcher.command(
        engine="local",
        model_name="flowers",
        base_path=base_path,
        grpc_port=8500,
        rest_port=8501,
        flags=["--prefer_tflite_model=true"],
    )
    assert arguments == expected[3:]
    assert done.returncode == 7, "the server's own status"
    assert done.stderr == ""


def test_it_becomes_docker_where_an_engine_responds(terminal):
    base_path = terminal.push("birds")
    terminal.add_docker(runs=True)
    done = terminal("--model-name", "birds", "--port", "9500", "--rest-api-port", "9501", "--", "--v=1")
    first_line, *arguments = done.stdout.splitlines()
    assert first_line == (
        f"Serving {base_path} with {launcher.IMAGE} in Docker (a Docker engine answers): "
        "REST http://localhost:9501/v1/models/birds, gRPC localhost:9500"
    )
    expected = launcher.command(
        engine="docker", model_name="birds", base_path=base_path, grpc_port=9500, rest_port=9501, flags=["--v=1"]
    )
    assert ["docker", *arguments] == expected
    assert done.returncode == 9


def test_it_says_why_it_becomes_the_local_server_where_an_engine_lacks_the_image(terminal):
    terminal.push()
    terminal.add_docker(runs=True, has_image=False)
    done = terminal()
    reason = f"The engine docker needs the image {launcher.IMAGE}, and it cannot be pulled (not connected)."
    assert f"with the local server (as Docker cannot be used: {reason}" in done.stdout
    assert done.returncode == 7
    done = terminal("--engine", "docker")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: {reason} Connect to the registry, or choose the engine local.\n" in done.stderr


def test_an_engine_that_is_named_is_taken(terminal):
    terminal.push()
    terminal.add_docker(runs=True)
    assert "with the local server (as asked): " in terminal("--engine", "local").stdout
    terminal.add_docker(runs=False)
    done = terminal("--engine", "docker")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: The engine docker needs a Docker engine, and `docker info` does not reach one. "
        "Start Docker, or choose the engine local.\n"
    )


# In this process: nothing is started.


def test_no_pushed_model_is_an_error_that_names_the_remedy(tmp_path, capsys):
    (tmp_path / "flowers" / ".staging").mkdir(parents=True)
    assert command_line.main(["--models-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"error: A server needs a pushed model, and {tmp_path}/flowers holds no version. Run `make train` first, "
        "or name another with --model-name or --models-dir.\n"
    )


@pytest.mark.parametrize("arguments", [["--engine", "podman"], ["--port", "many"], ["--batching"]])
def test_a_wrong_command_ends_with_2_and_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m serving" in capsys.readouterr().err


def test_a_url_is_refused_with_the_command_that_brings_it_here(capsys):
    with pytest.raises(SystemExit):
        command_line.main(["--models-dir", "s3://bucket/models"])
    message = "A server here reads a folder of this machine. Received: s3://bucket/models. Bring the newest model"
    assert message in capsys.readouterr().err


def test_docker_does_not_verify_and_says_so(terminal):
    terminal.push()
    terminal.add_docker(runs=True)
    done = terminal("--", "--verify_key=signing.pub")
    assert (done.returncode, done.stdout) == (1, "")
    assert "TensorFlow Serving does not verify signatures" in done.stderr
    assert "python -m pipelines verify --verify-key FILE" in done.stderr
    assert "--verify_key=signing.pub" in terminal("--engine", "local", "--", "--verify_key=signing.pub").stdout
