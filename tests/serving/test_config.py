"""Every file that an outside tool reads is valid, and means what it should."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving import launcher
from serving.local_server import protos

SERVING = Path(launcher.__file__).parent
COMPOSE = yaml.safe_load((SERVING / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
METRICS = "/monitoring/prometheus/metrics"


def server_flags() -> dict[str, str]:
    return dict(flag.removeprefix("--").split("=") for flag in SERVICES["server"]["command"])


# TensorFlow Serving's configuration.


@pytest.mark.parametrize("name", ["models.config", "pinned.config"])
def test_both_labels_of_flowers_begin_at_version_1(name):
    (model,) = protos.read(SERVING / "config" / name, protos.ModelServerConfig).model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("flowers", "/models/flowers", "tensorflow")
    assert dict(model.version_labels) == {"stable": 1, "canary": 1}


def test_compose_follows_pushes_and_kubernetes_waits_for_a_person():
    models, pinned = (
        protos.read(SERVING / "config" / name, protos.ModelServerConfig).model_config_list.config[0]
        for name in ("models.config", "pinned.config")
    )
    assert models.model_version_policy.latest.num_versions == 2
    assert list(pinned.model_version_policy.specific.versions) == [1]


def test_batching_config_never_lets_a_lone_request_wait_and_bounds_the_queue():
    batching = protos.read(SERVING / "config" / "batching.config", protos.BatchingParameters)
    assert batching.batch_timeout_micros.value == 0
    assert batching.max_batch_size.value >= 1
    assert batching.num_batch_threads.value >= 1
    assert 1 <= batching.max_enqueued_batches.value <= 100
    assert not batching.allowed_batch_sizes


def test_monitoring_config_is_where_prometheus_looks():
    monitoring = protos.read(SERVING / "config" / "monitoring.config", protos.MonitoringConfig)
    assert monitoring.prometheus_config.enable
    assert monitoring.prometheus_config.path == METRICS
    server, web = yaml.safe_load((SERVING / "config" / "prometheus.yml").read_text())["scrape_configs"]
    assert server["metrics_path"] == METRICS
    assert server["static_configs"] == [{"targets": [f"server:{server_flags()['rest_api_port']}"]}]
    assert web["static_configs"] == [{"targets": ["web:8080"]}]


# The compose file.


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_a_service_has_a_pinned_image_few_rights_and_limits(service):
    image, _, tag = service["image"].rpartition(":")
    assert image
    assert tag.removeprefix("v").count(".") == 2, "a whole version, which does not move"
    assert service["user"].split(":")[0] not in ("0", "root")
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service["mem_limit"]
    assert service["cpus"]
    assert service["stop_grace_period"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert {"test", "interval", "timeout", "start_period"} <= set(service["healthcheck"])


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_every_mount_of_a_service_exists_and_is_read_only(service):
    binds = [volume for volume in service["volumes"] if isinstance(volume, dict)]
    named = [volume.split(":")[0] for volume in service["volumes"] if isinstance(volume, str)]
    assert set(named) <= set(COMPOSE["volumes"])
    for bind in binds:
        assert bind["read_only"]
        assert not bind["bind"]["create_host_path"], "a folder that is missing is an error, not made by root"
        # The models are made by `make train`.
        assert bind["source"] == "../models/flowers" or (SERVING / bind["source"]).is_dir()


def test_the_compose_file_and_the_launcher_run_the_same_server():
    assert SERVICES["server"]["image"] == launcher.IMAGE
    assert SERVICES["server"]["entrypoint"] == ["tensorflow_model_server"]
    assert SERVICES["server"]["init"]


def test_every_configuration_file_of_a_command_is_mounted():
    flags = [flag for service in SERVICES.values() for flag in service["command"] if "=/config/" in flag]
    assert len(flags) == 4
    for flag in flags:
        assert (SERVING / "config" / flag.split("=/config/")[1]).is_file()


def test_labels_may_point_to_versions_that_are_not_loaded_yet_and_the_config_is_polled():
    flags = server_flags()
    assert flags["allow_version_labels_for_unavailable_models"] == "true"
    assert int(flags["model_config_file_poll_wait_seconds"]) > 0


@contextmanager
def status_page(content: str) -> Iterator[int]:
    """Serve that content as the status of flowers, as TensorFlow Serving does; yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/v1/models/flowers" else 404)
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def check_health(port: int) -> int:
    """Run the health check against another port; return its exit status."""
    _, *command, script = SERVICES["server"]["healthcheck"]["test"]
    command = [*command, script.replace("8501", str(port))]
    return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=10, check=False).returncode


@pytest.mark.parametrize(
    ("content", "healthy"),
    [
        ('{"model_version_status": [{"state": "AVAILABLE"}]}', True),
        ('{"model_version_status": [{"state": "END", "status": {"error_code": "UNAVAILABLE"}}]}', False),
    ],
)
def test_the_servers_healthcheck_shows_whether_a_version_is_available(content, healthy):
    with status_page(content) as port:
        assert (check_health(port) == 0) is healthy


def test_the_servers_healthcheck_fails_where_nobody_listens():
    with status_page("") as port:
        pass
    assert check_health(port) != 0
