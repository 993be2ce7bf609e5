"""Several heads that learn side by side in one network, and the one head they become.

Each has weights of its own, and learns as it would alone; the mean of their logits is right more often than the best of
them (deep ensembles: B. Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation", 2017). That
mean is one head with the hidden units of all: as a classifier, it costs no more than one of that width.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from components.training import networks

_HIDDEN, _LOGITS = "heads_hidden_{}", "heads_logits"


@keras.saving.register_keras_serializable(package="components")
class JoinHeads(keras.layers.Layer):
    """Logits `[N, M, C]` of M heads to probabilities: `[N, M, C]` of each while training, else `[N, C]` of the mean."""

    def call(self, logits: Any, training: bool = False) -> Any:
        return keras.ops.softmax(logits if training else keras.ops.mean(logits, axis=1))


def build_heads(
    *, num_heads: int, num_features: int, num_classes: int, hidden_units: Sequence[int], dropout: float, seed: int
) -> keras.Model:
    """Build heads that learn side by side: features `float32 [N, D]` to probabilities, see `JoinHeads`.

    Args:
        num_heads: how many.
        num_features: D.
        num_classes: C.
        hidden_units: of each head.
        dropout: behind each hidden layer.
        seed: of the first weights and of dropout.
    """
    widths = [num_features, *hidden_units, num_classes]
    layers: list[Any] = [keras.Input((num_features,)), networks.build_centering()]
    for number, (before, units) in enumerate(pairwise(widths)):
        is_last = number == len(hidden_units)
        options: dict[str, Any] = {
            "name": _LOGITS if is_last else _HIDDEN.format(number),
            "activation": None if is_last else "relu",
            # As X. Glorot and Y. Bengio (2010) have it for a head alone.
            "kernel_initializer": keras.initializers.RandomUniform(
                -((6 / (before + units)) ** 0.5), (6 / (before + units)) ** 0.5, seed=seed + number
            ),
        }
        if number == 0:  # All see the same features: one multiplication.
            layers += [keras.layers.Dense(num_heads * units, **options), keras.layers.Reshape((num_heads, units))]
        else:
            shape = (num_heads, units)
            layers.append(keras.layers.EinsumDense("nmi,mio->nmo", output_shape=shape, bias_axes="mo", **options))
        if not is_last:
            layers.append(keras.layers.Dropout(dropout, seed=seed + number))
    return keras.Sequential([*layers, JoinHeads(name="probabilities")], name="heads")


def join_heads(heads: keras.Model, *, hidden_units: Sequence[int], dropout: float, seed: int) -> keras.Model:
    """Return the head, see `networks.build_head`, that predicts what several do together."""
    num_heads, num_classes = heads.layers[-1].input.shape[1:]
    layers = [layer for layer in heads.layers if isinstance(layer, keras.layers.Dense | keras.layers.EinsumDense)]
    *hidden, (kernel, bias) = [_stack(layer, num_heads=num_heads) for layer in layers]
    head = networks.build_head(
        num_features=heads.input_shape[1],
        num_classes=num_classes,
        hidden_units=[num_heads * units for units in hidden_units],
        dropout=dropout,
        seed=seed,
    )
    weights = [_side_by_side(*each, is_first=number == 0) for number, each in enumerate(hidden)]
    # The mean of the logits: each head has units of its own to make them of, but where it has none but the features.
    joined = kernel.reshape(-1, num_classes) / num_heads if hidden else kernel.mean(axis=0)
    weights.append([joined, bias.mean(axis=0)])
    dense = [layer for layer in head.layers if isinstance(layer, keras.layers.Dense)]
    for layer, arrays in zip(dense, weights, strict=True):
        layer.set_weights(arrays)
    head.get_layer(networks.CENTER).set_weights(heads.get_layer(networks.CENTER).get_weights())
    return head


def _stack(layer: Any, *, num_heads: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the kernels `[M, inputs, units]` and the biases `[M, units]` of a layer of M heads."""
    kernel, bias = layer.get_weights()
    if kernel.ndim == 2:
        kernel = kernel.reshape(len(kernel), num_heads, -1).transpose(1, 0, 2)
    return kernel, bias.reshape(num_heads, -1)


def _side_by_side(
    kernel: NDArray[np.float32], bias: NDArray[np.float32], *, is_first: bool
) -> list[NDArray[np.float32]]:
    """Return the weights of one layer that does what those of M heads do: of the features, or each of its own units."""
    num_heads, inputs, units = kernel.shape
    if is_first:
        return [kernel.transpose(1, 0, 2).reshape(inputs, -1), bias.ravel()]
    blocks = np.zeros((num_heads, inputs, num_heads, units), np.float32)
    blocks[np.arange(num_heads), :, np.arange(num_heads)] = kernel
    return [blocks.reshape(num_heads * inputs, -1), bias.ravel()]
