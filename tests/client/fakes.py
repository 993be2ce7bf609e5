"""Servers that speak TensorFlow Serving's protocols on real sockets, and fail as a test scripts it."""

import json
import socket
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from PIL import Image

from client.classifier_client import Client, ConnectionOptions, GrpcTransport, RestTransport, Transport

CLASS_NAMES = ("daisy", "tulip")
PROBABILITIES = (0.25, 0.75)
LIMITS = {"p_value": 0.5, "is_known": True, "prediction_set": (False, True)}
REFUSED = {"p_value": 1 / 128, "is_known": False, "prediction_set": (True, True)}
SIZE_PX = 32
PHOTO = Image.new("RGB", (40, 30), "yellow")

STATUS = {"UNAVAILABLE": 503, "NOT_FOUND": 404, "UNAUTHENTICATED": 401, "INVALID_ARGUMENT": 400, "INTERNAL": 500}
OK, DIE, HANG = "ok", "die", "hang"


class FakeServer:
    """What both fakes have.

    Attributes:
        script: the outcome of the next calls, in order, before all is well again: `OK`; `HANG` (no response until the
            server ends); `DIE` (the connection breaks, and nobody listens any more); or a code of gRPC.
        calls: the calls received.
        tokens: the `authorization` of each call.
        requests: the bodies or messages of predictions.
        version: the one that is there.
        shape: of the input of the model's signature; None is a model without the signature.
        limits: each image's further outputs, such as `LIMITS`; none is a model that does not know its limits.
    """

    protocol: str
    target: str

    def __init__(self) -> None:
        self.script: deque[str] = deque()
        self.calls: list[str] = []
        self.tokens: list[str | None] = []
        self.requests: list[Any] = []
        self.version = 1
        self.shape: list[int] | None = [-1, SIZE_PX, SIZE_PX, 3]
        self.limits: dict[str, Any] = {}
        self.released = threading.Event()

    def connect(self, **options: Any) -> Transport:
        return open_transport(self.protocol, self.target, **options)

    def next_step(self, call: str, token: str | None) -> str:
        self.calls.append(call)
        self.tokens.append(token)
        step = self.script.popleft() if self.script else OK
        if step == HANG:
            self.released.wait(30)
        return step


def open_transport(protocol: str, target: str, **options: Any) -> Transport:
    transport = {"REST": RestTransport, "gRPC": GrpcTransport}[protocol]
    return transport(target, "flowers", options=ConnectionOptions(**{"timeout_s": 5, **options}))


def classify(transport: Transport, images: Any = PHOTO, **options: Any) -> list[Any]:
    with Client(transport, **options) as client:
        return list(client.classify(images))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class FakeRest(FakeServer):
    """REST: status codes, bodies and paths as TensorFlow Serving has them."""

    protocol = "REST"

    def __init__(self, port: int = 0, *, ssl_context: Any = None) -> None:
        super().__init__()
        self.raw: tuple[int, bytes] | None = None
        self._http = _Http(("127.0.0.1", port), self)
        if ssl_context:
            self._http.socket = ssl_context.wrap_socket(self._http.socket, server_side=True)
        self.target = f"127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> "FakeRest":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.released.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def respond(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Return the status and the document for a call that does not fail."""
        if method == "GET":
            signature = {"inputs": {"images": {"dtype": "DT_UINT8", "tensor_shape": {"dim": self._dims()}}}}
            return 200, {
                "model_spec": {"name": "flowers", "signature_name": "", "version": str(self.version)},
                "metadata": {"signature_def": {"signature_def": {} if self.shape is None else {"images": signature}}},
            }
        if path != f"/v1/models/flowers/versions/{self.version}:predict":
            return 404, {"error": "Servable not found for request: Specific(flowers, 9)"}
        self.requests.append(body)
        num_images = len(body["inputs"])
        outputs = {"probabilities": [PROBABILITIES] * num_images, "classes": [CLASS_NAMES] * num_images}
        return 200, {"outputs": outputs | {name: [value] * num_images for name, value in self.limits.items()}}

    def _dims(self) -> list[dict[str, str]]:
        return [{"size": str(size), "name": ""} for size in self.shape or ()]


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], fake: FakeRest) -> None:
        super().__init__(address, _Handler)
        self.fake = fake

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: a client that gives up is what is tested."""


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
        step = fake.next_step(f"{self.command} {self.path}", self.headers["Authorization"])
        if step in (DIE, HANG):
            self.close_connection = True
            if step == DIE:
                self.server.socket.close()
            return
        if fake.raw:
            status, content = fake.raw
        else:
            status, document = (
                fake.respond(self.command, self.path, body)
                if step == OK
                else (STATUS[step], {"error": f"scripted {step}"})
            )
            content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class FakeGrpc(FakeServer):
    """gRPC: the messages are TensorFlow Serving's own.

    Attributes:
        as_content: tensors are sent as bytes, as with `--enable_serialization_as_tensor_content`.
    """

    protocol = "gRPC"

    def __init__(self, port: int = 0, *, credentials: Any = None) -> None:
        super().__init__()
        self.as_content = False
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers([self._handlers()])
        address = f"127.0.0.1:{port}"
        bound = (
            self._server.add_secure_port(address, credentials)
            if credentials
            else self._server.add_insecure_port(address)
        )
        self.target = f"127.0.0.1:{bound}"

    def __enter__(self) -> "FakeGrpc":
        self._server.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.released.set()
        self._server.stop(None).wait()

    def _handlers(self) -> Any:
        from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

        def handler(name: str, respond: Any, request: Any) -> Any:
            def handle(message: Any, context: Any) -> Any:
                step = self.next_step(name, dict(context.invocation_metadata()).get("authorization"))
                if step == DIE:
                    self._server.stop(None)
                elif step not in (OK, HANG):
                    context.abort(grpc.StatusCode[step], f"scripted {step}")
                return respond(message)

            return grpc.unary_unary_rpc_method_handler(handle, request.FromString, lambda m: m.SerializeToString())

        methods = {
            "GetModelMetadata": (self._get_metadata, get_model_metadata_pb2.GetModelMetadataRequest),
            "Predict": (self._predict, predict_pb2.PredictRequest),
        }
        return grpc.method_handlers_generic_handler(
            "tensorflow.serving.PredictionService",
            {name: handler(name, respond, request) for name, (respond, request) in methods.items()},
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
        for name, value in {"probabilities": PROBABILITIES, "classes": CLASS_NAMES, **self.limits}.items():
            tensor = response.outputs[name]
            tensor.CopyFrom(tf.make_tensor_proto([value] * num_images))
            # TensorFlow Serving writes the typed fields, make_tensor_proto the bytes.
            if tensor.tensor_content and not self.as_content:
                values = tf.make_ndarray(tensor).ravel().tolist()
                tensor.tensor_content = b""
                getattr(tensor, "bool_val" if tensor.dtype == tf.bool else "float_val").extend(values)
        return response
