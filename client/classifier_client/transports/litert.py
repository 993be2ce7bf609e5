"""A LiteRT (TFLite) file, run in this process. Its metadata describes its input and its output."""

import os
import reprlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from PIL import Image

from ..errors import ModelFileError
from . import Answer, Closable
from .answers import LIMITS, MAX_SIZE_PX, are_limits, are_probabilities
from .litert_metadata import SPEC, read_metadata

if TYPE_CHECKING:
    from ..signing import VerifyKey

# What the interpreter raises for a model that it cannot run: it has no errors of its own.
_UNFIT = (ValueError, RuntimeError, TypeError, LookupError, OverflowError, MemoryError)


class _Tensor(TypedDict):
    """The interpreter's details of a tensor."""

    name: str
    index: int
    shape: NDArray[np.int32]
    dtype: type[np.generic]
    quantization: tuple[float, int]


class LiteRTTransport(Closable):
    """A model in a file, without a server.

    Args:
        file: a `.tflite` file with metadata: labels, and for a float model the normalization of its input.
        num_threads: how many one image may take; `None` is as many as there are cores.
        verify_key: what the file's folder must be signed with, from `signing.read_verify_key`; `None` trusts the file.
            The folder must have all the files that were signed and no other; of their contents those count that are
            used, the file's own and that of `model_spec.json`.

    Raises:
        ModelFileError: there is no such file, it has no metadata, or is no image classifier.
        SignatureError: it is not as it was signed; this is a `ModelFileError` too.
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        *,
        num_threads: int | None = None,
        verify_key: "VerifyKey | None" = None,
    ) -> None:
        path = Path(file)
        signed = _read_signed(path, verify_key) if verify_key else None
        self._metadata = read_metadata(path, signed)
        self._mean = np.array(self._metadata.mean, np.float32)
        self._std = np.array(self._metadata.std, np.float32)
        self._path = path
        try:
            model = {"model_content": signed[path.name]} if signed else {"model_path": str(path)}
            self._interpreter = Interpreter(**model, num_threads=num_threads or _count_cores())
            self._interpreter.allocate_tensors()
            tensors = self._interpreter.get_input_details(), self._interpreter.get_output_details()
            # What a model says of its limits is no output: others would not read the file.
            limits = [tensor for tensor in self._interpreter.get_tensor_details() if tensor["name"] in LIMITS]
        except _UNFIT as exc:
            raise self._error(exc) from exc
        self._lock = threading.Lock()
        self._input, self._output = _check_tensors(*tensors, path)
        if self._input["dtype"] is np.float32 and not (self._mean.size and self._std.size):
            raise ModelFileError(
                f"A LiteRT file with a float input must say how it is normalized. {path} does not. "
                "Export the model with this project, or add the metadata."
            )
        num_classes = int(self._output["shape"][1])
        if num_classes != len(self._metadata.class_names):
            raise ModelFileError(
                "The labels in a LiteRT file must match its output. Received: "
                f"{len(self._metadata.class_names)} labels for {num_classes} values in {path}. Export the model again."
            )
        self._limits = _check_limits(limits, num_classes, path)

    def image_size_px(self) -> int:
        """Return the side of the model's input."""
        self.check_open()
        return int(self._input["shape"][1])

    def predict(self, images: Sequence[Image.Image]) -> list[Answer]:
        """Classify RGB images of the model's size, one after the other; see `Transport`."""
        return [self._predict(image) for image in images]

    def close(self) -> None:
        """Release the model, after the image that it runs."""
        with self._lock:
            super().close()
            self.__dict__.pop("_interpreter", None)

    def _predict(self, image: Image.Image) -> Answer:
        start_s = time.perf_counter()
        pixels = np.asarray(image)[np.newaxis]
        if self._input["dtype"] is np.float32:
            pixels = (pixels - self._mean) / self._std
        with self._lock:  # An interpreter runs one image at a time.
            self.check_open()
            try:
                probabilities, limits = self._run(pixels)
            except _UNFIT as exc:
                raise self._error(exc) from exc
        if len(probabilities) != len(self._metadata.class_names) or not are_probabilities(probabilities):
            raise ModelFileError(
                "A classifier's LiteRT file must return a probability of 0 to 1 for each class. "
                f"Received: {reprlib.repr(probabilities)} of {self._path}. Export the model again."
            )
        latency_ms = (time.perf_counter() - start_s) * 1000
        answer = Answer(self._metadata.class_names, probabilities, self._metadata.model_version, latency_ms, *limits)
        if not are_limits(answer):
            raise ModelFileError(
                "A LiteRT file that knows its limits must return a p-value of 0 to 1, and a set of its classes that "
                f"holds the most probable one. Received: {reprlib.repr(limits)} of {self._path}. Export it again."
            )
        return answer

    def _run(self, pixels: NDArray[Any]) -> tuple[list[float], tuple[Any, ...]]:
        """Return the probabilities, and the values of `LIMITS` where the model has them."""
        self._interpreter.set_tensor(self._input["index"], pixels)
        self._interpreter.invoke()
        values = self._interpreter.get_tensor(self._output["index"])[0]
        limits = [self._interpreter.get_tensor(tensor["index"])[0].tolist() for tensor in self._limits]
        return _dequantize(values, self._output).tolist(), tuple(limits)

    def _error(self, exc: Exception) -> ModelFileError:
        reason = " ".join(str(exc).split())
        return ModelFileError(
            f"{self._path} must be a LiteRT model that runs here. LiteRT says: {reason} Export the model again."
        )


