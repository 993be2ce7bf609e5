"""A loaded model, whatever its format: signatures, and a way to run named tensors through it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from serving.local_server.errors import failed_precondition, not_found

Array = NDArray[Any]

PREDICT = "tensorflow/serving/predict"
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
DEFAULT_SIGNATURE = "serving_default"

SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
LITERT_MODEL = "model.tflite"
LITERT = "TFLite"


class Servable(Protocol):
    """A model in memory. `run` may be called from several threads at once."""

    runtime: str
    """What computes: a label of TensorFlow Serving's metrics."""

    signatures: Mapping[str, Any]
    """`SignatureDef` by name."""

    def shape(self, tensor_name: str) -> tuple[int | None, ...] | None:
        """Give the shape that an input must have; `None` where the model does not say, as an axis and as a whole."""

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str]) -> list[Array]:
        """Compute the tensors `fetches` from the tensors `feeds`, both by name.

        Raises:
            StatusError: the model refuses its input.
        """

    def close(self) -> None:
        """Let go of the model's memory."""


@dataclass(frozen=True)
class LoadOptions:
    """How models are loaded.

    Attributes:
        tags: of the SavedModel's graph to serve.
        prefer_litert: serve `model.tflite` where a version holds one.
        num_intra_op_threads: threads inside one operation; 0 lets TensorFlow choose.
        num_inter_op_threads: operations at once; 0 lets TensorFlow choose.
    """

    tags: tuple[str, ...] = ("serve",)
    prefer_litert: bool = False
    num_intra_op_threads: int = 0
    num_inter_op_threads: int = 0


def load(version_dir: Path, options: LoadOptions) -> Servable:
    """Load the model in a version folder.

    Raises:
        StatusError: there is no model, or it is not a valid one.
    """
    if options.prefer_litert and (version_dir / LITERT_MODEL).is_file():
        from serving.local_server.litert import LiteRTServable

        return LiteRTServable(version_dir / LITERT_MODEL)
    if not any((version_dir / name).is_file() for name in SAVED_MODEL):
        hint = "; start with --prefer_tflite_model to serve its model.tflite" if _has_litert(version_dir) else ""
        raise not_found(
            f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {version_dir}{hint}"
        )
    from serving.local_server.saved_model import SavedModelServable

    servable = SavedModelServable(version_dir, options)
    if all(name.startswith("__") for name in servable.signatures):
        servable.close()
        raise failed_precondition(f"A model is served by its signatures. {version_dir} has none: export it with some.")
    return servable


def _has_litert(version_dir: Path) -> bool:
    return (version_dir / LITERT_MODEL).is_file()
