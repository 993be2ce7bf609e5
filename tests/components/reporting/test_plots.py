"""Plots are PNGs that depend on the numbers alone and survive awkward ones."""

import io
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from matplotlib.font_manager import FontEntry
from PIL import Image

from components.reporting import limits_plots, metrics, plots

CLASSES = ["daisy", "rose"]
MATRIX = [[8, 2], [1, 9]]
CURVES = {"loss": [0.9, 0.4], "val_loss": [1.0, 0.5], "accuracy": [0.5, 0.9], "val_accuracy": [0.4, 0.8]}
SCORES = {"precision": 0.9, "recall": 0.8, "f1": 0.85}
BINS: list[dict[str, Any]] = [
    {"lower": 0.0, "upper": 0.5, "confidence": None, "accuracy": None, "num_examples": 0},
    {"lower": 0.5, "upper": 1.0, "confidence": 0.8, "accuracy": 0.7, "num_examples": 20},
]
SPLITS = {
    "train": {
        "per_class": {"daisy": 8, "rose": 9},
        "brightness": {"histogram": [0, 2, 9, 6, 0, 0, 0, 0, 0, 0]},
    }
}
ON_DEVICE = {"accuracy": 0.9, "accuracy_interval": [0.8, 0.95], "latency_ms": 7.0, "size_bytes": 24_000_000}
ROWS = [
    {"model": "tree", "learns_from": "edges", "accuracy": 0.2, "accuracy_interval": [0.1, 0.3]},
    {"model": "net", "learns_from": "photos", "accuracy": 1.0, "accuracy_interval": [0.9, 1.0]},
]
RISKS = [{"coverage": 0.5, "error": 0.0}, {"coverage": 1.0, "error": 0.1}]
P_VALUES = metrics.p_value_histogram(np.linspace(0.001, 1, 40, dtype=np.float32))
DRAW: dict[str, Callable[[], bytes]] = {
    "accuracy": lambda: plots.learning_curve({"head": CURVES}, "accuracy"),
    "loss": lambda: plots.learning_curve({"head": CURVES, "fine_tune": CURVES}, "loss"),
    "model_results": lambda: plots.model_results(dict.fromkeys(CLASSES, SCORES), MATRIX, CLASSES),
    "confusion_matrix": lambda: plots.confusion_matrix(MATRIX, CLASSES),
    "calibration": lambda: plots.calibration(BINS),
    "data": lambda: plots.data(SPLITS, CLASSES),
    "photos": lambda: plots.photos([np.full((4, 6, 3), 90, np.uint8)] * 3, ["a", "b", "$c"], num_columns=2),
    "on_device": lambda: plots.on_device(dict.fromkeys(["SavedModel", "int8"], ON_DEVICE)),
    "risk_coverage": lambda: limits_plots.risk_coverage(RISKS),
    "p_values": lambda: limits_plots.p_values(P_VALUES, P_VALUES[::-1], 0.03),
    "comparison": lambda: plots.comparison(ROWS),
}


@cache
def drawn(name: str) -> bytes:
    return DRAW[name]()


@pytest.mark.parametrize("name", DRAW)
def test_plot_is_a_png_and_the_same_twice(name: str) -> None:
    first = drawn(name)
    assert first == DRAW[name]()
    image = Image.open(io.BytesIO(first))
    assert image.format == "PNG"
    assert "Software" not in image.info
    assert len(np.unique(np.asarray(image.convert("L")))) > 10  # something is drawn


def test_plots_depend_on_the_numbers() -> None:
    assert plots.confusion_matrix([[8, 2], [0, 10]], CLASSES) != drawn("confusion_matrix")
    assert drawn("accuracy") != plots.learning_curve({"head": CURVES, "fine_tune": CURVES}, "accuracy")


def test_plots_survive_nan_and_null() -> None:
    curves = CURVES | {"loss": [float("nan"), float("nan")]}
    scores = {"precision": None, "recall": 0.0, "f1": None}
    assert plots.learning_curve({"head": curves}, "loss")
    assert plots.model_results({"daisy": SCORES, "rose": scores}, [[10, 0], [0, 0]], CLASSES)
    assert plots.calibration([BINS[0]])
    assert limits_plots.p_values(P_VALUES)
    assert limits_plots.risk_coverage([{"coverage": 1.0, "error": 0.0}])


def test_plots_take_a_dollar_sign_for_a_dollar_sign() -> None:
    assert plots.confusion_matrix(MATRIX, ["$1_$", r"$\nothing$"])


@pytest.mark.parametrize("num_classes", [1, 102])
def test_confusion_matrix_stays_within_bounds(num_classes: int) -> None:
    names = [f"class {index}" for index in range(num_classes)]
    image = Image.open(io.BytesIO(plots.confusion_matrix(np.eye(num_classes, dtype=int).tolist(), names)))
    assert max(image.size) < 2000  # px


def test_names_are_drawn_with_any_font_that_has_their_letters(monkeypatch, caplog) -> None:
    names = ["daisy", "ромашка", "玫瑰"]
    ours = [font for font in plots.fontManager.ttflist if "DejaVu" in font.name or "Last Resort" in font.name]
    monkeypatch.setattr(plots.fontManager, "ttflist", ours)  # those that come with matplotlib
    plots._to_readable.cache_clear()
    assert plots._to_readable(tuple(names)) == (["daisy", "ромашка", "# 3"], ["DejaVu Sans"])
    assert "no installed font can draw some names; the plots show # 3 for 玫瑰" in caplog.text
    assert plots.confusion_matrix(np.eye(3, dtype=int).tolist(), names).startswith(b"\x89PNG")

    monkeypatch.setattr(plots.fontManager, "ttflist", [FontEntry(fname="gothic.ttf", name="Some Gothic")])
    letters = plots._letters
    chinese = frozenset(map(ord, "玫瑰"))
    monkeypatch.setattr(plots, "_letters", lambda file: chinese if file == "gothic.ttf" else letters(file))
    plots._to_readable.cache_clear()
    assert plots._to_readable(tuple(names)) == (names, ["DejaVu Sans", "Some Gothic"])
    plots._to_readable.cache_clear()


def test_plots_leave_pyplot_alone() -> None:
    code = "import sys, components.reporting.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
