"""TensorFlow Serving over gRPC: pixels in, as bytes. Needs no TensorFlow: the messages are this package's own."""

import time
from collections.abc import Sequence
from typing import Any

import grpc
from PIL import Image

from ..errors import RefusedError
from . import Answer, prediction_pb2
from .connection import (
    SIGNATURE,
    ConnectionOptions,
    check_image_size,
    check_target,
    is_this_machine,
    retry,
    to_answers,
)
from .failures import to_error

_SERVICE = "/tensorflow.serving.PredictionService/"
_SIGNATURE_DEF = "signature_def"
_UNIX = "unix:"
# gRPC's own waits, a second that grows to two minutes, would outlast our retries and a server's restart.
_RECONNECT = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 1000)]


class GrpcTransport:
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
        self._predict = self._method("Predict", prediction_pb2.PredictRequest, prediction_pb2.PredictResponse)
        self._get_metadata = self._method(
            "GetModelMetadata", prediction_pb2.ModelMetadataRequest, prediction_pb2.ModelMetadataResponse
        )

    def image_size_px(self) -> int:
        """Return the side of the images that the model takes; the server is queried once."""
        if self._image_size_px is None:
            request = prediction_pb2.ModelMetadataRequest(
                model_spec=prediction_pb2.ModelSpec(name=self._model), metadata_field=[_SIGNATURE_DEF]
            )
            response = self._call(self._get_metadata, request)
            signatures = prediction_pb2.Signatures.FromString(response.metadata[_SIGNATURE_DEF].value)
            shape = signatures.signature_def[SIGNATURE].inputs[SIGNATURE].tensor_shape
            self._image_size_px = check_image_size([dim.size for dim in shape.dim], model=self._model)
        return self._image_size_px

    def predict(self, images: Sequence[Image.Image]) -> list[Answer]:
        """Classify RGB images of the model's size; see `Transport`."""
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
            response = self._call(self._predict, request)
        except RefusedError:
            # Perhaps there is a new version, for images of another size: the next call queries it.
            self._image_size_px = None
            raise
        rows, names = response.outputs["probabilities"], response.outputs["classes"]
        num_classes = max(len(rows.float_val) // len(images), 1)
        return to_answers(
            _split(rows.float_val, num_classes),
            _split([name.decode() for name in names.string_val], num_classes),
            num_images=len(images),
            model_version=str(response.model_spec.version.value),
            start_s=start_s,
        )

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _open_channel(self) -> grpc.Channel:
        arguments = [*_RECONNECT, ("grpc.enable_http_proxy", int(not self._is_here))]
        if not self._options.tls:
            return grpc.insecure_channel(self._target, arguments)
        roots = self._options.ca_file.read_bytes() if self._options.ca_file else None
        return grpc.secure_channel(self._target, grpc.ssl_channel_credentials(roots), arguments)

    def _method(self, name: str, request: Any, response: Any) -> Any:
        return self._channel.unary_unary(
            _SERVICE + name, request_serializer=request.SerializeToString, response_deserializer=response.FromString
        )

    def _call(self, method: Any, request: Any) -> Any:
        token = self._options.token
        metadata = [("authorization", f"Bearer {token}")] if token else []

        def call() -> Any:
            try:
                return method(request, timeout=self._options.timeout_s, metadata=metadata)
            except grpc.RpcError as exc:
                raise to_error(
                    exc.code().name,
                    exc.details() or "",
                    target=self._target,
                    model=self._model,
                    timeout_s=self._options.timeout_s,
                ) from exc

        return retry(call, self._options.num_retries)


def _shape(*sizes: int) -> prediction_pb2.TensorShape:
    return prediction_pb2.TensorShape(dim=[prediction_pb2.TensorShape.Dim(size=size) for size in sizes])


def _split(values: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Split values into rows of a size."""
    return [values[i : i + size] for i in range(0, len(values), size)]
