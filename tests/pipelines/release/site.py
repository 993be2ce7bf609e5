"""A server with the proxy in front of it, and clients that never stop."""

import base64
import itertools
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import requests

from client.classifier_client.transports import prediction_pb2 as pb
from pipelines.__main__ import main
from tests.pipelines.release.versions import NAME
from tests.ready import start_ready
from tests.serving.local_server.conftest import free_ports


@dataclass
class Site:
    """A server with its configuration, and the proxy in front of it."""

    server_rest_port: int
    models_dir: Path
    config: Path
    port: int
    rest_port: int
    control_port: int

    def release(self, *arguments: str) -> int:
        common = ["--models-dir", str(self.models_dir), "--config", str(self.config), "--stable", "1"]
        common += ["--server", f"127.0.0.1:{self.server_rest_port}", "--proxy", f"127.0.0.1:{self.control_port}"]
        return main(["release", *common, "--min-requests", "60", "--max-accuracy-drop", "0.1", *arguments])


@contextmanager
def open_site(port: int, rest_port: int, *, models_dir: Path, config: Path) -> Iterator[Site]:
    """Run a proxy in front of the server at two ports while the block lasts."""
    proxy_port, proxy_rest_port, control_port = free_ports(3)
    command = [sys.executable, "-m", "serving.proxy", "--server", f"127.0.0.1:{port}"]
    command += ["--rest-server", f"127.0.0.1:{rest_port}", "--port", str(proxy_port)]
    command += ["--rest-port", str(proxy_rest_port), "--control-port", str(control_port)]
    with start_ready(command, config.with_name("proxy.log")) as (process, _):
        try:
            yield Site(rest_port, models_dir, config, proxy_port, proxy_rest_port, control_port)
        finally:
            process.terminate()
            assert process.wait(20) == 0


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
