"""A version is swapped out under a request: the request ends well, and only then the version is freed."""

import asyncio
import gc
import json
import threading
import weakref
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, predict_pb2
from tensorflow_serving.apis.model_pb2 import ModelSpec

from serving.local_server.batching import Scheduler
from serving.local_server.loading import load
from serving.local_server.manager import ManagerOptions, ModelManager
from serving.local_server.metrics import Metrics
from serving.local_server.model_config import ModelConfig
from serving.local_server.rest_api import RestApi
from serving.local_server.servable import LoadOptions, Servable
from serving.local_server.service import Service
from serving.local_server.versions import AVAILABLE, END, UNLOADING, Version
from tests.serving.local_server.test_manager import TIMEOUT_S, until

MANY = 2100
pytestmark = pytest.mark.anyio


@pytest.fixture
async def manager() -> AsyncIterator[ModelManager]:
    manager = ModelManager(lambda name, path: load(path, LoadOptions()), ManagerOptions())
    yield manager
    await manager.close()


@pytest.fixture
def service(manager: ModelManager) -> Service:
    return Service(manager, Scheduler(None), Metrics(), max_tensor_bytes=1 << 20)


async def send_rest(service: Service, path: str, document: Any) -> Any:
    """Send a request through the REST API, without a connection; return the JSON of the response."""
    api = RestApi(service, timeout_s=None, max_body_bytes=1 << 20, metrics_path="", enable_cors=False)
    sent: list[Any] = []
    received = iter([{"type": "http.request", "body": json.dumps(document).encode(), "more_body": False}])

    async def receive() -> Any:
        return next(received, None) or await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    await api.app({**scope, "headers": []}, receive, send)
    return json.loads(sent[1]["body"])


async def predict_rest(service: Service, numbers: list[float]) -> list[float]:
    return (await send_rest(service, "/v1/models/m:predict", {"instances": numbers}))["predictions"]  # type: ignore[no-any-return]


async def predict_grpc(service: Service, numbers: list[float]) -> list[float]:
    request = predict_pb2.PredictRequest(model_spec=ModelSpec(name="m"))
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.float32(numbers)))
    return list((await service.predict(request)).outputs["y"].float_val)


async def classify_rest(service: Service, numbers: list[float]) -> list[float]:
    document = {"signature_name": "classify_x_to_y", "examples": [{"x": [number]} for number in numbers]}
    results = (await send_rest(service, "/v1/models/m:classify", document))["results"]
    return [score for [[_, score]] in results]


async def classify_grpc(service: Service, numbers: list[float]) -> list[float]:
    request = classification_pb2.ClassificationRequest(model_spec=ModelSpec(name="m", signature_name="classify_x_to_y"))
    for number in numbers:
        example = request.input.example_list.examples.add()
        example.features.feature["x"].float_list.value.append(number)
    return [found.classes[0].score for found in (await service.classify(request)).result.classifications]


def push(base: Path, number: int, source: Path) -> None:
    base.mkdir(exist_ok=True)
    (base / str(number)).symlink_to(source, target_is_directory=True)


def hold(version: Version) -> "weakref.ref[Servable]":
    assert version.servable
    return weakref.ref(version.servable)


async def serve(manager: ModelManager, folder: Path, saved_model: Path) -> tuple[Version, "weakref.ref[Servable]"]:
    """Serve a model's first version from a folder; return it, and what shows whether it is freed."""
    push(folder, 1, saved_model)
    await manager.configure([ModelConfig("m", folder)])
    version = manager.get(ModelSpec(name="m"))
    return version, hold(version)


def close(is_closed: threading.Event, gate: threading.Event) -> None:
    is_closed.set()
    gate.wait(TIMEOUT_S)


async def check_freed(version: Version, watched: "weakref.ref[Servable]") -> None:
    await until(lambda: version.state == END)
    gc.collect()
    assert (version.num_in_flight, version.servable, watched()) == (0, None, None)


@pytest.mark.parametrize("send", [predict_rest, predict_grpc])
async def test_a_request_at_work(
    manager: ModelManager, service: Service, tmp_path: Path, models_dir: Path, send: Any
) -> None:
    version, watched = await serve(manager, tmp_path / "m", models_dir / "block" / "1")
    # The model `block` responds when it is told to.
    work = asyncio.ensure_future(send(service, [7.0]))
    await until(lambda: version.num_in_flight)
    push(tmp_path / "m", 2, models_dir / "half_plus_two" / "00000123")
    await manager.configure([ModelConfig("m", tmp_path / "m")])
    new = manager.get(ModelSpec(name="m"))
    assert (version.state, new.number, new.state) == (UNLOADING, 2, AVAILABLE)
    assert await send(service, [7.0]) == [5.5]  # by the new one
    assert not work.done()
    with version.lease() as servable:
        signature = servable.signatures["release"]
        feeds = {signature.inputs["x"].name: np.float32([0])}
        await asyncio.to_thread(servable.run, feeds, [signature.outputs["y"].name])
    del servable
    assert await work == [7.0]
    del work
    await check_freed(version, watched)


@pytest.mark.parametrize("send", [predict_rest, classify_rest, classify_grpc])
async def test_a_request_that_is_still_read(
    manager: ModelManager, service: Service, tmp_path: Path, models_dir: Path, send: Any
) -> None:
    version, watched = await serve(manager, tmp_path / "m", models_dir / "half_plus_two" / "00000123")
    # One thread reads, so what reads the request's values waits behind the gate; what parsed the request was before it.
    threads, last = ThreadPoolExecutor(1), threading.Event()
    asyncio.get_running_loop().set_default_executor(threads)
    work = asyncio.ensure_future(send(service, [7.0] * MANY))
    try:
        with anyio.fail_after(TIMEOUT_S):
            while not version.num_in_flight:
                is_closed, gate = threading.Event(), threading.Event()
                threads.submit(close, is_closed, gate)
                last.set()
                await until(is_closed.is_set)
                last = gate
        await manager.configure([])
        assert version.state == UNLOADING
        assert version.servable
        assert not work.done()
    finally:
        last.set()
    assert await work == [5.5] * MANY
    del work
    await check_freed(version, watched)
