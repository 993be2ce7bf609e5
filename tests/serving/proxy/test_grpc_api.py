"""gRPC through the proxy, in front of a server that returns what it gets."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from client.classifier_client.transports import prediction_pb2 as pb
from serving.proxy.forwarding import Forwarder
from serving.proxy.grpc_api import GrpcProxy
from serving.proxy.plan import Board, Plan
from tests.serving.local_server.conftest import free_ports

PREDICT = "/tensorflow.serving.PredictionService/Predict"


class Echo(grpc.GenericRpcHandler):
    """Returns the method, the request and the metadata as JSON."""

    def service(self, handler_call_details: Any) -> Any:
        async def handle(body: bytes, context: Any) -> bytes:
            metadata = {key: str(value) for key, value in context.invocation_metadata()}
            return json.dumps([handler_call_details.method, body.hex(), metadata]).encode()

        return grpc.unary_unary_rpc_method_handler(handle)


def through_the_proxy(work: Callable[[grpc.aio.Channel], Awaitable[bytes]], *, plan: Plan | None = None) -> Any:
    async def run() -> Any:
        board = Board()
        if plan:
            board.begin(plan)
        forwarder = Forwarder(board)
        server, (port,) = grpc.aio.server(), free_ports(1)
        server.add_generic_rpc_handlers((Echo(),))
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        options: Any = {"model_name": "flowers", "stable_label": "stable", "timeout_s": 20}
        proxy = GrpcProxy(forwarder, address, listens_on=f"127.0.0.1:{port}", **options)
        await server.start()
        await proxy.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                return json.loads(await work(channel))
        finally:
            await forwarder.close()
            await proxy.stop(0)
            await server.stop(0)

    return asyncio.run(asyncio.wait_for(run(), 30))


def spec(label: bytes) -> bytes:
    """Return a request for a label of the model."""
    inner = pb.ModelSpec(name="flowers").SerializeToString() + bytes([4 << 3 | 2, len(label)]) + label
    return bytes([1 << 3 | 2, len(inner)]) + inner


@pytest.mark.parametrize("label", [b"\xff\xfe", b"canary", b""])
@pytest.mark.parametrize("plan", [None, Plan(mode="split", stable=1, canary=2, share=0.5)])
def test_label_that_is_not_stables_goes_through_as_it_is(label: bytes, plan: Plan | None) -> None:
    method, body, _ = through_the_proxy(lambda channel: channel.unary_unary(PREDICT)(spec(label)), plan=plan)
    assert (method, bytes.fromhex(body)) == (PREDICT, spec(label))


def test_metadata_of_the_client_reaches_the_server() -> None:
    sent = (("authorization", "Bearer x"), ("trace-bin", b"\x00\xff"))
    *_, received = through_the_proxy(lambda channel: channel.unary_unary(PREDICT)(b"", metadata=sent))
    assert (received["authorization"], received["trace-bin"]) == ("Bearer x", str(b"\x00\xff"))
