"""The signatures of a LiteRT file: two of its one subgraph, which has one output.

On-device libraries expect one subgraph with one output: with a second subgraph for the limits, or with more outputs,
MediaPipe Tasks refuses the file. So what a classifier says of its limits are tensors of that subgraph that only the
signature `limits` names. LiteRT keeps them: no operator uses them, so that their memory is not taken again, and none of
them is made by an operator that its delegate for the processor, XNNPACK, would run, for that one keeps what it makes to
itself (`limits.LimitsModule` sees to it).
"""

import copy
from typing import Any

IMAGES, LIMITS = "images", "limits"
_PROBABILITIES = b"probabilities"


def split(model: Any) -> None:
    """Give a model two signatures in place of its one: `images`, with the probabilities alone, and `limits`.

    Args:
        model: the schema's `ModelT`, with one subgraph; one of its outputs is `probabilities`.
    """
    (graph,), (limits,) = model.subgraphs, model.signatureDefs
    (probabilities,) = (output for output in limits.outputs if output.name == _PROBABILITIES)
    images = copy.copy(limits)
    graph.outputs, images.outputs = [probabilities.tensorIndex], [probabilities]
    images.signatureKey, limits.signatureKey = IMAGES.encode(), LIMITS.encode()
    model.signatureDefs = [images, limits]
