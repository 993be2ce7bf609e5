"""A candidate is blessed when its server predicts through every interface what the SavedModel predicts here."""

import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from components import infra_validator
from components.artifacts.blessing import Check, read_blessing
from components.artifacts.evaluation import read_predictions
from components.artifacts.examples import read_examples
from components.artifacts.infra_validation import SERVER_LOG, read_responses
from components.errors import InfraValidationError
from components.infra_validator import InfraValidatorOptions
from serving import docker, launcher
from serving.errors import ServerError
from serving.launcher import Server

INTERFACES = ["rest_serving_default", "rest_images", "grpc_serving_default", "grpc_images"]
PHOTO = infra_validator._Photo("rose.jpg", b"", np.zeros((2, 2, 3), np.uint8), np.array([0.25, 0.75]))


def test_a_candidate_that_is_served_as_it_was_evaluated_is_blessed(artifact: Callable[[str], Path]) -> None:
    folder = artifact("infra_validator")
    blessing = read_blessing(folder)
    assert blessing["blessed"], blessing
    assert [check["name"] for check in blessing["checks"]] == ["load", *INTERFACES]
    assert all(check["passed"] for check in blessing["checks"])
    assert blessing["checks"][-1]["message"].startswith("2 photos predicted as by the SavedModel in this process, to ")
    assert (folder / SERVER_LOG).stat().st_size > 0
    responses = read_responses(folder)
    assert {name: np.shape(served["probabilities"]) for name, served in responses.items()} == dict.fromkeys(
        INTERFACES, (2, 5)
    )
    p_values = responses["grpc_images"]["p_values"]
    assert all(0 < p_value <= 1 for p_value in p_values)
    # JSON gives nine digits.
    assert all(served["p_values"] == pytest.approx(p_values, abs=1e-6) for served in responses.values())


def test_a_damaged_model_is_not_blessed_and_its_server_is_ended(
    inputs: Callable[[str], dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen
    monkeypatch.setattr(launcher.subprocess, "Popen", lambda *a, **o: processes.append(start(*a, **o)) or processes[-1])
    folders = inputs("infra_validator")
    damaged = shutil.copytree(folders["export_dir"], tmp_path / "damaged")
    graph = damaged / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])
    options = InfraValidatorOptions(engine="local")
    (tmp_path / "out").mkdir()
    infra_validator.validate(**{**folders, "export_dir": damaged}, out_dir=tmp_path / "out", options=options)
    blessing = read_blessing(tmp_path / "out")
    assert not blessing["blessed"]
    (check,) = blessing["checks"]
    assert check["name"] == "load"
    rule = "A server (local) must have a version of flowers AVAILABLE within 120 s. Received: "
    assert check["message"].startswith(rule)
    assert check["message"].endswith("To try again: --force infra_validator")
    assert "saved_model.pb" in (tmp_path / "out" / SERVER_LOG).read_text()
    assert [process.returncode is None for process in processes] == [False]


class Validation:
    """A validation with a server that is not there: `events` are what happens to it, `failure` why it does not load."""

    def __init__(self, out_dir: Path, inputs: dict[str, Path]) -> None:
        self.out_dir, self.inputs = out_dir, inputs
        self.events: list[str] = []
        self.failure = ""

    @contextmanager
    def serve(self, *, log_path: Path, engine: str, **options: Any) -> Iterator[Server]:
        self.events.append("started")
        log_path.write_text("saved_model.pb is damaged")
        if self.failure:
            raise ServerError(self.failure, log_path=log_path)
        try:
            yield Server(engine, "127.0.0.1", 1, 1, log_path, process_id=0)
        finally:
            self.events.append("stopped")

    def run(self) -> list[Check]:
        """Validate, and return the checks that failed."""
        self.out_dir.mkdir()
        options = InfraValidatorOptions(engine="local", num_examples=2)
        summary = infra_validator.validate(**self.inputs, out_dir=self.out_dir, options=options)
        blessing = read_blessing(self.out_dir)
        assert summary == {"num_checks": len(blessing["checks"]), "blessed": False}
        assert not blessing["blessed"]
        return [check for check in blessing["checks"] if not check["passed"]]


@pytest.fixture
def validation(tmp_path: Path, inputs: Callable[[str], dict[str, Path]], monkeypatch: pytest.MonkeyPatch) -> Validation:
    validation = Validation(tmp_path / "out", inputs("infra_validator"))
    monkeypatch.setattr(launcher, "serve", validation.serve)
    return validation


