"""A temperature makes probabilities come true, changes no label, and never promises certainty."""

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from components.training import networks
from components.training.calibration import fit_temperature, temper


def draw(num_examples: int, sharpness: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw labels from known probabilities, and return those as a network would have them that is too sharp, or not."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (num_examples, 5))
    true = temper(np.exp(logits), 1.0)
    labels = (true.cumsum(axis=1) > rng.random((num_examples, 1))).argmax(axis=1)
    return temper(true.astype(np.float32), 1 / sharpness).astype(np.float32), labels


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
def test_the_temperature_undoes_what_made_probabilities_too_sharp(sharpness: float) -> None:
    # Of 20,000 examples the fitted temperature is within a few percent of the true one.
    assert fit_temperature(*draw(20_000, sharpness)) == pytest.approx(sharpness, rel=0.05)


@pytest.mark.parametrize("num_examples", [1, 5, 1000])
def test_who_is_always_right_is_not_certain(num_examples: int) -> None:
    """The share of wrong predictions that may still come shrinks with the number of examples: C - 1 in N + C."""
    probabilities = np.full((num_examples, 5), 0.1, np.float32)
    probabilities[:, 2] = 0.6
    temperature = fit_temperature(probabilities, np.full(num_examples, 2))
    expected = (num_examples + 1) / (num_examples + 5)
    assert temper(probabilities, temperature)[0, 2] == pytest.approx(expected, abs=1e-6)


def test_probabilities_that_are_zero_or_equal_have_a_temperature_within_its_bounds() -> None:
    certain = np.eye(3, dtype=np.float32)
    for probabilities in (certain, certain[[1, 2, 0]], np.full((3, 3), 1 / 3, np.float32)):
        assert 0.05 <= fit_temperature(probabilities, np.arange(3)) <= 20


def test_scaling_a_head_divides_its_logits_and_changes_no_label() -> None:
    keras.utils.set_random_seed(0)
    head = networks.build_head(num_features=8, num_classes=4, hidden_units=(16,), dropout=0.5, seed=0)
    features = np.random.default_rng(0).normal(0, 3, (20, 8)).astype(np.float32)
    before = head.predict_on_batch(features)
    networks.set_temperature(head, 0.5)
    after = head.predict_on_batch(features)
    np.testing.assert_allclose(after, temper(before, 0.5), atol=1e-6)
    np.testing.assert_array_equal(after.argmax(axis=1), before.argmax(axis=1))
    assert after.max(axis=1).mean() > before.max(axis=1).mean()
