"""Classification and regression: signatures that take serialized `tf.Example`s, and the results they fill.

The order of the checks and the error texts are those of classifier.cc, regressor.cc and util.cc.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from serving.local_server import tensor_protos
from serving.local_server.errors import check_num_strings, invalid_argument
from serving.local_server.servable import CLASSIFY, Array, show_shape

T = TypeVar("T")


# More are read and filled in a thread, and other requests go on meanwhile: these take a millisecond.
_MANY_EXAMPLES = 500


async def serialize(proto: Any, max_bytes: int) -> list[bytes]:
    """Return the serialized `tf.Example`s of an `Input`, each with the shared context where there is one.

    Raises:
        StatusError: there are none, or they take more than `max_bytes`.
    """
    kind = proto.WhichOneof("kind")
    context = b""
    examples: Sequence[Any] = ()
    if kind == "example_list":
        examples = proto.example_list.examples
    elif kind == "example_list_with_context":
        context = proto.example_list_with_context.context.SerializeToString()
        examples = proto.example_list_with_context.examples
    if not examples:
        raise invalid_argument("Input is empty.")
    check_num_strings(len(examples))
    num_bytes = proto.ByteSize() + len(context) * len(examples)
    if num_bytes > max_bytes:
        raise invalid_argument(
            f"Examples may take {max_bytes} bytes, each with the context. Received: {num_bytes}. Send less at once."
        )
    # Two serialized messages in a row are their merger.
    return await _beside(len(examples), lambda: [context + example.SerializeToString() for example in examples])


async def _beside(num_examples: int, work: Callable[[], T]) -> T:
    """Do work on examples, beside the event loop where they are many."""
    return await asyncio.to_thread(work) if num_examples > _MANY_EXAMPLES else work()


def read_signature(signature: Any, method: str, *, check_method: bool) -> tuple[Any, list[str]]:
    """Return the input's `TensorInfo` and the output tensors of a classification or regression signature."""
    kind, known = ("classification", ("classes", "scores")) if method == CLASSIFY else ("regression", ("outputs",))
    if check_method and signature.method_name != method:
        raise invalid_argument(f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}")
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")
    if not 1 <= len(signature.outputs) <= len(known):
        count = f"or two output Tensors, found {len(signature.outputs)}" if method == CLASSIFY else "output Tensor."
        raise invalid_argument(f"Expected one {count}")
    if "inputs" not in signature.inputs:
        raise invalid_argument(f"No {kind} inputs found in SignatureDef: {signature}")
    fetches = [signature.outputs[alias].name for alias in known if alias in signature.outputs]
    if not fetches and method == CLASSIFY:
        raise invalid_argument(
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {signature}"
        )
    if not fetches:
        raise invalid_argument(f"No regression outputs found in SignatureDef: {signature}")
    return signature.inputs["inputs"], fetches


async def fill_classification(result: Any, signature: Any, outputs: Mapping[str, Array], num_examples: int) -> None:
    found: dict[str, Array] = {}
    for alias, dtype in (("classes", np.dtype(object)), ("scores", np.dtype(np.float32))):
        if alias not in signature.outputs:
            continue
        array = found[alias] = outputs[signature.outputs[alias].name]
        if array.ndim != 2:
            raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got {show_shape(array)}")
        if array.dtype != dtype:
            wanted = "DT_STRING" if alias == "classes" else "DT_FLOAT"
            raise invalid_argument(f"Expected {alias} Tensor of {wanted}. Got: {tensor_protos.enum_name(array)}")
        if len(array) != num_examples:
            raise invalid_argument(f"Expected {alias} output batch size of {num_examples}. Got: {len(array)}")
    num_classes = [array.shape[1] for array in found.values()]
    if len(set(num_classes)) > 1:
        raise invalid_argument(
            f"Tensors class and score should match in dim_size(1). Got {num_classes[0]} vs. {num_classes[1]}"
        )

    def fill() -> None:
        for i in range(num_examples):
            classes = result.classifications.add().classes
            for c in range(num_classes[0]):
                added = classes.add()
                if "classes" in found:
                    added.label = found["classes"][i, c].decode("utf-8", "replace")
                if "scores" in found:
                    added.score = found["scores"][i, c]

    await _beside(num_examples, fill)


async def fill_regression(result: Any, signature: Any, outputs: Mapping[str, Array], num_examples: int) -> None:
    array = outputs[signature.outputs["outputs"].name]
    if not (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)):
        raise invalid_argument(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {show_shape(array)}"
        )
    if len(array) != num_examples:
        raise invalid_argument(f"Input batch size did not match output batch size: {num_examples} vs. {len(array)}")
    if array.dtype != np.float32:
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {tensor_protos.enum_name(array)}")

    def fill() -> None:
        for value in array.ravel():
            result.regressions.add().value = value

    await _beside(num_examples, fill)
