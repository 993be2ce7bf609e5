"""A SavedModel, TF1-style ones included, run as TensorFlow Serving runs it: through a session."""

import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from serving.local_server.errors import failed_precondition, from_tensorflow, invalid_argument
from serving.local_server.servable import Array, LoadOptions


class SavedModelServable:
    """A SavedModel in a session of its own.

    `tf.saved_model.load` refuses some TF1-style models and cannot be fed an inner tensor (`tf_example["x"]`), which
    TensorFlow Serving allows; a session does both.
    """

    runtime = "TF1"

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
        self.signatures: Mapping[str, Any] = dict(meta_graph.signature_def)
        self._graph.finalize()

    def shape(self, tensor_name: str) -> tuple[int | None, ...] | None:
        # A session takes any shape, a placeholder's own one or not; the operation that cannot use it says so.
        return None

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str]) -> list[Array]:
        # What is fed needs no computing, and TensorFlow refuses to.
        computed = sorted(set(fetches) - set(feeds))
        outputs = dict(feeds)
        if computed:
            call = self._prepare(sorted(feeds), computed)
            with from_tensorflow():
                outputs.update(zip(computed, call(*(feeds[name] for name in sorted(feeds))), strict=True))
        return [_as_array(outputs[name]) for name in fetches]

    def close(self) -> None:
        self._callables = {}
        self._session.close()
        self._graph = None
        gc.collect()  # A graph is full of cycles, and holds the weights' memory until it goes.

    def _prepare(self, feeds: Sequence[str], fetches: Sequence[str]) -> Callable[..., list[Array]]:
        key = (tuple(feeds), tuple(fetches))
        call = self._callables.get(key)
        if call is None:
            for name in (*feeds, *fetches):
                self._tensor(name)
            # Not the public `make_callable`, which refuses shapes that the graph's inference, and so nobody, promised:
            # half_plus_two's `x` is inferred as [?, 1], and clients feed [1]. Two threads may both make a call, and one
            # of them stays.
            options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
            with from_tensorflow():
                call = self._callables[key] = self._session._make_callable_from_options(options)
        return call

    def _tensor(self, name: str) -> Any:
        try:
            return self._graph.get_tensor_by_name(name)
        except (KeyError, ValueError, TypeError) as exc:
            raise invalid_argument(f"the signature names a tensor that the graph does not have: {name!r}") from exc


def _as_array(output: Any) -> Array:
    """Keep a single string as it is: numpy's own type for it loses the zero bytes at its end."""
    return np.array(output, dtype=object) if isinstance(output, bytes) else np.asarray(output)
