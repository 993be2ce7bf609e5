"""Servers on loopback that send whatever bytes a test gives them, at the pace that it gives them."""

import json
import socket
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from client.classifier_client.transports import prediction_pb2 as pb
from tests.client.fakes import CLASS_NAMES, LIMITS, PROBABILITIES, SIZE_PX

METADATA: dict[str, Any] = {
    "model_spec": {"name": "flowers", "signature_name": "", "version": "1"},
    "metadata": {
        "signature_def": {
            "signature_def": {
                "images": {
                    "inputs": {
                        "images": {
                            "dtype": "DT_UINT8",
                            "tensor_shape": {"dim": [{"size": str(size)} for size in (-1, SIZE_PX, SIZE_PX, 3)]},
                        }
                    }
                }
            }
        }
    },
}
OUTPUTS: dict[str, Any] = {
    "outputs": {
        "probabilities": [list(PROBABILITIES)],
        "classes": [list(CLASS_NAMES)],
        **{name: [value] for name, value in LIMITS.items()},
    }
}


def to_http(content: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    """Return a complete response."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n{headers}\r\n".encode() + content


GOOD_METADATA, GOOD_OUTPUTS = to_http(json.dumps(METADATA).encode()), to_http(json.dumps(OUTPUTS).encode())


class RawHttp:
    """Responds to each GET with `metadata`, to each POST with `outputs`: the bytes of responses, or parts of them.

    Attributes:
        closes: the connection is closed after the response to a POST.
        num_requests: received.
    """

    def __init__(self) -> None:
        self.metadata: bytes | Callable[[], Iterable[bytes]] = GOOD_METADATA
        self.outputs: bytes | Callable[[], Iterable[bytes]] = GOOD_OUTPUTS
        self.closes = False
        self.num_requests = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "RawHttp":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader:
            try:
                while head := reader.readline():
                    length = 0
                    while (line := reader.readline()) not in (b"\r\n", b""):
                        if line.lower().startswith(b"content-length:"):
                            length = int(line.split(b":")[1])
                    reader.read(length)
                    self.num_requests += 1
                    response = self.metadata if head.startswith(b"GET") else self.outputs
                    for part in [response] if isinstance(response, bytes) else response():
                        connection.sendall(part)
                    if self.closes and not head.startswith(b"GET"):
                        connection.shutdown(socket.SHUT_WR)
                        return
            except OSError:
                return


def good_messages() -> tuple[bytes, bytes]:
    """Return the messages of a gRPC server that is well: metadata, and one prediction."""
    info = pb.TensorInfo(dtype=pb.DT_UINT8, tensor_shape=to_shape(-1, SIZE_PX, SIZE_PX, 3))
    signatures = pb.Signatures(signature_def={"images": pb.Signature(inputs={"images": info})})
    metadata = pb.ModelMetadataResponse(
        metadata={"signature_def": pb.ModelMetadataResponse.Any(value=signatures.SerializeToString())}
    )
    shape = to_shape(1, len(CLASS_NAMES))
    outputs = {
        "probabilities": pb.Tensor(dtype=pb.DT_FLOAT, tensor_shape=shape, float_val=PROBABILITIES),
        "classes": pb.Tensor(
            dtype=pb.DT_STRING, tensor_shape=shape, string_val=[name.encode() for name in CLASS_NAMES]
        ),
        "p_value": pb.Tensor(dtype=pb.DT_FLOAT, tensor_shape=to_shape(1), float_val=[LIMITS["p_value"]]),
        "is_known": pb.Tensor(dtype=pb.DT_BOOL, tensor_shape=to_shape(1), bool_val=[LIMITS["is_known"]]),
        "prediction_set": pb.Tensor(dtype=pb.DT_BOOL, tensor_shape=shape, bool_val=LIMITS["prediction_set"]),
    }
    spec = pb.ModelSpec(name="flowers", version=pb.Version(value=1))
    return metadata.SerializeToString(), pb.PredictResponse(outputs=outputs, model_spec=spec).SerializeToString()


def to_shape(*sizes: int) -> pb.TensorShape:
    return pb.TensorShape(dim=[pb.TensorShape.Dim(size=size) for size in sizes])


class RawGrpc:
    """Responds to each call with the bytes `metadata` or `outputs`, or with a status code where `code` is one."""

    def __init__(self) -> None:
        self.metadata, self.outputs = good_messages()
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self._server = grpc.server(ThreadPoolExecutor(2))
        self._server.add_generic_rpc_handlers([self._handlers()])
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> "RawGrpc":
        self._server.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.stop(None).wait()

    def _handlers(self) -> Any:
        def respond(attribute: str) -> Any:
            def handle(_: bytes, context: Any) -> bytes:
                if self.code:
                    context.abort(self.code, self.details)
                content: bytes = getattr(self, attribute)
                return content

            return grpc.unary_unary_rpc_method_handler(handle)

        methods = {"GetModelMetadata": respond("metadata"), "Predict": respond("outputs")}
        return grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", methods)
