"""The checkpoint on a network of nine numbers."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from components.training.checkpoint import Checkpoint

INPUTS = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
TARGETS = INPUTS.sum(axis=1, keepdims=True)


def make_network(seed: int = 1) -> keras.Model:
    keras.utils.set_random_seed(seed)
    network = keras.Sequential([keras.Input((8,)), keras.layers.Dropout(0.2, seed=3), keras.layers.Dense(1)])
    network.compile(optimizer=keras.optimizers.Adam(0.1), loss="mse")
    return network


def fit(
    folder: Path, *, epochs: int, seed: int = 1, patience: int = 2, writes: bool = True
) -> tuple[keras.Model, Checkpoint]:
    """Train up to an epoch, from the newest checkpoint on."""
    network = make_network(seed)
    stopping = keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True)
    reducing = keras.callbacks.ReduceLROnPlateau(patience=1, factor=0.5, cooldown=1)
    checkpoint = Checkpoint(folder, {"stopping": stopping, "reducing": reducing}, writes=writes)
    checkpoint.restore(network)
    network.fit(
        INPUTS,
        TARGETS,
        # A target that moves away: the loss of validation goes down, then up.
        validation_data=(INPUTS, TARGETS * 0.5),
        initial_epoch=checkpoint.num_epochs,
        epochs=checkpoint.num_epochs if checkpoint.is_stopped else epochs,
        shuffle=False,
        callbacks=[stopping, reducing, checkpoint],
        verbose=0,
    )
    return network, checkpoint


def state_of(network: keras.Model) -> list[Any]:
    return [v.numpy() for v in [*network.variables, *network.optimizer.variables]]


def test_without_a_checkpoint_nothing_is_restored(tmp_path: Path) -> None:
    network = make_network()
    before = network.get_weights()
    checkpoint = Checkpoint(tmp_path / "none", {})
    checkpoint.restore(network)
    assert (checkpoint.num_epochs, checkpoint.is_stopped, checkpoint.history) == (0, False, {})
    for a, b in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_in_pieces_ends_bit_equal_to_training_in_one_go(tmp_path: Path) -> None:
    whole, expected = fit(tmp_path / "whole", epochs=12)
    assert whole.stop_training, "early stopping must take part"
    assert len(set(expected.history["learning_rate"])) > 1, "and so must the learning rate"
    num_epochs = expected.num_epochs
    for epochs in range(1, num_epochs + 1):
        # After the first piece another seed: what a restarted process draws must not matter.
        parts, found = fit(tmp_path / "parts", epochs=epochs, seed=epochs)
    assert found.history == expected.history
    assert parts.stop_training
    for a, b in zip(state_of(whole), state_of(parts), strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_that_had_stopped_early_does_not_go_on(tmp_path: Path) -> None:
    _, first = fit(tmp_path, epochs=12)
    _, again = fit(tmp_path, epochs=12, seed=9)
    assert again.is_stopped
    assert (again.num_epochs, again.history) == (first.num_epochs, first.history)


def test_only_the_newest_checkpoint_stays(tmp_path: Path) -> None:
    fit(tmp_path, epochs=3, patience=9)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-00003"]


def test_worker_that_does_not_write_goes_on_at_the_checkpoint_of_the_one_that_does(tmp_path: Path) -> None:
    fit(tmp_path, epochs=2, patience=9)
    other, found = fit(tmp_path, epochs=3, seed=5, patience=9, writes=False)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-00002"]
    writer, expected = fit(tmp_path, epochs=3, seed=6, patience=9)
    assert found.history == expected.history
    for a, b in zip(state_of(other), state_of(writer), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("content", [{}, {"state.json": b"{", "arrays.npz": b"PK"}], ids=["empty", "damaged"])
def test_half_written_checkpoint_is_ignored_and_cleared_away(tmp_path: Path, content: dict[str, bytes]) -> None:
    fit(tmp_path, epochs=2, patience=9)
    half = tmp_path / "epoch-00003.partial"
    half.mkdir()
    for name, data in content.items():
        (half / name).write_bytes(data)
    _, found = fit(tmp_path, epochs=3, patience=9)
    assert found.num_epochs == len(found.history["loss"]) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-00003"]
