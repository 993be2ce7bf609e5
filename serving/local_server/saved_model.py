"""A SavedModel, TF1-style ones included, run as TensorFlow Serving runs it: through a session."""

import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from serving.local_server.errors import failed_precondition, from_tensorflow, invalid_argument
from serving.local_server.servable import LoadOptions
from serving.local_server.tensors import Array

tf.get_logger().setLevel("ERROR")  # The loader below calls itself deprecated; nothing else reads every SavedModel.


class SavedModelServable:
    """A SavedModel in a session of its own.

    `tf.saved_model.load` refuses some TF1-style models and cannot be fed an inner tensor (`tf_example["x"]`), which
    TensorFlow Serving allows; a session does both.
    """

    def __init__(self, path: Path, options: LoadOptions) -> None:
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=options.num_intra_op_threads,
            inter_op_parallelism_threads=options.num_inter_op_threads,
        )
        self._graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self._graph, config=config)
        self._callables: dict[tuple[tuple[str, ...], tuple[str, ...]], Callable[..., list[Array]]] = {}
        try:
            with self._graph.as_default():
                meta_graph = tf.compat.v1.saved_model.load(self._session, list(options.tags), str(path))
        except tf.errors.OpError:
            self.close()
            with from_tensorflow():
                raise
        except Exception as exc:
            # What lies in a folder may be anything, and the loader raises whatever it stumbles over.
            self.close()
            raise failed_precondition(
                f"A version must be a whole SavedModel. {path} cannot be loaded: {type(exc).__name__}: {exc}"
            ) from exc
        self.signatures: Mapping[str, Any] = {
            name: signature for name, signature in meta_graph.signature_def.items() if not name.startswith("__")
        }
        self._graph.finalize()

    def shape(self, tensor_name: str) -> tuple[int | None, ...] | None:
        tensor = self._tensor(tensor_name)
        # Only a placeholder states what it takes: any other tensor may be fed with another shape than it computes.
        if tensor.op.type != "Placeholder" or tensor.shape.rank is None:
            return None
        return tuple(tensor.shape.as_list())

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str]) -> list[Array]:
        key = (tuple(feeds), tuple(fetches))
        call = self._callables.get(key)
        if call is None:
            # The public way to a prepared call; two threads may both make one, and one of them stays.
            call = self._session.make_callable(list(map(self._tensor, fetches)), list(map(self._tensor, feeds)))
            self._callables[key] = call
        with from_tensorflow():
            return [np.asarray(output) for output in call(*feeds.values())]

    def close(self) -> None:
        self._callables = {}
        self._session.close()
        self._graph = None
        gc.collect()  # A graph is full of cycles, and holds the weights' memory until it goes.

    def _tensor(self, name: str) -> Any:
        try:
            return self._graph.get_tensor_by_name(name)
        except (KeyError, ValueError, TypeError) as exc:
            raise invalid_argument(f"the signature names a tensor that the graph does not have: {name!r}") from exc
