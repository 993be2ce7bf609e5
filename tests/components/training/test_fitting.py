"""What a training logs, and which of its phases is kept."""

import logging
from typing import Any

import pytest

from components.errors import ComponentError
from components.training import fitting


def history(*val_losses: float, accuracy: float = 0.5) -> dict[str, list[float]]:
    return {
        "loss": [1.0] * len(val_losses),
        "val_loss": list(val_losses),
        "val_accuracy": [accuracy] * len(val_losses),
    }


def test_a_phase_is_kept_only_where_it_lowers_the_validation_loss() -> None:
    assert fitting.find_best({"head": history(0.5, 0.3, 0.4)}) == ("head", 1)
    assert fitting.find_best({"head": history(0.3), "fine_tune": history(0.4, 0.2)}) == ("fine_tune", 1)
    assert fitting.find_best({"head": history(0.5, 0.3), "fine_tune": history(0.3, 0.4)}) == ("head", 1)
    assert fitting.find_best({"head": history(0.3), "fine_tune": history(0.2, accuracy=0.4)}) == ("head", 0)


def test_a_validation_loss_that_is_no_number_is_an_error() -> None:
    class Network:
        def get_weights(self) -> list[Any]:
            return []

    with pytest.raises(ComponentError, match="must stay finite numbers; head lost them"):
        fitting._check_finite(Network(), history(0.5, float("nan")), "head")  # type: ignore[arg-type]


def test_a_long_epoch_is_a_line_and_a_short_one_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    now = [100.0]
    monkeypatch.setattr(fitting.time, "monotonic", lambda: now[0])
    log_epoch = fitting._make_epoch_logger("fine_tune", 3)
    for seconds in (0.5, 62.0, 0.9):
        now[0] += seconds
        log_epoch(round(seconds), {"loss": 0.25, "val_loss": 0.5, "learning_rate": 0.1})
    assert caplog.messages == ["trainer: fine_tune, epoch 63 of 3 in 62.0 s: loss 0.2500, val_loss 0.5000"]
