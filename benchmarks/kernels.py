"""How near LiteRT's kernels come to what one core computes at most, for each kind of file and for each layer of one.

A time is that of one thread, the shortest of many calls. A layer's time is the difference of two files: one that ends
with the layer, and one that ends before it.
"""

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from benchmarks.machine import measure_peaks
from benchmarks.peak import Layer, MultiplyAdds, count_multiply_adds, find_layers, least_s, name_operator, unpack

NUM_CALLS, NUM_LAYERS = 40, 8
"""Calls of which the shortest counts, and layers that are shown."""
KINDS = ("float32", "float16", "dynamic", "int8")


def measure(file: Path) -> None:
    """Print each kind's share of the peak, and where the int8 file loses most.

    Args:
        file: the int8 file; those of other kinds stand beside it.
    """
    peaks = measure_peaks()
    for kind in KINDS:
        path = file.with_name(file.name.replace("int8", kind))
        if path.is_file():
            content = path.read_bytes()
            _report(f"kernels, {kind}", count_multiply_adds(content), _time(content), peaks)
    if "int8" in peaks:
        layers = list(_time_layers(file.read_bytes()))
        layers.sort(key=lambda timed: _lost_s(timed[0], timed[1], peaks), reverse=True)
        for layer, taken_s in layers[:NUM_LAYERS]:
            _report(f"kernels, int8, {layer.name}", layer.multiply_adds, taken_s, peaks)


def _lost_s(layer: Layer, taken_s: float, peaks: dict[str, float]) -> float:
    return taken_s - (least_s(layer.multiply_adds, peaks) or 0)


def _time_layers(content: bytes) -> Iterator[tuple[Layer, float]]:
    """Yield each layer, and the seconds that it adds to those before it."""
    model = unpack(content)
    for layer in find_layers(model):
        before_s, with_s = (_time(_cut(model, layer.position + more)) for more in (0, 1))
        yield layer, max(with_s - before_s, 1e-9)


def _cut(model: Any, num_operators: int) -> bytes:
    """Return a file that ends after so many operators, not with a conversion, perhaps of weights; else it is empty."""
    graph = model.subgraphs[0]
    while num_operators and name_operator(model, graph.operators[num_operators - 1]) == "DEQUANTIZE":
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


def _report(name: str, multiply_adds: MultiplyAdds, taken_s: float, peaks: dict[str, float]) -> None:
    least = least_s(multiply_adds, peaks)
    rate = sum(multiply_adds.values()) / taken_s / 1e9
    share = "peak not measured" if least is None else f"{least / taken_s:.2f} of one core's peak"
    print(f"{name}: {1000 * taken_s:.3g} ms, {rate:.1f}·10^9 multiply-adds a second: {share}", flush=True)
