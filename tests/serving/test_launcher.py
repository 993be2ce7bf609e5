"""A server runs when the block begins and is gone when it ends, however it ends; a failure has its reason."""

import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import requests

from serving import docker, launcher
from serving.errors import ServerError

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 20


@pytest.fixture(params=["local", "docker"])
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


# Finding an engine.


@pytest.mark.parametrize(
    ("found", "engine"),
    [
        ("available", ("docker", "a Docker engine answers")),
        ("old image", ("docker", "a Docker engine answers")),
        ("no engine", ("local", "no Docker engine answers")),
        ("silent engine", ("local", "no Docker engine answers")),
    ],
)
def test_auto_takes_docker_where_an_engine_responds(engines, mode, monkeypatch, caplog, found, engine):
    monkeypatch.setattr(docker, "_FIND_ENGINE_S", 30 if found != "silent engine" else 0.3)
    mode(found)
    assert launcher.find_engine() == engine
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_auto_takes_the_local_server_where_the_image_cannot_be_had_and_says_so(engines, mode, caplog):
    mode("no image")
    engine = launcher.find_engine()
    assert engine.name == "local"
    reason = "The engine docker needs the image tensorflow/serving:2.21.0, and it cannot be pulled (no such image)."
    assert engine.reason.startswith(f"as Docker cannot be used: {reason}")
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert record.message.startswith(f"FALLBACK: the local server stands for TensorFlow Serving. {reason}")


@pytest.mark.parametrize("host", ["tcp://build.example:2376", "ssh://me@build.example"])
def test_an_engine_on_another_machine_is_not_used(engines, monkeypatch, host):
    monkeypatch.setenv("FAKE_HOST", host)
    with pytest.raises(ServerError, match=rf"must run on this machine\. Received: {host}\. Unset DOCKER_HOST or"):
        launcher.find_engine("docker")
    assert launcher.find_engine().name == "local"


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:2375", "npipe:////./pipe/docker_engine", "tcp://[::1]:2375", ""])
def test_an_engine_of_this_machine_is_used_whatever_its_address(engines, monkeypatch, host):
    monkeypatch.setenv("FAKE_HOST", host)
    assert launcher.find_engine("docker") == ("docker", "as asked")


def test_auto_takes_the_local_server_where_docker_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert launcher.find_engine("auto").name == "local"


def test_docker_without_an_engine_is_an_error_and_local_needs_none(engines, mode):
    assert launcher.find_engine("local") == ("local", "as asked")
    assert engines.calls() == []
    mode("no engine")
    with pytest.raises(
        ServerError, match=r"`docker info` does not reach one\. Start Docker, or choose the engine local"
    ):
        launcher.find_engine("docker")
    with pytest.raises(ValueError, match=r"one of auto, docker, local\. Received: 'podman'"):
        launcher.find_engine("podman")


# A server that comes up.


def test_a_server_is_available_in_the_block_and_gone_after_it(engines, monkeypatch, engine):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with engines.serve(engine=engine) as server:
        assert (server.engine, server.log_path) == (engine, engines.log)
        assert server.grpc_port != server.rest_port
        assert server.grpc_target == f"127.0.0.1:{server.grpc_port}"
        monkeypatch.delenv("http_proxy")
        status = requests.get(f"{server.rest_url}/v1/models/flowers", timeout=5).json()
        assert status["model_version_status"][0]["state"] == "AVAILABLE"
        assert len(engines.processes()) == 1
    assert engines.processes() == []
    assert engines.log.read_text().startswith("starting\n")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_server_is_stopped_when_the_block_fails(engines, engine, error):
    with pytest.raises(error), engines.serve(engine=engine):
        raise error
    assert engines.processes() == []


def test_a_server_that_ignores_sigterm_is_killed(engines, mode, monkeypatch, engine):
    monkeypatch.setattr(launcher, "_STOP_S", 0.3)
    mode("deaf")
    with engines.serve(engine=engine):
        pass
    assert engines.processes() == []


