"""A candidate is blessed when its server answers in every way what the evaluator saw; the server is gone after."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from components import infra_validator
from components.errors import InfraValidationError
from components.infra_validator import InfraValidatorOptions
from components.storage.files import read_json, write_json
from serving import launcher
from serving.launcher import Server

WAYS = ["rest_serving_default", "rest_images", "grpc_serving_default", "grpc_images"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Every process that is started."""
    processes: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def record(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        processes.append(start(*arguments, **options))
        return processes[-1]

    monkeypatch.setattr(launcher.subprocess, "Popen", record)
    return processes


@pytest.fixture
def validate(
    tmp_path: Path, examples_dir: Path, export_dir: Path, evaluation_dir: Path
) -> Callable[..., dict[str, Any]]:
    def validate(*, export: Path = export_dir, evaluation: Path = evaluation_dir, **options: Any) -> dict[str, Any]:
        """Validate with the local server; give the summary and the checks by their names."""
        out_dir = tmp_path / "infra_validation"
        out_dir.mkdir()
        summary = infra_validator.validate(
            examples_dir=examples_dir,
            export_dir=export,
            evaluation_dir=evaluation,
            out_dir=out_dir,
            options=InfraValidatorOptions(**{"engine": "local", **options}),
        )
        blessing = read_json(out_dir / "blessing.json")
        assert blessing["blessed"] is summary["blessed"] is all(check["passed"] for check in blessing["checks"])
        return {**summary, "checks": {check["name"]: check for check in blessing["checks"]}}

    return validate


def test_a_candidate_that_is_served_as_it_was_evaluated_is_blessed(validate, started, tmp_path):
    result = validate()
    assert result["blessed"], result
    assert list(result["checks"]) == ["load", *WAYS]
    assert result["checks"]["grpc_images"]["message"].startswith("8 photos answered as in the evaluation, to ")
    assert (tmp_path / "infra_validation" / infra_validator.LOG).stat().st_size > 0
    answers = read_json(tmp_path / "infra_validation" / infra_validator.ANSWERS)
    assert {way: np.shape(rows) for way, rows in answers.items()} == dict.fromkeys(WAYS, (8, 5))
    (server,) = started
    assert server.returncode == 0


def test_a_server_that_answers_something_else_is_not_blessed(validate, started, evaluation_dir, tmp_path, caplog):
    shutil.copytree(evaluation_dir, tmp_path / "evaluation")
    lines = (evaluation_dir / "predictions.jsonl").read_text().splitlines()
    seen = json.loads(lines[1])
    seen["probabilities"] = [0.9, 0.1, 0.0, 0.0, 0.0]
    lines[1] = json.dumps(seen)
    (tmp_path / "evaluation" / "predictions.jsonl").write_text("\n".join(lines))
    result = validate(evaluation=tmp_path / "evaluation")
    assert not result["blessed"]
    assert [name for name, check in result["checks"].items() if not check["passed"]] == WAYS
    message = result["checks"]["rest_images"]["message"]
    assert message.startswith(f"a probability of {seen['filename']} over REST on images differs by 0.")
    assert message.endswith("from the evaluator's, more than infra_validator.tolerance (0.001)")
    assert f"infra_validator: not blessed: {message}" in caplog.messages
    assert "infra_validator: the server's log ends with:" in caplog.text
    assert started[0].returncode == 0


def test_a_model_that_does_not_load_is_not_blessed(validate, started, export_dir, tmp_path, caplog):
    shutil.copytree(export_dir, tmp_path / "broken")
    graph = tmp_path / "broken" / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])
    result = validate(export=tmp_path / "broken")
    assert not result["blessed"]
    (check,) = result["checks"].values()
    assert check["name"] == "load"
    assert check["message"].startswith(
        "A server (local) must have a version of flowers AVAILABLE within 120 s. Received: "
    )
    assert check["message"].endswith("To try again: --force infra_validator")
    assert "saved_model.pb" in caplog.text, "the end of the log says what is wrong"
    assert started[0].returncode is not None


def test_a_model_that_the_evaluator_refused_is_not_tried(validate, started, tmp_path, caplog):
    write_json(tmp_path / "refused" / "blessing.json", {"blessed": False, "checks": []})
    result = validate(evaluation=tmp_path / "refused")
    assert not result["blessed"]
    assert result["checks"]["evaluator"]["message"] == "the evaluator did not bless the model, so no server was started"
    assert started == []
    assert not (tmp_path / "infra_validation" / infra_validator.LOG).exists()
    assert "the server's log" not in caplog.text


