"""serving/compose.yaml, run: what answers, what follows a push, what comes back, and what a fault leaves standing."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_service_pb2_grpc

from tests.containers.compose import DOWN_S, UP_S, Project, project, wait_until
from tests.containers.docker import ROOT
from tests.serving import expressions
from tests.serving.local_server.conftest import free_ports

pytestmark = pytest.mark.containers

PHOTO = (ROOT / "client" / "samples" / "daisy.jpg").read_bytes()
SERVICES = ("server", "web", "prometheus")


@pytest.fixture(scope="module")
def running(
    serving_image: str, tmp_path_factory: pytest.TempPathFactory, artifact: Callable[[str], Path]
) -> Iterator[Project]:
    """The project, healthy, with a version 1. Tests push further versions and leave the highest one served."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=30, check=False).returncode:
        pytest.skip("docker compose is not installed")
    ports = dict(zip(("GRPC", "REST", "WEB", "PROMETHEUS"), free_ports(4), strict=True))
    folder = tmp_path_factory.mktemp("compose")
    with project(folder, f"flowers-test-{os.getpid()}", ports, artifact("export")) as made:
        made.compose("up", "--detach", "--wait", "--wait-timeout", str(UP_S))
        yield made


def push(running: Project, content: Path) -> int:
    """Publish the next version; return it when it is served."""
    version = max(running.versions()) + 1
    running.push(version, content)
    wait_until(lambda: running.versions().get(version) == "AVAILABLE")
    return version


def classify_over_grpc(running: Project, label: str = "") -> predict_pb2.PredictResponse:
    spec = model_pb2.ModelSpec(name="flowers", signature_name="serving_default", version_label=label or None)
    shape = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=1)])
    photos = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_shape=shape, string_val=[PHOTO])
    with grpc.insecure_channel(f"127.0.0.1:{running.ports['GRPC']}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return stub.Predict(predict_pb2.PredictRequest(model_spec=spec, inputs={"image_bytes": photos}), timeout=30)


def test_the_server_answers_over_rest_and_grpc_by_label_too(running: Project) -> None:
    for label in ("", "stable", "canary"):
        status, response = running.classify(image=PHOTO, label=label)
        assert status == 200, response
        assert sum(response["predictions"][0]["probabilities"]) == pytest.approx(1, abs=1e-3)
        outputs = classify_over_grpc(running, label)
        assert len(outputs.outputs["probabilities"].float_val) == 5
        assert running.versions()[outputs.model_spec.version.value] == "AVAILABLE"


def test_the_page_classifies_a_photo(running: Project) -> None:
    assert "<form" in running.request("GET", "WEB", "/").text
    response = running.request("POST", "WEB", "/api/classify", files={"photo": PHOTO})
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    assert int(result["model_version"]) == max(running.versions())
    assert running.request("GET", "WEB", "/readyz").status_code == 200


def test_prometheus_holds_the_metrics_of_server_and_page(running: Project) -> None:
    wait_until(lambda: [each["value"][1] for each in running.query("up")] == ["1", "1"])
    wait_until(lambda: bool(running.query(':tensorflow:serving:request_count{model_name="flowers", status="OK"}')))
    wait_until(lambda: running.query("classifier_web_model_ready")[0]["value"][1] == "1")
    rules = running.request("GET", "PROMETHEUS", "/api/v1/rules").json()["data"]["groups"]
    assert {rule["name"] for group in rules for rule in group["rules"]} == set(expressions.read_alerts())
    assert all(rule["health"] != "err" for group in rules for rule in group["rules"])


@pytest.mark.parametrize("panel", expressions.read_panels())
def test_prometheus_accepts_the_queries_of_the_dashboard(running: Project, panel: str) -> None:
    for expression in expressions.read_panels()[panel]:
        running.query(expression)


def test_a_version_that_is_pushed_is_served_without_a_restart(running: Project, export_dir: Path) -> None:
    started = running.state("server")["State"]["StartedAt"]
    version = push(running, export_dir)
    assert classify_over_grpc(running).model_spec.version.value == version
    assert running.state("server")["State"]["StartedAt"] == started


def test_a_label_loses_its_version_at_the_second_push_until_it_is_moved(running: Project, export_dir: Path) -> None:
    """The trap that models.config warns of."""
    before = max(running.versions())
    text = running.models_config.read_text()
    running.models_config.write_text(text.replace('"stable" value: 1', f'"stable" value: {before}'))
    wait_until(lambda: classify_over_grpc(running, "stable").model_spec.version.value == before)
    push(running, export_dir)
    assert running.classify(image=PHOTO, label="stable")[0] == 200
    newest = push(running, export_dir)
    wait_until(lambda: running.versions().get(before) != "AVAILABLE")
    status, response = running.classify(image=PHOTO, label="stable")
    assert status == 404, response
    assert "Servable not found" in response["error"]
    assert running.classify(image=PHOTO)[0] == 200, "who names none is served on"
    running.models_config.write_text(text.replace("value: 1", f"value: {newest}"))
    wait_until(lambda: running.classify(image=PHOTO, label="stable")[0] == 200)


def test_a_broken_version_does_not_take_the_good_one_down(running: Project, tmp_path: Path) -> None:
    good, broken = max(running.versions()), max(running.versions()) + 1
    (tmp_path / "saved_model.pb").write_bytes(b"no model")
    running.push(broken, tmp_path)
    wait_until(lambda: running.versions().get(broken) == "END")
    assert running.versions()[good] == "AVAILABLE"
    assert classify_over_grpc(running).model_spec.version.value == good
    failed = f'load_attempt_count{{model_path="/models/flowers/{broken}",status="fail"}}'
    wait_until(lambda: bool(running.query(f":tensorflow:cc:saved_model:{failed}")))
    (running.folder / "models" / "flowers" / str(broken) / "saved_model.pb").unlink()
    (running.folder / "models" / "flowers" / str(broken)).rmdir()


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_whose_process_is_killed_comes_back(running: Project, service: str) -> None:
    """`docker kill` would count as stopped by hand, after which no engine starts a container again."""
    before = running.state(service)["State"]
    try:
        os.kill(before["Pid"], signal.SIGKILL)
    except (PermissionError, ProcessLookupError) as exc:
        pytest.skip(f"the processes of the engine's containers cannot be killed from here: {exc}")
    wait_until(lambda: running.state(service)["RestartCount"] > 0)
    wait_until(lambda: running.state(service)["State"].get("Health", {}).get("Status") == "healthy", timeout_s=UP_S)
    wait_until(lambda: running.request("GET", "WEB", "/readyz").status_code == 200)


def test_down_ends_in_time(running: Project) -> None:
    start_s = time.monotonic()
    running.compose("down")
    assert time.monotonic() - start_s < DOWN_S
