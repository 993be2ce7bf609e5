"""Many clients at once, and requests that would never end: nobody is refused, and nobody waits for another's model."""

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from tensorflow_serving.apis import prediction_service_pb2_grpc

from benchmarks.machine import processor_s
from tests.serving.local_server.conftest import (
    CALL_S,
    STOP_S,
    Server,
    linux,
    refusal,
    start_server,
    wait_until,
    write_config,
)
from tests.serving.local_server.test_protocol_grpc import X, predict_request

TIMEOUT_MS = 1000
BODY = b'{"instances": [1.0]}'


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Server]:
    """A server whose requests may take a second."""
    folder = tmp_path_factory.mktemp("load")
    models = {"endless": models_dir / "endless", "default": models_dir / "half_plus_two"}
    config = write_config(folder / "models.config", models)
    session = folder / "session.config"
    session.write_text("intra_op_parallelism_threads: 1")
    with start_server(
        folder / "server.log",
        model_config_file=config,
        rest_api_timeout_in_ms=TIMEOUT_MS,
        tensorflow_session_config_file=session,
    ) as server:
        yield server


def is_idle(server: Server) -> bool:
    """Return whether a server takes next to no processor time for a fifth of a second."""
    before = processor_s(server.process.pid)
    with pytest.raises(subprocess.TimeoutExpired):
        server.process.wait(0.2)
    return processor_s(server.process.pid) - before < 0.05


@linux
def test_a_timeout_over_rest_ends_the_work_and_keeps_no_other_model_waiting(hasty: Server) -> None:
    with ThreadPoolExecutor(4) as pool:
        stuck = [pool.submit(hasty.request, "POST", "/v1/models/endless:predict", BODY) for _ in range(4)]
        wait_until(lambda: not is_idle(hasty))
        num_served = 0
        while not any(each.done() for each in stuck):
            assert hasty.predict("default", instances=[1.0]) == (200, {"predictions": [2.5]})
            num_served += 1
        assert [each.result().status_code for each in stuck] == [504] * 4
    assert num_served > 10
    wait_until(lambda: is_idle(hasty))


@linux
def test_a_deadline_over_grpc_ends_the_work(hasty: Server) -> None:
    with grpc.insecure_channel(hasty.target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        code, _ = refusal(stub.Predict, predict_request("endless", x=X), timeout=0.5)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_until(lambda: is_idle(hasty))
        assert stub.Predict(predict_request("default", x=X), timeout=CALL_S).outputs["y"].float_val


@pytest.mark.anyio
async def test_four_hundred_clients_at_once_are_all_served(server: Server) -> None:
    head = f"POST /v1/models/default:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n"

    async def call_ten_times() -> list[bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.rest_port)
        statuses = []
        for _ in range(10):
            writer.write(head.encode() + BODY)
            answered = await reader.readuntil(b"\r\n\r\n")
            length = int(answered.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            assert json.loads(await reader.readexactly(length)) == {"predictions": [2.5]}
            statuses.append(answered.split()[1])
        writer.close()
        await writer.wait_closed()
        return statuses

    found = await asyncio.gather(*(call_ten_times() for _ in range(400)))
    assert [status for statuses in found for status in statuses] == [b"200"] * 4000


@linux
def test_a_request_that_outlives_the_servers_grace_is_told_so(tmp_path: Path, models_dir: Path) -> None:
    flags = {"model_name": "endless", "model_base_path": models_dir / "endless"}
    with start_server(tmp_path / "server.log", **flags) as server, ThreadPoolExecutor(2) as pool:
        over_rest = pool.submit(server.request, "POST", "/v1/models/endless:predict", BODY)
        with grpc.insecure_channel(server.target) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            over_grpc = stub.Predict.future(predict_request("endless", x=X))
            wait_until(lambda: not is_idle(server))
            server.process.send_signal(signal.SIGTERM)
            assert over_grpc.code() is grpc.StatusCode.UNAVAILABLE
            response = over_rest.result()
        assert (response.status_code, response.json()["error"][:20]) == (503, "The server is ending")
        assert server.process.wait(STOP_S) == 0
        assert "Traceback" not in server.log()