def test_a_server_that_predicts_something_else_is_not_blessed(
    validation: Validation, evaluation_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class_names = read_examples(validation.inputs["examples_dir"])["class_names"]
    for call in ("_call_rest", "_call_grpc"):
        monkeypatch.setattr(infra_validator, call, lambda *call: (call[-1].expected[::-1], class_names, 0.5))
    failed = validation.run()
    assert [check["name"] for check in failed] == INTERFACES
    message = failed[1]["message"]
    first = read_predictions(evaluation_dir)[0]
    assert message.startswith(f"a probability of {first['filename']} over REST on images differs by 0.")
    assert message.endswith("from the SavedModel's, more than infra_validator.tolerance (0.001)")
    assert f"infra_validator: not blessed: {message}" in caplog.messages
    assert "infra_validator: the server's log ends with:\nsaved_model.pb is damaged" in caplog.messages
    served = {"probabilities": [pytest.approx(first["probabilities"][::-1], abs=1e-5)], "p_values": [0.5]}
    assert read_responses(validation.out_dir) == dict.fromkeys(INTERFACES, served)
    assert validation.events == ["started", "stopped"]


def test_a_model_that_does_not_load_is_not_blessed(validation: Validation, caplog: pytest.LogCaptureFixture) -> None:
    validation.failure = "A server (local) must have a version of flowers AVAILABLE within 120 s. Received: none."
    (check,) = validation.run()
    assert check["name"] == "load"
    assert check["message"] == f"{validation.failure} To try again: --force infra_validator"
    assert "saved_model.pb is damaged" in caplog.text, "the end of the log says what is wrong"
    assert read_responses(validation.out_dir) == {}


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (
            (np.array([0.2502, 0.7498]), ["daisy", "rose"], None),
            "1 photos predicted as by the SavedModel in this process, to 2e-04",
        ),
        (
            (np.array([0.26, 0.74]), ["daisy", "rose"], None),
            "of rose.jpg over REST on images differs by 0.01 from the SavedModel's",
        ),
        ((np.array([np.nan, 0.75]), ["daisy", "rose"], None), "of rose.jpg over REST on images differs by nan"),
        (
            (np.array([0.25, 0.75]), ["rose", "daisy"], None),
            r"must be \['daisy', 'rose'\]. Received: \['rose', 'daisy'\]",
        ),
        (infra_validator._ResponseError("503 busy"), "no prediction for rose.jpg over REST on images: 503 busy"),
    ],
    ids=["within the tolerance", "beyond it", "nan", "classes", "no prediction"],
)
def test_a_response_is_compared_with_what_the_evaluator_saw(response: Any, message: str) -> None:
    def call(photo: Any) -> Any:
        if isinstance(response, Exception):
            raise response
        return response

    interface = infra_validator._Interface("REST", "images", call)
    check, _ = infra_validator._compare(interface, [PHOTO], ["daisy", "rose"], InfraValidatorOptions().tolerance)
    assert check["passed"] is message.startswith("1 photos")
    assert re.search(message, check["message"])


def test_a_server_that_is_gone_gives_no_prediction_over_rest_and_grpc(tmp_path):
    grpc_port, rest_port = launcher._find_free_ports()
    server = Server("local", "127.0.0.1", grpc_port, rest_port, tmp_path / "log", process_id=0)
    with pytest.raises(infra_validator._ResponseError, match="refused"):
        infra_validator._call_rest(server, "flowers", "images", PHOTO)
    with (
        grpc.insecure_channel(server.grpc_target) as channel,
        pytest.raises(infra_validator._ResponseError, match="UNAVAILABLE"),
    ):
        infra_validator._call_grpc(channel, "flowers", "images", PHOTO)


@pytest.mark.parametrize(
    ("status", "content", "message"),
    [
        (503, '{"error": "busy"}', r'^503 \{"error": "busy"\}$'),
        (200, '{"predictions": [[0.25, 0.75]]}', r"^not a prediction: \{"),
        (200, '{"predictions": [{"probabilities": [0.25], "classes": ["daisy", "rose"]}]}', r"^not a prediction: \{"),
        (
            200,
            '{"predictions": [{"probabilities": [0.2, 0.8], "classes": ["daisy", "rose"], "p_value": "low"}]}',
            r"^not a prediction: \{",
        ),
        (200, "It works!", "Expecting value"),
    ],
)
def test_what_is_no_prediction_is_in_the_message(tmp_path, status, content, message):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content.encode())

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.handle_request)
        thread.start()
        server = Server("local", "127.0.0.1", 0, http.server_port, tmp_path / "log", process_id=0)
        with pytest.raises(infra_validator._ResponseError, match=message):
            infra_validator._call_rest(server, "flowers", "images", PHOTO)
        thread.join()


def test_docker_without_an_engine_is_found_before_anything_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert infra_validator.describe_engine(InfraValidatorOptions()) == {"engine": "local"}
    with pytest.raises(InfraValidationError, match=r"needs a Docker engine.*The option is infra_validator\.engine\."):
        infra_validator.describe_engine(InfraValidatorOptions(engine="docker"))
    monkeypatch.setattr(docker, "responds", lambda: True)
    monkeypatch.setattr(docker, "prepare", lambda: None)
    assert infra_validator.describe_engine(InfraValidatorOptions()) == {"engine": "docker", "image": launcher.IMAGE}


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"engine": "podman"}, "engine must be one of auto, docker, local. Received: 'podman'"),
        ({"num_examples": 0}, "num_examples must be at least 1. Received: 0"),
        ({"tolerance": 0.0}, "tolerance must be 1e-6 (of float32) to 1. Received: 0.0"),
        ({"timeout_s": float("nan")}, "timeout_s must be above 0. Received: nan"),
    ],
)
def test_options_are_checked(options, rule):
    with pytest.raises(ValueError, match="must be") as raised:
        InfraValidatorOptions(**options)
    assert str(raised.value) == rule
