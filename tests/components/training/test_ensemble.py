"""Heads that learn side by side, and the one they become."""

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from components.training import fitting, losses, networks
from components.training.ensemble import build_heads, join_heads
from components.training.rows import Moments

NUM_HEADS, NUM_FEATURES, NUM_CLASSES = 3, 7, 4
ROWS = np.random.default_rng(0).normal(size=(40, NUM_FEATURES)).astype(np.float32)
TARGETS = np.eye(NUM_CLASSES, dtype=np.float32)[np.random.default_rng(1).integers(0, NUM_CLASSES, 40)]


def build(hidden_units: tuple[int, ...], num_heads: int = NUM_HEADS) -> keras.Model:
    heads = build_heads(
        num_heads=num_heads,
        num_features=NUM_FEATURES,
        num_classes=NUM_CLASSES,
        hidden_units=hidden_units,
        dropout=0.0,
        seed=0,
    )
    networks.center(heads, Moments(ROWS.mean(axis=0), ROWS.var(axis=0)))
    for variable in heads.trainable_variables:  # biases, too
        variable.assign(variable + np.random.default_rng(len(variable.shape)).normal(size=variable.shape))
    fitting.compile_classifier(heads, learning_rate=0.01, label_smoothing=0.1)
    return heads


def join(heads: keras.Model, hidden_units: tuple[int, ...]) -> keras.Model:
    return join_heads(heads, hidden_units=hidden_units, dropout=0.0, seed=0)


def normalize(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("hidden_units", [(), (5,), (5, 6)])
def test_the_joined_head_predicts_the_mean_of_the_logits(hidden_units: tuple[int, ...]) -> None:
    heads = build(hidden_units)
    each = np.asarray(heads(ROWS, training=True), np.float64)
    assert each.shape == (40, NUM_HEADS, NUM_CLASSES)
    assert np.ptp(each, axis=1).max() > 0.1, "the heads must differ"
    expected = normalize(np.log(each).mean(axis=1))
    np.testing.assert_allclose(heads(ROWS, training=False), expected, atol=1e-6)
    head = join(heads, hidden_units)
    np.testing.assert_allclose(head(ROWS), expected, atol=1e-6)
    assert [layer.units for layer in head.layers if isinstance(layer, keras.layers.Dense)] == [
        *(NUM_HEADS * units for units in hidden_units),
        NUM_CLASSES,
    ]


def test_each_head_learns_as_it_would_alone() -> None:
    together, alone = build((5,), num_heads=2), [build((5,), num_heads=1) for _ in range(2)]
    learning = [layer for layer in together.layers if layer.name.startswith("heads_")]
    (kernel, bias), (out_kernel, out_bias) = (layer.get_weights() for layer in learning)
    for number, head in enumerate(alone):
        units = slice(5 * number, 5 * number + 5)
        hidden, output = [layer for layer in head.layers if layer.name.startswith("heads_")]
        hidden.set_weights([kernel[:, units], bias[units]])
        output.set_weights([out_kernel[number : number + 1], out_bias[number : number + 1]])
    for network in (together, *alone):
        network.fit(ROWS, TARGETS, batch_size=10, epochs=5, shuffle=False, verbose=0)
    found = np.asarray(together(ROWS, training=True))
    for number, head in enumerate(alone):
        np.testing.assert_allclose(found[:, number], np.asarray(head(ROWS, training=True))[:, 0], atol=1e-4)


def test_loss_and_accuracy_are_the_means_of_the_heads() -> None:
    loss = losses.LossOfHeads(losses.WeightedCrossentropy([1.0, 2.0, 3.0, 4.0]))
    outputs = np.asarray(build((5,))(ROWS, training=True))
    for measure in (loss.call, losses.accuracy):
        heads = [np.asarray(measure(TARGETS, outputs[:, number])) for number in range(NUM_HEADS)]
        np.testing.assert_allclose(np.asarray(measure(TARGETS, outputs)), np.mean(heads, axis=0), rtol=1e-5)