# Without a server.

PHOTO = infra_validator._Photo("rose.jpg", b"", np.zeros((2, 2, 3), np.uint8), np.array([0.25, 0.75]))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((np.array([0.2502, 0.7498]), ["daisy", "rose"]), "1 photos answered as in the evaluation, to 2e-04"),
        (
            (np.array([0.26, 0.74]), ["daisy", "rose"]),
            "of rose.jpg over REST on images differs by 0.01 from the evaluator's",
        ),
        ((np.array([np.nan, 0.75]), ["daisy", "rose"]), "of rose.jpg over REST on images differs by nan"),
        (
            (np.array([0.25, 0.75]), ["rose", "daisy"]),
            r"must be \['daisy', 'rose'\]. Received: \['rose', 'daisy'\]",
        ),
        (infra_validator._AnswerError("503 busy"), "no answer for rose.jpg over REST on images: 503 busy"),
    ],
    ids=["within the tolerance", "beyond it", "nan", "classes", "no answer"],
)
def test_an_answer_is_held_against_what_the_evaluator_saw(answer, message):
    def ask(photo: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    spec = {"class_names": ["daisy", "rose"]}
    check, _ = infra_validator._compare("REST", "images", ask, [PHOTO], spec, InfraValidatorOptions())
    assert check["passed"] is message.startswith("1 photos")
    assert re.search(message, check["message"])


def test_a_server_that_is_gone_gives_no_answer_over_rest_and_grpc(tmp_path):
    grpc_port, rest_port = launcher._find_free_ports()
    server = Server("local", "127.0.0.1", grpc_port, rest_port, tmp_path / "log")
    with pytest.raises(infra_validator._AnswerError, match="refused"):
        infra_validator._ask_rest(server, "flowers", "images", PHOTO)
    with (
        grpc.insecure_channel(server.grpc_target) as channel,
        pytest.raises(infra_validator._AnswerError, match="UNAVAILABLE"),
    ):
        infra_validator._ask_grpc(channel, "flowers", "images", PHOTO)


@pytest.mark.parametrize(
    ("status", "content", "message"),
    [
        (503, '{"error": "busy"}', r'^503 \{"error": "busy"\}$'),
        (200, '{"predictions": [[0.25, 0.75]]}', r"^not an answer: \{"),
        (200, '{"predictions": [{"probabilities": [0.25], "classes": ["daisy", "rose"]}]}', r"^not an answer: \{"),
        (200, "It works!", "Expecting value"),
    ],
)
def test_what_is_no_answer_says_what_it_is(tmp_path, status, content, message):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content.encode())

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.handle_request)
        thread.start()
        server = Server("local", "127.0.0.1", 0, http.server_port, tmp_path / "log")
        with pytest.raises(infra_validator._AnswerError, match=message):
            infra_validator._ask_rest(server, "flowers", "images", PHOTO)
        thread.join()


def test_docker_without_an_engine_is_found_before_anything_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert infra_validator.describe_engine(InfraValidatorOptions()) == {"engine": "local"}
    with pytest.raises(InfraValidationError, match=r"needs a Docker engine.*The option is infra_validator\.engine\."):
        infra_validator.describe_engine(InfraValidatorOptions(engine="docker"))
    monkeypatch.setattr(launcher, "_docker_answers", lambda: True)
    assert infra_validator.describe_engine(InfraValidatorOptions()) == {"engine": "docker", "image": launcher.IMAGE}


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"engine": "podman"}, "engine must be one of auto, docker, local. Received: 'podman'"),
        ({"num_examples": 0}, "num_examples must be at least 1. Received: 0"),
        ({"tolerance": 0.0}, "tolerance must be 1e-6 (the evaluator rounds to it) to 1. Received: 0.0"),
        ({"timeout_s": float("nan")}, "timeout_s must be above 0. Received: nan"),
    ],
)
def test_options_are_checked(options, rule):
    with pytest.raises(ValueError, match="must be") as raised:
        InfraValidatorOptions(**options)
    assert str(raised.value) == rule
