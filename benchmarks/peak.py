"""What share of the machine's measured peak a network reaches: the least time of its multiply-adds over the time taken.

They are counted from a LiteRT file: those of its convolutions and matrix products, by the type of their weights. What a
row does besides, such as decoding photos, is in its time and not in its multiply-adds.
"""

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from benchmarks.machine import count_cores, measure_peaks

MultiplyAdds = dict[str, int]
"""Of one image, by the type of the weights: a name of `measure_peaks`. Empty where there is no network."""

_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_measure_peaks = cache(measure_peaks)


class Layer(NamedTuple):
    """A convolution or a matrix product.

    Attributes:
        position: of its operator.
        name: of the operator, and the shape of its output.
        computes_in: the type of its weights.
        num_macs: multiply-adds.
    """

    position: int
    name: str
    computes_in: str
    num_macs: int

    @property
    def multiply_adds(self) -> MultiplyAdds:
        """Return them by their type."""
        return {self.computes_in: self.num_macs}


def count_multiply_adds(content: bytes) -> MultiplyAdds:
    """Count the multiply-adds of a LiteRT file for one image."""
    found = Counter[str]()
    for layer in find_layers(unpack(content)):
        found[layer.computes_in] += layer.num_macs
    return dict(found)


def read_multiply_adds(file: Path) -> tuple[MultiplyAdds, MultiplyAdds]:
    """Count those of a LiteRT file, and those of the SavedModel it was made from: as many, in float32."""
    found = count_multiply_adds(file.read_bytes())
    return found, {"float32": sum(found.values())}


def least_s(multiply_adds: MultiplyAdds, peaks: dict[str, float]) -> float | None:
    """Return the seconds that an image takes at the peak; none where the peak of a type was not measured."""
    if not multiply_adds or multiply_adds.keys() - peaks.keys():
        return None
    return sum(count / peaks[computes_in] / 1e9 for computes_in, count in multiply_adds.items())


def share_of_peak(multiply_adds: MultiplyAdds, images_per_s: float, *, num_threads: int | None = None) -> float | None:
    """Return the share of the peak that a network reaches.

    Args:
        multiply_adds: of an image.
        images_per_s: that it classifies.
        num_threads: that compute; `None` is as many as there are cores.

    Returns:
        The share; none where there is no network, or the peak was not measured.
    """
    least = least_s(multiply_adds, _measure_peaks(num_threads or count_cores()))
    return None if least is None else least * images_per_s


def describe_shares(*shares: float | None) -> str:
    """Write a row's last column.

    >>> describe_shares(0.361, 0.702)
    'share of peak 0.36, 0.70'
    >>> describe_shares(None, None)
    'share of peak –'
    """
    if all(share is None for share in shares):
        return "share of peak –"
    return "share of peak " + ", ".join("–" if share is None else f"{share:#.2g}" for share in shares)


def unpack(content: bytes) -> Any:
    """Return a file's model, the schema's `ModelT`."""
    return schema.ModelT.InitFromPackedBuf(content, 0)


def find_layers(model: Any) -> list[Layer]:
    """Return the convolutions and matrix products of a model, the schema's `ModelT`."""
    graph = model.subgraphs[0]
    found = []
    for position, operator in enumerate(graph.operators):
        name = name_operator(model, operator)
        if name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        weights, output = graph.tensors[operator.inputs[1]], graph.tensors[operator.outputs[0]].shape
        # Weights: [out, height, width, in], [1, height, width, channels] or [out, in].
        each = np.prod(weights.shape[1:3]) if name == "DEPTHWISE_CONV_2D" else np.prod(weights.shape[1:])
        computes_in = "int8" if weights.type == schema.TensorType.INT8 else "float32"
        shown = f"{name} to {'×'.join(map(str, output[1:]))}"
        found.append(Layer(position, shown, computes_in, int(np.prod(output) * each)))
    return found


def name_operator(model: Any, operator: Any) -> str:
    """Return an operator's name in the schema."""
    return _NAMES[model.operatorCodes[operator.opcodeIndex].builtinCode]
