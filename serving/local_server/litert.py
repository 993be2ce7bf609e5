"""A LiteRT (TFLite) file as a servable: on a CPU the fast way to serve a quantized model."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypedDict

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from tensorflow.core.protobuf import meta_graph_pb2

from serving.local_server.errors import failed_precondition, invalid_argument
from serving.local_server.litert_signatures import read_signatures
from serving.local_server.servable import DEFAULT_SIGNATURE, LITERT, PREDICT, Array


class _Detail(TypedDict):
    """What the interpreter tells of a tensor, as far as it is needed."""

    name: str
    index: int
    shape: NDArray[np.int32]
    shape_signature: NDArray[np.int32]
    dtype: type[np.generic]


Details = dict[str, _Detail]
"""The tensors of a signature, by alias."""


class _Runner:
    """One interpreter, which runs one call at a time, and its signatures: `{name: (inputs, outputs)}`.

    They are those in the file's metadata, else those in its table of signatures, else its tensors by their own names.
    """

    def __init__(self, content: bytes, num_threads: int) -> None:
        self._interpreter = Interpreter(model_content=content, num_threads=num_threads)
        self._interpreter.allocate_tensors()
        described = read_signatures(content)
        self.methods = {name: signature.method_name for name, signature in described.items()}
        self._signed = {
            name: self._interpreter.get_signature_runner(name)
            for name in (() if described else self._interpreter.get_signature_list())
        }
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.signatures: dict[str, tuple[Details, Details]] = {
            name: (_by_alias(each.inputs, inputs, "input"), _by_alias(each.outputs, outputs, "output"))
            for name, each in described.items()
        }
        self.signatures |= {
            name: (runner.get_input_details(), runner.get_output_details()) for name, runner in self._signed.items()
        }
        if not self.signatures:
            self.signatures[DEFAULT_SIGNATURE] = _by_name(inputs), _by_name(outputs)

    def run(self, signature: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the outputs, by alias, in memory of their own."""
        if self._signed:
            return self._signed[signature](**inputs)
        known_inputs, known_outputs = self.signatures[signature]
        for alias, array in inputs.items():
            self._interpreter.resize_tensor_input(known_inputs[alias]["index"], array.shape)
        self._interpreter.allocate_tensors()
        for alias, array in inputs.items():
            self._interpreter.set_tensor(known_inputs[alias]["index"], array)
        self._interpreter.invoke()
        return {alias: self._interpreter.get_tensor(detail["index"]) for alias, detail in known_outputs.items()}


def _by_name(details: list[_Detail]) -> Details:
    return {detail["name"].removesuffix(":0"): detail for detail in details}


def _by_alias(infos: Mapping[str, Any], details: list[_Detail], kind: str) -> Details:
    """Find the tensors that a `SignatureDef` names, with or without TensorFlow's `:0`."""
    known = {**_by_name(details), **{detail["name"]: detail for detail in details}}
    found: Details = {}
    for alias, info in infos.items():
        detail = known.get(info.name) or known.get(info.name.removesuffix(":0"))
        if detail is None:
            raise invalid_argument(f"Signature {kind} {alias} references an unknown tensor: '{info.name}'.")
        found[alias] = detail
    return found


