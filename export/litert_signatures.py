"""The signatures of a LiteRT file: on-device libraries run its first subgraph, and expect one output of it.

So what a classifier says of its limits has a subgraph of its own, with the same tensors and operators: they lie in the
file once.
"""

import copy
from typing import Any

IMAGES, LIMITS = "images", "limits"
_PROBABILITIES = b"probabilities"


class _Shared:
    """A table that several others hold: written where it is first needed."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self._builder: Any = None
        self._position = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    def Pack(self, builder: Any) -> int:  # noqa: N802 (as the schema's tables have it)
        if builder is not self._builder:
            self._builder, self._position = builder, self._table.Pack(builder)
        return self._position


def split(model: Any) -> None:
    """Give a model two signatures in place of its one, `images`: that one with the probabilities alone, and `limits`.

    Args:
        model: the schema's `ModelT`, with one subgraph; one of its outputs is `probabilities`.
    """
    (graph,), (signature,) = model.subgraphs, model.signatureDefs
    graph.tensors = [_Shared(tensor) for tensor in graph.tensors]
    graph.operators = [_Shared(operator) for operator in graph.operators]
    plain, limits = copy.copy(graph), copy.copy(signature)
    (named,) = (output for output in signature.outputs if output.name == _PROBABILITIES)
    plain.outputs = [named.tensorIndex]
    plain.operators = _find_needed(graph.operators, plain.outputs)
    signature.signatureKey, signature.outputs = IMAGES.encode(), [named]
    limits.signatureKey, limits.subgraphIndex = LIMITS.encode(), 1
    graph.name = LIMITS.encode()
    model.subgraphs, model.signatureDefs = [plain, graph], [signature, limits]


def _find_needed(operators: list[Any], outputs: list[int]) -> list[Any]:
    """Return the operators that some tensors depend on, in their order."""
    needed, found = set(outputs), []
    for operator in reversed(operators):
        if needed.intersection(operator.outputs):
            needed.update(operator.inputs)
            found.append(operator)
    return found[::-1]