def _read_signed(path: Path, verify_key: "VerifyKey") -> dict[str, bytes]:
    """Return the contents of a file and the spec beside it, by their names, as they were signed."""
    from ..signing import SignedFolder

    folder = SignedFolder(path.parent, verify_key)
    return {name: folder.read(name) for name in (path.name, SPEC) if name == path.name or name in folder}


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_tensors(inputs: list[_Tensor], outputs: list[_Tensor], path: Path) -> tuple[_Tensor, _Tensor]:
    """Return the details of the one input and the one output of an image classifier."""
    shapes = [tensor["shape"].tolist() for tensor in (*inputs, *outputs)]
    types = [tensor["dtype"].__name__ for tensor in (*inputs, *outputs)]
    if (
        len(inputs) != 1
        or len(outputs) != 1
        or len(shapes[0]) != 4
        or shapes[0][0] != 1
        or shapes[0][1] != shapes[0][2]
        or not 2 <= shapes[0][1] <= MAX_SIZE_PX  # A size that is left open appears as 1.
        or shapes[0][3] != 3
        or types[0] not in ("float32", "uint8")
        or len(shapes[1]) != 2
        or types[1] not in ("float32", "uint8", "int8")
    ):
        received = ", ".join(f"{kind} {shape}" for kind, shape in zip(types, shapes, strict=True))
        raise ModelFileError(
            "A classifier's LiteRT file must take one square RGB image, float32 or uint8 [1, size, size, 3] of 2 to "
            f"{MAX_SIZE_PX} pixels a side, and return [1, classes]. Received: {received} in {path}. "
            "Choose another file."
        )
    return inputs[0], outputs[0]


def _check_limits(tensors: list[_Tensor], num_classes: int, path: Path) -> list[_Tensor]:
    """Return the details of the tensors of `LIMITS` in their order, all or none."""
    expected = {"p_value": "float32 [1]", "is_known": "bool [1]", "prediction_set": f"bool [1, {num_classes}]"}
    tensors = sorted(tensors, key=lambda tensor: LIMITS.index(tensor["name"]))
    received = {each["name"]: f"{each['dtype'].__name__.strip('_')} {each['shape'].tolist()}" for each in tensors}
    if tensors and (received != expected or len(tensors) != len(LIMITS)):
        raise ModelFileError(
            f"A LiteRT file that knows its limits must have the tensors {expected}. Received: {received} in {path}. "
            "Export it again."
        )
    return tensors


def _dequantize(values: NDArray[Any], tensor: _Tensor) -> NDArray[np.float32]:
    if values.dtype == np.float32:
        return values
    scale, zero_point = tensor["quantization"]
    with np.errstate(over="ignore", invalid="ignore"):  # What is no probability then is refused.
        return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
