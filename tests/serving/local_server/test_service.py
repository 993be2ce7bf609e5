import asyncio
import gc
import weakref
from contextlib import suppress

import numpy as np
import pytest

from serving.local_server.batching import Scheduler
from serving.local_server.errors import StatusError, invalid_argument
from serving.local_server.loading import load
from serving.local_server.manager import ManagerOptions, ModelManager
from serving.local_server.metrics import Metrics
from serving.local_server.service import Service


@pytest.mark.anyio
@pytest.mark.parametrize("timeout_s", [None, 30.0])
async def test_a_refused_request_frees_what_was_sent_at_once(timeout_s: float | None) -> None:
    """A bad request of megabytes is not kept until the garbage collector comes, which may be minutes."""
    watched: list[weakref.ref[np.ndarray]] = []

    async def refuse() -> None:
        sent = np.zeros(1000)
        watched.append(weakref.ref(sent))
        raise invalid_argument("wrong")

    async def handle() -> None:
        # In a task of its own, as the REST API does, to notice when the client hangs up.
        working = asyncio.ensure_future(refuse())
        await asyncio.wait([working])
        working.result()

    manager = ModelManager(load, ManagerOptions())  # type: ignore[arg-type]
    service = Service(manager, Scheduler(None), Metrics(), max_tensor_bytes=1000)
    gc.collect()
    gc.disable()
    try:
        with suppress(StatusError):
            await service.counted(handle(), model_name="m", api="predict", entrypoint="REST", timeout_s=timeout_s)
        assert watched[0]() is None
    finally:
        gc.enable()