@pytest.mark.skipif(not shutil.which("setpriv"), reason="only Linux ends a child with its parent")
def test_a_server_ends_when_whoever_started_it_is_killed(engines):
    code = f"""
import os, signal, sys
from pathlib import Path
from serving import launcher
sys.executable = {sys.executable!r}
with launcher.serve(model_name="flowers", base_path=Path({str(engines.models)!r}), log_path=Path({str(engines.log)!r}),
                    engine="local"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    python = Path(sys.prefix) / "bin" / "python"
    assert subprocess.run([python, "-c", code], cwd=ROOT, timeout=DEADLINE_S).returncode == -signal.SIGKILL
    assert engines.calls(), "it was started"
    end = time.monotonic() + DEADLINE_S
    while engines.processes():
        assert time.monotonic() < end
        time.sleep(0.02)


# The commands of the engines.


def flags(grpc_port: int, rest_port: int, *, models: Path | str, config: Path | str) -> list[str]:
    return [
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        "--model_name=flowers",
        f"--model_base_path={models}",
        "--enable_batching=true",
        f"--batching_parameters_file={config}/batching.config",
        f"--monitoring_config_file={config}/monitoring.config",
        "--max_num_load_retries=0",
    ]


def test_the_local_server_takes_tensorflow_servings_flags(engines):
    with engines.serve(flags=("--file_system_poll_wait_seconds=5",)) as server:
        (arguments,) = engines.calls()
    assert arguments == [
        *("-m", "serving.local_server", "--host=127.0.0.1"),
        *flags(server.grpc_port, server.rest_port, models=engines.models, config=launcher.CONFIG),
        "--file_system_poll_wait_seconds=5",
    ]


def test_a_server_can_do_without_configuration(engines):
    with engines.serve(config_dir=None):
        (arguments,) = engines.calls()
    assert not [a for a in arguments if "batching" in a or "monitoring" in a]


def test_docker_runs_tensorflow_serving_with_the_same_flags_and_few_rights(engines):
    with engines.serve(engine="docker", flags=("--prefer_tflite_model=true",)) as server:
        info, context, inspect, run = engines.calls()
    stop = engines.calls()[-1]
    assert info == ["info"]
    assert context[:2] == ["context", "inspect"]
    assert inspect == ["image", "inspect", launcher.IMAGE]
    options, arguments = run[: run.index(launcher.IMAGE)], run[run.index(launcher.IMAGE) + 1 :]
    assert options[:5] == ["run", "--rm", "--interactive", "--name", f"serving-flowers-{server.rest_port}"]
    pairs = set(pairwise(options))
    assert pairs >= {
        ("--entrypoint", "sh"),
        ("--publish", f"127.0.0.1:{server.grpc_port}:8500"),
        ("--publish", f"127.0.0.1:{server.rest_port}:8501"),
        ("--mount", f'type=bind,"source={engines.models}",target=/models/flowers,readonly'),
        ("--mount", f'type=bind,"source={launcher.CONFIG}",target=/config,readonly'),
        ("--cap-drop", "ALL"),
        ("--security-opt", "no-new-privileges"),
    }
    assert {"--init", "--read-only"} < set(options)
    assert "0" not in options[options.index("--user") + 1].split(":"), "never root"
    assert (arguments[0], arguments[2]) == ("-c", "tensorflow_model_server")
    expected = [*flags(8500, 8501, models="/models/flowers", config="/config"), "--prefer_tflite_model=true"]
    assert arguments[3:] == expected
    assert stop[0] == "stop"
    assert stop[-1] == f"serving-flowers-{server.rest_port}"


def test_a_single_saved_model_is_served_under_a_version(engines):
    with engines.serve(base_path=engines.models, version=7):
        base_path = Path(next(a.split("=")[1] for a in engines.calls()[0] if a.startswith("--model_base_path=")))
        assert [p.name for p in base_path.iterdir()] == ["7"]
        assert (base_path / "7").resolve() == engines.models
    assert not base_path.exists()
    with engines.serve(base_path=engines.models, version=7, engine="docker"):
        assert f'type=bind,"source={engines.models}",target=/models/flowers/7,readonly' in engines.calls()[-1]
    assert engines.models.is_dir()


def test_an_image_that_is_not_there_is_pulled_first(engines, mode):
    mode("old image")
    with engines.serve(engine="docker"):
        assert [call[0] for call in engines.calls()] == ["info", "context", "image", "pull", "run"]
        assert engines.calls()[3][-1] == launcher.IMAGE
    mode("no image")
    reason = r"needs the image tensorflow/serving:\S+, and it cannot be pulled \(no such image\)\. .*the engine local"
    with pytest.raises(ServerError, match=reason), engines.serve(engine="docker"):
        pass


# A server that does not come up.


@pytest.mark.parametrize(
    ("found", "timeout_s", "received"),
    [
        ("ends", 30, "it ended with status 3"),
        ("fails", 30, "version 1 failed: no such op: Sing"),
        ("hangs", 1, "no response"),
    ],
)
def test_a_server_that_does_not_come_up_is_an_error_with_the_end_of_its_log(
    engines, mode, engine, found, timeout_s, received
):
    mode(found)
    with pytest.raises(ServerError) as raised, engines.serve(engine=engine, timeout_s=timeout_s):
        pass
    assert raised.value.reason == (
        f"A server ({engine}) must have a version of flowers AVAILABLE within {timeout_s:g} s. "
        f"Received: {received}. Its log says more."
    )
    assert str(raised.value).startswith(f"{raised.value.reason}\n{engines.log} ends with:\nstarting")
    assert engines.processes() == []


def test_a_server_of_other_models_is_not_the_one(engines):
    with pytest.raises(ServerError, match="no response"), engines.serve(model_name="birds", timeout_s=0.5):
        pass
    assert engines.processes() == []
