"""How near LiteRT's kernels come to what one core computes at most, for each kind of file and for each layer of one.

The multiply-adds of a file are counted from its convolutions and matrix products; its time is that of one thread, the
shortest of many calls. A file of float32 or float16 computes in float32; the two with int8 weights in int8. A layer's
time is the difference of two files: one that ends with the layer, and one that ends before it.
"""

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from benchmarks.machine import measure_peaks

NUM_CALLS, NUM_LAYERS = 40, 8
"""Calls of which the shortest counts, and layers that are shown."""
_COMPUTES_IN = {"float32": "float32", "float16": "float32", "dynamic": "int8", "int8": "int8"}
_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


class Layer(NamedTuple):
    """A convolution or a matrix product.

    Attributes:
        position: of its operator.
        name: of the operator, and the shape of its output.
        num_macs: multiply-adds.
    """

    position: int
    name: str
    num_macs: int


def measure(file: Path) -> None:
    """Print each kind's share of the peak, and where the int8 file loses most.

    Args:
        file: the int8 file; those of other kinds stand beside it.
    """
    peaks = measure_peaks()
    for kind, computes_in in _COMPUTES_IN.items():
        path = file.with_name(file.name.replace("int8", kind))
        if path.is_file():
            content = path.read_bytes()
            num_macs = sum(layer.num_macs for layer in find_layers(_unpack(content)))
            _report(f"kernels, {kind}", num_macs, _time(content), peaks.get(computes_in), computes_in)
    if peak := peaks.get("int8"):
        content = file.read_bytes()
        layers = sorted(_time_layers(content), key=lambda timed: timed[0].num_macs / peak / 1e9 - timed[1])
        for layer, taken_s in layers[:NUM_LAYERS]:
            _report(f"kernels, int8, {layer.name}", layer.num_macs, taken_s, peak, "int8")


def find_layers(model: Any) -> list[Layer]:
    """Return the convolutions and matrix products of a model, the schema's `ModelT`."""
    graph = model.subgraphs[0]
    found = []
    for position, operator in enumerate(graph.operators):
        name = _name(model, operator)
        if name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        weights, output = graph.tensors[operator.inputs[1]].shape, graph.tensors[operator.outputs[0]].shape
        # Weights: [out, height, width, in], [1, height, width, channels] or [out, in].
        each = np.prod(weights[1:3]) if name == "DEPTHWISE_CONV_2D" else np.prod(weights[1:])
        found.append(Layer(position, f"{name} to {'×'.join(map(str, output[1:]))}", int(np.prod(output) * each)))
    return found


def _name(model: Any, operator: Any) -> str:
    return _NAMES[model.operatorCodes[operator.opcodeIndex].builtinCode]


def _time_layers(content: bytes) -> Iterator[tuple[Layer, float]]:
    """Yield each layer, and the seconds that it adds to those before it."""
    model = _unpack(content)
    for layer in find_layers(model):
        before_s, with_s = (_time(_cut(model, layer.position + more)) for more in (0, 1))
        yield layer, max(with_s - before_s, 1e-9)


def _cut(model: Any, num_operators: int) -> bytes:
    """Return a file that ends after so many operators, not with a conversion, perhaps of weights; else it is empty."""
    graph = model.subgraphs[0]
    while num_operators and _name(model, graph.operators[num_operators - 1]) == "DEQUANTIZE":
        num_operators -= 1
    if not num_operators:
        return b""
    shorter = copy.copy(model)
    shorter.signatureDefs, shorter.subgraphs = [], [copy.copy(graph)]
    kept = shorter.subgraphs[0].operators = graph.operators[:num_operators]
    used = {index for operator in kept for index in operator.inputs}
    made = [index for operator in kept for index in operator.outputs]
    shorter.subgraphs[0].outputs = [index for index in made if index not in used]
    builder = flatbuffers.Builder(len(model.buffers))
    builder.Finish(shorter.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _unpack(content: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(content, 0)


def _time(content: bytes) -> float:
    """Return the seconds of a call with one thread, the shortest of many."""
    if not content:
        return 0.0
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    pixels = np.random.default_rng(0).integers(0, 256, image["shape"]).astype(image["dtype"])
    interpreter.set_tensor(image["index"], pixels)
    taken_s = []
    for _ in range(NUM_CALLS):
        start_s = time.perf_counter()
        interpreter.invoke()
        taken_s.append(time.perf_counter() - start_s)
    return min(taken_s)


def _report(name: str, num_macs: int, taken_s: float, peak: float | None, computes_in: str) -> None:
    rate = num_macs / taken_s / 1e9
    share = (
        "peak not measured" if peak is None else f"{rate / peak:.2f} of one core's peak in {computes_in}, {peak:.0f}"
    )
    print(f"{name}: {1000 * taken_s:.3g} ms, {rate:.1f}·10^9 multiply-adds a second: {share}", flush=True)
