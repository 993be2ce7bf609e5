"""What every loaded model offers, whatever its format: its signatures, and running named tensors through it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]

PREDICT = "tensorflow/serving/predict"
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
DEFAULT_SIGNATURE = "serving_default"

LITERT = "TFLite"
"""`Servable.runtime` of a LiteRT model."""


def show_shape(array: Array) -> str:
    """Write an array's shape as TensorFlow does, such as `[2,3]`."""
    return f"[{','.join(map(str, array.shape))}]"


class Servable(Protocol):
    """A model in memory. `run` may be called from several threads at once."""

    runtime: str
    """What computes: a label of TensorFlow Serving's metrics."""

    signatures: Mapping[str, Any]
    """`SignatureDef` by name."""

    def shape(self, tensor_name: str) -> tuple[int | None, ...] | None:
        """Return the shape that an input must have; `None` for an axis, or for all of it, that may be of any size.

        It is checked before the model runs. A model that refuses by itself what it cannot use leaves it open.
        """

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_s: float = ...) -> list[Array]:
        """Compute the tensors `fetches` from the tensors `feeds`, both by name.

        Args:
            feeds: inputs by tensor name.
            fetches: names of the outputs.
            timeout_s: after which the model ends its work, as soon as its runtime can; without one it is not ended.

        Raises:
            StatusError: the model refuses its input, or DEADLINE_EXCEEDED.
        """

    def close(self) -> None:
        """Free the model's memory."""


@dataclass(frozen=True)
class LoadOptions:
    """How models are loaded.

    Attributes:
        tags: of the SavedModel's graph to serve.
        prefer_litert: serve `model.tflite` where a version holds one.
        session_config: a serialized `ConfigProto`, for SavedModels.
    """

    tags: tuple[str, ...] = ("serve",)
    prefer_litert: bool = False
    session_config: bytes = b""
