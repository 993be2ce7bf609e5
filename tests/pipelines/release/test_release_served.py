"""Releases in front of a real server: nothing that clients send is lost, whatever the canary does."""

import base64
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
import requests

from client.classifier_client.transports import prediction_pb2 as pb
from components.artifacts.release import read_evidence, read_releases, releases_dir
from pipelines.__main__ import main
from pipelines.release.models_config import read_labels
from tests.pipelines.release.versions import BROKEN, CRASHING, NAME, OTHER, SAME, SLOW, write_version
from tests.serving.local_server.conftest import ROOT, Server, free_ports, start_server


@dataclass
class Site:
    """A server with its configuration, and the proxy in front of it."""

    server: Server
    models_dir: Path
    config: Path
    port: int
    rest_port: int
    control_port: int

    def release(self, *arguments: str) -> int:
        common = ["--models-dir", str(self.models_dir), "--config", str(self.config), "--stable", "1"]
        common += ["--server", f"127.0.0.1:{self.server.rest_port}", "--proxy", f"127.0.0.1:{self.control_port}"]
        return main(["release", *common, "--min-requests", "60", "--max-accuracy-drop", "0.1", *arguments])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    models_dir = folder / "models"
    for kind in (1, SAME, CRASHING, SLOW, OTHER):
        write_version(models_dir / NAME / str(kind), kind)
    (models_dir / NAME / str(BROKEN)).mkdir()
    (models_dir / NAME / str(BROKEN) / "saved_model.pb").write_bytes(b"none")
    config = folder / "models.config"
    config.write_text(
        f'# Ours.\nmodel_config_list {{ config {{ name: "{NAME}" base_path: "{models_dir / NAME}" '
        'model_platform: "tensorflow" model_version_policy { specific { versions: 1 } } } }'
    )
    port, rest_port, control_port = free_ports(3)
    flags = {"model_config_file": config, "model_config_file_poll_wait_seconds": 1, "max_num_load_retries": 0}
    with start_server(folder / "server.log", **flags) as server, (folder / "proxy.log").open("w") as log:
        command = [sys.executable, "-m", "serving.proxy", "--server", server.target]
        command += ["--rest-server", f"127.0.0.1:{server.rest_port}", "--port", str(port)]
        command += ["--rest-port", str(rest_port), "--control-port", str(control_port)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout
            assert process.stdout.readline().startswith("ready: ")
            yield Site(server, models_dir, config, port, rest_port, control_port)
        finally:
            process.terminate()
            assert process.wait(20) == 0
            process.stdout.close()


@dataclass
class Clients:
    """What eight clients at work got."""

    failures: list[str] = field(default_factory=list)
    num_requests: int = 0


@contextmanager
def clients(site: Site) -> Iterator[Clients]:
    """Let four clients call over REST and four over gRPC, each request with a photo of its own."""
    seen, stopping, numbers = Clients(), threading.Event(), itertools.count()

    def over_rest() -> None:
        with requests.Session() as session:
            session.trust_env = False
            while not stopping.wait(0.01):
                body = {"inputs": [{"b64": base64.b64encode(b"%d" % next(numbers)).decode()}]}
                url = f"http://127.0.0.1:{site.rest_port}/v1/models/{NAME}:predict"
                response = session.post(url, data=json.dumps(body), timeout=30)
                seen.num_requests += 1
                if response.status_code != 200:
                    seen.failures.append(response.text)

    def over_grpc() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{site.port}") as channel:
            predict = channel.unary_unary(
                "/tensorflow.serving.PredictionService/Predict",
                request_serializer=pb.PredictRequest.SerializeToString,
                response_deserializer=pb.PredictResponse.FromString,
            )
            while not stopping.wait(0.01):
                tensor = pb.Tensor(dtype=pb.DT_STRING, string_val=[b"%d" % next(numbers)])
                tensor.tensor_shape.dim.add(size=1)
                request = pb.PredictRequest(model_spec=pb.ModelSpec(name=NAME), inputs={"image_bytes": tensor})
                seen.num_requests += 1
                try:
                    predict(request, timeout=30)
                except grpc.RpcError as exc:
                    seen.failures.append(str(exc))

    threads = [threading.Thread(target=work) for work in (over_rest, over_grpc) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(
    ("candidate", "mode", "status", "reason"),
    [
        (CRASHING, "shadow", 3, "errors"),
        (CRASHING, "split", 3, "errors"),
        (SLOW, "shadow", 3, "latency"),
        (OTHER, "shadow", 3, "disagreement"),
        (BROKEN, "shadow", 3, "cannot load"),
        (SAME, "shadow", 0, "no test speaks against it"),
    ],
)
def test_eight_clients_lose_no_request(site: Site, candidate: int, mode: str, status: int, reason: str) -> None:
    with clients(site) as seen:
        assert site.release("--candidate", str(candidate), "--mode", mode, "--share", "0.5") == status
        after = seen.num_requests + 50
        while seen.num_requests < after and not seen.failures:
            threading.Event().wait(0.01)
    assert seen.failures == []
    folder = releases_dir(site.models_dir, NAME)
    record = read_releases(folder)[-1]
    assert reason in record["reason"]
    serving = candidate if status == 0 else 1
    assert read_labels(site.config, NAME) == {"stable": serving, "canary": serving}
    assert site.config.read_text().startswith("# Ours.\n")
    if reason in ("errors", "latency"):
        lines = read_evidence(folder, record["number"])
        assert sum(line["canary"] is not None for line in lines) <= 20
