"""Servers that speak TensorFlow Serving's protocols on real sockets, and fail when they are told to."""

import json
import socket
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

import grpc

from client.classifier_client import ConnectionOptions, Transport

CLASS_NAMES = ("daisy", "tulip")
PROBABILITIES = (0.25, 0.75)
SIZE_PX = 32

STATUS = {"UNAVAILABLE": 503, "NOT_FOUND": 404, "UNAUTHENTICATED": 401, "INVALID_ARGUMENT": 400, "INTERNAL": 500}
OK, DIE, HANG = "ok", "die", "hang"


class FakeServer(Protocol):
    """A fake of either protocol.

    Attributes:
        script: what becomes of the next calls, one after the other, before all is well again: `OK`; `HANG` (no answer
            until the server ends); `DIE` (the connection breaks, and nobody listens any more); or a code of gRPC.
        calls: what was asked.
        tokens: the `authorization` that came with each call.
        version: the one that is there.
        shape: that the model's signature takes; None is a model without the signature.
    """

    script: deque[str]
    calls: list[str]
    tokens: list[str | None]
    version: int
    shape: list[int] | None
    target: str

    def connect(self, **options: Any) -> Transport: ...


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _step(server: "FakeRest | FakeGrpc", call: str, token: str | None) -> str:
    server.calls.append(call)
    server.tokens.append(token)
    step = server.script.popleft() if server.script else OK
    if step == HANG:
        server.released.wait(30)
    return step


class FakeRest:
    """REST: status codes, bodies and paths as TensorFlow Serving has them."""

    def __init__(self, port: int = 0, *, ssl_context: Any = None) -> None:
        self.script: deque[str] = deque()
        self.calls: list[str] = []
        self.tokens: list[str | None] = []
        self.bodies: list[Any] = []
        self.raw: tuple[int, bytes] | None = None
        self.version = 1
        self.shape: list[int] | None = [-1, SIZE_PX, SIZE_PX, 3]
        self.released = threading.Event()
        self._http = _Http(("127.0.0.1", port), self)
        if ssl_context:
            self._http.socket = ssl_context.wrap_socket(self._http.socket, server_side=True)
        self.target = f"127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    def connect(self, **options: Any) -> Transport:
        from client.classifier_client import RestTransport

        return RestTransport(self.target, "flowers", options=ConnectionOptions(**options))

    def __enter__(self) -> "FakeRest":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.released.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Answer a call that nothing is to befall."""
        if method == "GET":
            signature = {"inputs": {"images": {"dtype": "DT_UINT8", "tensor_shape": {"dim": self._dims()}}}}
            return 200, {
                "model_spec": {"name": "flowers", "signature_name": "", "version": str(self.version)},
                "metadata": {"signature_def": {"signature_def": {} if self.shape is None else {"images": signature}}},
            }
        if path != f"/v1/models/flowers/versions/{self.version}:predict":
            return 404, {"error": "Servable not found for request: Specific(flowers, 9)"}
        self.bodies.append(body)
        num_images = len(body["inputs"])
        outputs = {"probabilities": [PROBABILITIES] * num_images, "classes": [CLASS_NAMES] * num_images}
        return 200, {"outputs": outputs}

    def _dims(self) -> list[dict[str, str]]:
        return [{"size": str(size), "name": ""} for size in self.shape or ()]


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], fake: FakeRest) -> None:
        super().__init__(address, _Handler)
        self.fake = fake

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that gives up is what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http

    def do_GET(self) -> None:
        self._do(None)

    def do_POST(self) -> None:
        self._do(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def log_message(self, *_: Any) -> None:
        pass

    def _do(self, body: Any) -> None:
        fake = self.server.fake
        step = _step(fake, f"{self.command} {self.path}", self.headers["Authorization"])
        if step in (DIE, HANG):
            self.close_connection = True
            if step == DIE:
                self.server.socket.close()
            return
        if fake.raw:
            status, content = fake.raw
        else:
            status, document = (
                fake.answer(self.command, self.path, body)
                if step == OK
                else (STATUS[step], {"error": f"told to be {step}"})
            )
            content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class FakeGrpc:
    """gRPC: the messages are TensorFlow Serving's own."""

    def __init__(self, port: int = 0, *, credentials: Any = None) -> None:
        self.script: deque[str] = deque()
        self.calls: list[str] = []
        self.tokens: list[str | None] = []
        self.requests: list[Any] = []
        self.version = 1
        self.shape: list[int] | None = [-1, SIZE_PX, SIZE_PX, 3]
        self.released = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers([self._handlers()])
        address = f"127.0.0.1:{port}"
        bound = (
            self._server.add_secure_port(address, credentials)
            if credentials
            else self._server.add_insecure_port(address)
        )
        self.target = f"127.0.0.1:{bound}"

    def connect(self, **options: Any) -> Transport:
        from client.classifier_client import GrpcTransport

        return GrpcTransport(self.target, "flowers", options=ConnectionOptions(**options))

    def __enter__(self) -> "FakeGrpc":
        self._server.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.released.set()
        self._server.stop(None).wait()

    def _handlers(self) -> Any:
        from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

        def handler(name: str, answer: Any, request: Any) -> Any:
            def handle(message: Any, context: Any) -> Any:
                step = _step(self, name, dict(context.invocation_metadata()).get("authorization"))
                if step == DIE:
                    self._server.stop(None)
                elif step not in (OK, HANG):
                    context.abort(grpc.StatusCode[step], f"told to be {step}")
                return answer(message)

            return grpc.unary_unary_rpc_method_handler(handle, request.FromString, lambda m: m.SerializeToString())

        methods = {
            "GetModelMetadata": (self._get_metadata, get_model_metadata_pb2.GetModelMetadataRequest),
            "Predict": (self._predict, predict_pb2.PredictRequest),
        }
        return grpc.method_handlers_generic_handler(
            "tensorflow.serving.PredictionService",
            {name: handler(name, answer, request) for name, (answer, request) in methods.items()},
        )

    def _get_metadata(self, request: Any) -> Any:
        from tensorflow_serving.apis import get_model_metadata_pb2

        assert request.metadata_field == ["signature_def"]
        assert request.model_spec.name == "flowers"
        signatures = get_model_metadata_pb2.SignatureDefMap()
        if self.shape is not None:
            info = signatures.signature_def["images"].inputs["images"]
            for size in self.shape:
                info.tensor_shape.dim.add(size=size)
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=request.model_spec)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def _predict(self, request: Any) -> Any:
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        self.requests.append(request)
        num_images = request.inputs["images"].tensor_shape.dim[0].size
        response = predict_pb2.PredictResponse(model_spec=request.model_spec)
        response.model_spec.version.value = self.version
        for name, value in (("probabilities", PROBABILITIES), ("classes", CLASS_NAMES)):
            response.outputs[name].CopyFrom(tf.make_tensor_proto([value] * num_images))
            response.outputs[name].tensor_content = b""
        # TensorFlow Serving writes the typed fields, make_tensor_proto the bytes.
        response.outputs["probabilities"].float_val.extend(PROBABILITIES * num_images)
        return response
