"""The client alone: what it loads, and what it costs where nothing else is installed."""

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from client.classifier_client import command
from tests.client.conftest import RealServer

CLIENT = Path(__file__).resolve().parents[2] / "client"
PHOTO = CLIENT / "samples" / "daisy.jpg"
UV = Path(sys.executable).with_name("uv")
NUM_RUNS = 5


@pytest.mark.parametrize(
    ("protocol", "needless"),
    [("--rest", {"grpc", "google"}), ("--grpc", {"requests", "urllib3"})],
    ids=["REST", "gRPC"],
)
def test_only_the_libraries_of_the_transport_are_loaded(protocol: str, needless: set[str], server: RealServer) -> None:
    target = server.rest_target if protocol == "--rest" else server.grpc_target
    script = (
        "import sys, pathlib\n"
        "from classifier_client import command\n"
        "status = command.main(sys.argv[1:], samples_dir=pathlib.Path('samples'))\n"
        "print(status, *{name.partition('.')[0] for name in sys.modules})\n"
    )
    arguments = [sys.executable, "-c", script, protocol, "--target", target]
    done = subprocess.run(arguments, cwd=CLIENT, capture_output=True, text=True, timeout=60, check=True)
    status, *loaded = done.stdout.splitlines()[-1].split()
    assert status == "0"
    ours = {"client", "components", "export", "pipelines", "serving"}
    assert not {"tensorflow", "tensorflow_serving", "keras", "numpy", "ai_edge_litert", *ours, *needless} & {*loaded}


def test_readme_has_the_same_exit_statuses_as_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"], samples_dir=CLIENT)
    listed = re.findall(r"^  (\d+) +(.*)$", capsys.readouterr().out, re.MULTILINE)
    assert len(listed) == 6
    assert re.findall(r"^\| (\d+) \| (.*) \|$", (CLIENT / "README.md").read_text(), re.MULTILINE) == listed


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the client, its extra for gRPC, and nothing else."""
    if not UV.exists():
        pytest.skip(f"needs uv beside {sys.executable}")
    folder = tmp_path_factory.mktemp("alone")
    for arguments in (
        ["venv", "--python", sys.executable, folder],
        ["pip", "install", "--compile-bytecode", "--python", folder, f"{CLIENT}[grpc]"],
    ):
        subprocess.run([UV, *map(str, arguments)], check=True, capture_output=True, timeout=300)
    return folder / "bin" / "python"


@pytest.fixture
def predict(python: Path, server: RealServer) -> Callable[..., tuple[float, str]]:
    """Run the command in that environment; return its seconds and its output."""

    def predict(*before: str) -> tuple[float, str]:
        words = [*before, python, CLIENT / "predict.py", "--grpc", "--target", server.grpc_target, "--json", PHOTO]
        start_s = time.perf_counter()
        done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=60, check=True)
        return time.perf_counter() - start_s, done.stdout

    return predict


@pytest.mark.slow
def test_environment_for_both_protocols_takes_less_than_60_mb(python: Path) -> None:
    [packages] = python.parents[1].glob("lib/python*/site-packages")
    num_bytes = sum(path.stat().st_size for path in packages.rglob("*") if path.is_file())
    assert num_bytes < 60e6, f"{num_bytes / 1e6:.1f} MB"


@pytest.mark.slow
def test_tensorflow_cannot_be_imported_there(python: Path) -> None:
    for module in ("tensorflow", "keras", "numpy"):
        assert subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode


@pytest.mark.slow
def test_command_adds_less_than_half_a_second_to_the_latency(predict: Callable[..., tuple[float, str]]) -> None:
    predict()
    own_s = []
    for _ in range(NUM_RUNS):
        seconds, printed = predict()
        own_s.append(seconds - json.loads(printed)["latency_ms"] / 1000)
    assert statistics.median(own_s) < 0.5


@pytest.mark.slow
def test_peak_memory_is_below_80_mb(predict: Callable[..., tuple[float, str]]) -> None:
    # A process counts the memory of the one that started it as its own: a small one stands between.
    script = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    _, printed = predict(sys.executable, "-c", script)
    peak_mb = int(printed.splitlines()[-1]) / 1000
    assert peak_mb < 80