class LiteRTServable:
    """A LiteRT model in one interpreter for each core, and one that uses them all for a row that comes alone.

    The rows of a batch go to the interpreters one by one: on a CPU a row alone is as fast as a row in a batch, and no
    memory has to be laid out anew for each size.
    """

    runtime = LITERT

    def __init__(self, path: Path) -> None:
        num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._wide: SimpleQueue[_Runner] = SimpleQueue()
        self._narrow: SimpleQueue[_Runner] = SimpleQueue()
        try:
            content = path.read_bytes()
            runner = _Runner(content, num_cores)
            self._wide.put(runner)
            for _ in range(num_cores):
                self._narrow.put(_Runner(content, 1))
        except (OSError, ValueError, RuntimeError) as exc:
            raise failed_precondition(f"A version must hold a whole LiteRT model. {path} is not one: {exc}") from exc
        self._pool = ThreadPoolExecutor(num_cores, thread_name_prefix="litert")
        self._details = runner.signatures
        # A tensor's name is its signature's and its alias.
        self._names = {
            f"{signature}/{alias}": (signature, alias)
            for signature, (inputs, outputs) in self._details.items()
            for alias in (*inputs, *outputs)
        }
        self.signatures: Mapping[str, Any] = {
            name: _signature_def(
                name, inputs, outputs, method=runner.methods.get(name, PREDICT), has_rows=self._has_rows(name)
            )
            for name, (inputs, outputs) in self._details.items()
        }

    def shape(self, tensor_name: str) -> tuple[int | None, ...] | None:
        signature, alias = self._names[tensor_name]
        inputs, _ = self._details[signature]
        sizes = [None if size < 0 else size for size in inputs[alias]["shape_signature"].tolist()]
        if all(size in (None, 1) for size in sizes[1:]) and len(sizes) > 1 and self._has_rows(signature):
            return None  # A number a row: TensorFlow Serving's clients send [2.0] where a file says [1, 1].
        return (None, *sizes[1:]) if self._has_rows(signature) else tuple(sizes)

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_s: float = math.inf) -> list[Array]:
        # Nothing stops the interpreter: a run goes on to its end.
        found: dict[str, Array] = {}
        # More than one at once are the tasks of a MultiInference.
        for signature in dict.fromkeys(self._names[name][0] for name in fetches):
            inputs = {self._names[name][1]: a for name, a in feeds.items() if self._names[name][0] == signature}
            wanted = [name for name in fetches if self._names[name][0] == signature]
            arrays = self._run_signature(signature, inputs, [self._names[name][1] for name in wanted])
            found |= zip(wanted, arrays, strict=True)
        return [found[name] for name in fetches]

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        self._wide, self._narrow = SimpleQueue(), SimpleQueue()

    def _run_signature(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        sizes = {len(array) if array.ndim else 0 for array in inputs.values()}
        num_rows = sizes.pop() if len(sizes) == 1 else 0
        if num_rows < 2 or not self._has_rows(signature):
            with _taken(self._narrow if self._wide.empty() else self._wide) as runner:
                return _run(runner, signature, inputs, outputs)

        def run_row(i: int) -> list[Array]:
            with _taken(self._narrow) as runner:
                return _run(runner, signature, {name: a[i : i + 1] for name, a in inputs.items()}, outputs)

        rows = self._pool.map(run_row, range(num_rows))
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    def _has_rows(self, signature: str) -> bool:
        """Return whether rows can be run one by one: all tensors begin with an axis of one, or of any size."""
        inputs, outputs = self._details[signature]
        return all(d["shape"].size and d["shape"][0] == 1 for d in [*inputs.values(), *outputs.values()])


@contextmanager
def _taken(runners: "SimpleQueue[_Runner]") -> Iterator[_Runner]:
    runner = runners.get()
    try:
        yield runner
    finally:
        runners.put(runner)


def _run(runner: _Runner, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
    # Of a single string the interpreter takes the array's memory, which must be the string and not a pointer to it.
    inputs = {k: np.asarray(a.item()) if a.dtype.hasobject and not a.ndim else a for k, a in inputs.items()}
    try:
        found = runner.run(signature, inputs)
    except (ValueError, RuntimeError, TypeError) as exc:
        raise invalid_argument(f"the LiteRT model refuses its input: {exc}") from exc
    return [np.asarray(found[alias]) for alias in outputs]


def _signature_def(name: str, inputs: Details, outputs: Details, *, method: str, has_rows: bool) -> Any:
    """Describe a signature as a SavedModel would."""
    signature = meta_graph_pb2.SignatureDef(method_name=method)
    for infos, details in ((signature.inputs, inputs), (signature.outputs, outputs)):
        for alias, detail in details.items():
            info = infos[alias]
            info.name = f"{name}/{alias}"
            info.dtype = tf.dtypes.as_dtype(detail["dtype"]).as_datatype_enum
            info.tensor_shape.SetInParent()
            for axis, size in enumerate(detail["shape_signature"].tolist()):
                info.tensor_shape.dim.add().size = -1 if has_rows and axis == 0 else size
    return signature
