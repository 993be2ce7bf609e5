"""A SavedModel, TF1-style ones included, run as TensorFlow Serving runs it: through a session."""

import gc
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.client import pywrap_tf_session as tf_session
from tensorflow.python.saved_model.loader_impl import SavedModelLoader

from serving.local_server import operations
from serving.local_server.errors import StatusError, failed_precondition, from_tensorflow, invalid_argument
from serving.local_server.servable import Array, LoadOptions


class SavedModelServable:
    """A SavedModel in a session of its own.

    `tf.saved_model.load` refuses some TF1-style models and cannot be fed an inner tensor (`tf_example["x"]`), which
    TensorFlow Serving allows; a session does both.
    """

    runtime = "TF1"

    def __init__(self, path: Path, options: LoadOptions) -> None:
        config = config_pb2.ConfigProto.FromString(options.session_config)
        # Or one model's loop would keep the threads that another's operations need.
        config.use_per_session_threads = True
        self._graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self._graph, config=config)
        try:
            # What `tf.compat.v1.saved_model.load` does, which reads the file twice, and leaves no time to look at it.
            loader = SavedModelLoader(str(path))
            meta_graph = loader.get_meta_graph_def_from_tags(options.tags)
            operations.register(meta_graph.graph_def, path)
            saver, _ = loader.load_graph(self._graph, options.tags)
            loader.restore_variables(self._session, saver)
            loader.run_init_ops(self._session, options.tags)
        except StatusError:
            self.close()
            raise
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
        self._session._extend_graph()

    def shape(self, tensor_name: str) -> tuple[int | None, ...] | None:
        # A session takes any shape, a placeholder's own one or not; the operation that cannot use it says so.
        return None

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_s: float = math.inf) -> list[Array]:
        # What is fed needs no computing, and TensorFlow refuses to.
        computed = sorted(set(fetches) - set(feeds))
        outputs = dict(feeds)
        if computed:
            outputs.update(zip(computed, self._compute(feeds, computed, timeout_s), strict=True))
        return [_as_array(outputs[name]) for name in fetches]

    def close(self) -> None:
        self._session.close()
        self._graph = None
        gc.collect()  # A graph is full of cycles, and holds the weights' memory until it goes.

    def _compute(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_s: float) -> list[Array]:
        # Not the public `run`, which refuses shapes that the graph's inference, and so nobody, promised:
        # half_plus_two's `x` is inferred as [?, 1], and clients feed [1].
        inputs = {self._tensor(name)._as_tf_output(): array for name, array in feeds.items()}
        outputs = [self._tensor(name)._as_tf_output() for name in fetches]
        timeout_ms = 0 if timeout_s == math.inf else max(1, math.ceil(timeout_s * 1000))
        options = tf_session.TF_NewBufferFromString(config_pb2.RunOptions(timeout_in_ms=timeout_ms).SerializeToString())
        try:
            with from_tensorflow():
                return self._session._call_tf_sessionrun(options, inputs, outputs, [], None)
        finally:
            tf_session.TF_DeleteBuffer(options)

    def _tensor(self, name: str) -> Any:
        try:
            return self._graph.get_tensor_by_name(name)
        except (KeyError, ValueError, TypeError) as exc:
            raise invalid_argument(f"the signature names a tensor that the graph does not have: {name!r}") from exc


def _as_array(output: Any) -> Array:
    """Keep a single string as it is: numpy's own type for it loses the zero bytes at its end."""
    return np.array(output, dtype=object) if isinstance(output, bytes) else np.asarray(output)
