"""The benchmark of `select` runs on tiny data; its numbers are not judged here."""

import re
from functools import partial

import pytest

from benchmarks import photos, selection
from components.model import ModelOptions
from components.trainer import TrainerOptions


@pytest.mark.slow
def test_selection_sets_ours_beside_random_choice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos, "NUM_SYNTHETIC_PER_CLASS", 10)
    monkeypatch.setattr(selection, "SHARES", (0.5,))
    monkeypatch.setattr(selection, "TrainerOptions", partial(TrainerOptions, epochs=1, num_heads=1))
    options = ModelOptions(backbone="small_cnn", weights="none", image_size_px=32)
    selection.measure("synthetic", options, seeds=range(1, 2))
    (line,) = capsys.readouterr().out.splitlines()
    assert re.search(
        r"\d+ labels \(50%\): accuracy 0\.\d{4}, at random 0\.\d{4} .* of 1 seeds.*: ratio of errors", line
    )
