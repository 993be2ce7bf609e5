"""The limits in a LiteRT file: tensors of its one subgraph, named as the outputs of `limits.LimitsModule` are.

They are outputs of neither the subgraph nor a signature, for others read the file as it is: MediaPipe Tasks refuses one
with two subgraphs, and takes each output for another classification; LiteRT's `CompiledModel` refuses a signature that
names more than the subgraph's outputs. An `Interpreter` keeps them after a run: no operator uses them, so that their
memory is not taken again, and none of them is made by an operator that XNNPACK, its delegate for the processor, would
run, for that one keeps what it makes to itself (`limits.LimitsModule` sees to it; reading would fail).
"""

from typing import Any

from export.limits import OUTPUTS

_PROBABILITIES = b"probabilities"


def hide_limits(model: Any) -> None:
    """Make the probabilities the one output of a model, and name the tensors of the limits.

    Args:
        model: the schema's `ModelT`, with one subgraph and one signature, whose outputs are these.
    """
    (graph,), (signature,) = model.subgraphs, model.signatureDefs
    for output in signature.outputs:
        if output.name.decode() in OUTPUTS:
            graph.tensors[output.tensorIndex].name = output.name
    signature.outputs = [output for output in signature.outputs if output.name == _PROBABILITIES]
    graph.outputs = [output.tensorIndex for output in signature.outputs]
