"""TensorFlow Serving over gRPC: pixels in, as bytes. Needs no TensorFlow: the messages are this package's own."""

import math
import reprlib
import struct
import time
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from PIL import Image

from ..errors import AnswerError, RefusedError
from . import Answer, Closable, prediction_pb2
from .answers import LIMITS, MAX_RESPONSE_BYTES, SIGNATURE, check_image_size, to_answers
from .connection import ConnectionOptions, check_target, is_this_machine, retry
from .failures import to_error

_SERVICE = "/tensorflow.serving.PredictionService/"
_SIGNATURE_DEF = "signature_def"
_UNIX = "unix:"
# The dtype and the rank of each output.
_OUTPUTS = {
    "probabilities": (prediction_pb2.DT_FLOAT, 2),
    "classes": (prediction_pb2.DT_STRING, 2),
    "p_value": (prediction_pb2.DT_FLOAT, 1),
    "is_known": (prediction_pb2.DT_BOOL, 1),
    "prediction_set": (prediction_pb2.DT_BOOL, 2),
}
# How a value is written in `tensor_content`, as `struct` has it: a truth value is a byte.
_FORMATS = {prediction_pb2.DT_FLOAT: "f", prediction_pb2.DT_BOOL: "?"}
_SETTINGS = [
    # gRPC's own waits, a second that grows to two minutes, would outlast our retries and a server's restart.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
]


class GrpcTransport(Closable):
    """A model behind TensorFlow Serving's gRPC API.

    Args:
        target: `host:port`, or `unix:` and the path of a socket.
        model: its name.
        options: how the server is called.

    Raises:
        ValueError: the target is neither.
    """

    def __init__(
        self, target: str = "localhost:8500", model: str = "flowers", *, options: ConnectionOptions | None = None
    ) -> None:
        self._is_here = target.startswith(_UNIX) or is_this_machine(check_target(target))
        self._target = target
        self._model = model
        self._options = options or ConnectionOptions()
        self._image_size_px: int | None = None
        self._channel = self._open_channel()
        # Responses come as bytes, since the library would log a traceback of those that it cannot parse.
        self._predict: Any = self._channel.unary_unary(f"{_SERVICE}Predict")
        self._get_metadata: Any = self._channel.unary_unary(f"{_SERVICE}GetModelMetadata")

    def image_size_px(self) -> int:
        """Return the side of the images that the model takes; the server is queried once."""
        self.check_open()
        if self._image_size_px is None:
            request = prediction_pb2.ModelMetadataRequest(
                model_spec=prediction_pb2.ModelSpec(name=self._model), metadata_field=[_SIGNATURE_DEF]
            )
            response = self._call(self._get_metadata, request, prediction_pb2.ModelMetadataResponse)
            signatures = _parse(prediction_pb2.Signatures, response.metadata[_SIGNATURE_DEF].value)
            shape = signatures.signature_def[SIGNATURE].inputs[SIGNATURE].tensor_shape
            self._image_size_px = check_image_size([dim.size for dim in shape.dim], model=self._model)
        return self._image_size_px

    def predict(self, images: Sequence[Image.Image]) -> list[Answer]:
        """Classify RGB images of the model's size; see `Transport`."""
        self.check_open()
        size_px = images[0].width
        pixels = prediction_pb2.Tensor(
            dtype=prediction_pb2.DT_UINT8,
            tensor_shape=_shape(len(images), size_px, size_px, 3),
            tensor_content=b"".join(image.tobytes() for image in images),
        )
        request = prediction_pb2.PredictRequest(
            model_spec=prediction_pb2.ModelSpec(name=self._model, signature_name=SIGNATURE), inputs={SIGNATURE: pixels}
        )
        start_s = time.perf_counter()
        try:
            response = self._call(self._predict, request, prediction_pb2.PredictResponse)
        except RefusedError:
            # Perhaps there is a new version, for images of another size: the next call queries it.
            self._image_size_px = None
            raise
        names = [name for name in _OUTPUTS if name not in LIMITS or name in response.outputs]
        return to_answers(
            {name: _read(name, response.outputs[name]) for name in names},
            num_images=len(images),
            model_version=str(response.model_spec.version.value),
            start_s=start_s,
        )

    def close(self) -> None:
        """Close the connection."""
        super().close()
        self._channel.close()

    def _open_channel(self) -> grpc.Channel:
        arguments = [*_SETTINGS, ("grpc.enable_http_proxy", int(not self._is_here))]
        if not self._options.tls:
            return grpc.insecure_channel(self._target, arguments)
        roots = self._options.ca_file.read_bytes() if self._options.ca_file else None
        return grpc.secure_channel(self._target, grpc.ssl_channel_credentials(roots), arguments)

    def _call(self, method: Any, request: Any, response: Any) -> Any:
        token = self._options.token
        metadata = [("authorization", f"Bearer {token}")] if token else []

        def call() -> Any:
            try:
                content = method(request.SerializeToString(), timeout=self._options.timeout_s, metadata=metadata)
            except grpc.RpcError as exc:
                raise to_error(
                    exc.code().name,
                    exc.details() or "",
                    target=self._target,
                    model=self._model,
                    timeout_s=self._options.timeout_s,
                ) from exc
            return _parse(response, content)

        return retry(call, self._options.num_retries)


def _shape(*sizes: int) -> prediction_pb2.TensorShape:
    return prediction_pb2.TensorShape(dim=[prediction_pb2.TensorShape.Dim(size=size) for size in sizes])


def _parse(message: Any, content: bytes) -> Any:
    try:
        return message.FromString(content)
    except DecodeError as exc:
        raise AnswerError(
            f"A server must send messages of TensorFlow Serving. Received: {content[:20]!r}. "
            "Check which server is there."
        ) from exc


def _read(name: str, tensor: prediction_pb2.Tensor) -> list[Any]:
    """Return the values of an output, `[N]` or `[N, C]`, from its typed field or its bytes.

    Raises:
        AnswerError: it has another dtype or rank, not as many values, or a text that is not UTF-8.
    """
    dtype, rank = _OUTPUTS[name]
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    values = _read_values(tensor)
    if tensor.dtype != dtype or len(shape) != rank or min(shape) < 1 or math.prod(shape) != len(values):
        raise AnswerError(
            f"A server must return {name} as {prediction_pb2.DataType.Name(dtype)} "
            f"{'[N, classes]' if rank == 2 else '[N]'}. Received: {len(values)} values of dtype {tensor.dtype} for "
            f"{reprlib.repr(shape)}. Check which model is there."
        )
    try:
        values = [value.decode() for value in values] if dtype == prediction_pb2.DT_STRING else list(values)
    except UnicodeDecodeError as exc:
        raise AnswerError(f"A class name must be UTF-8 ({exc}). Export the model again.") from exc
    return values if rank == 1 else [values[i : i + shape[1]] for i in range(0, len(values), shape[1])]


def _read_values(tensor: prediction_pb2.Tensor) -> Sequence[Any]:
    if tensor.tensor_content and tensor.dtype in _FORMATS:
        form = _FORMATS[tensor.dtype]
        count, rest = divmod(len(tensor.tensor_content), struct.calcsize(f"<{form}"))
        return () if rest else struct.unpack(f"<{count}{form}", tensor.tensor_content)
    if tensor.dtype == prediction_pb2.DT_FLOAT:
        return tensor.float_val
    return tensor.bool_val if tensor.dtype == prediction_pb2.DT_BOOL else tensor.string_val
