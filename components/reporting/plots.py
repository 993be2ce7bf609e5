"""Draw the report's plots: measured numbers in, the bytes of one PNG out.

Reads nothing and writes nothing. Figures are made with `matplotlib.figure.Figure` and not with pyplot, so
nothing global changes and drawing works in any thread. The same numbers give the same bytes.
"""

import io
import itertools
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from components.artifacts.comparison_rows import Row
from components.artifacts.evaluation import CalibrationBin, ClassMetrics
from components.artifacts.litert_evaluation import Measured
from components.artifacts.statistics import SplitStatistics
from components.artifacts.training import History

log = logging.getLogger(__name__)

BLUE, ORANGE, GREEN, GREY = "#2a6fbb", "#d9822b", "#3a9a6b", "#777777"
COLORS = (BLUE, ORANGE, GREEN, "#9a5fb0", "#b8524f")
DPI = 144
MAX_ANNOTATED_CLASSES = 20
"""Classes beyond which the numbers in the cells of a confusion matrix cannot be read."""


def learning_curve(history: dict[str, History], metric: str) -> bytes:
    """Draw a metric over the epochs, on training and validation examples.

    Args:
        history: `{"head": {metric: [..], "val_" + metric: [..]}, "fine_tune": the same, or absent}`, a number
            an epoch.
        metric: `"accuracy"` (0–1) or `"loss"` (0 and above).

    Returns:
        A PNG.
    """
    phases = [history[name] for name in ("head", "fine_tune") if name in history]
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    style(axes, xlabel="epoch", ylabel=metric)
    for key, label, color in ((metric, "training", BLUE), (f"val_{metric}", "validation", ORANGE)):
        values = [value for phase in phases for value in phase[key]]
        epochs = np.arange(1, len(values) + 1)
        axes.plot(epochs, values, color=color, label=label, marker="o", markersize=3.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.12)
    if len(phases) > 1:
        start = len(phases[0][metric]) + 0.5
        axes.axvline(start, color=GREY, linestyle="--", linewidth=1, label="fine-tuning starts")
    axes.legend(frameon=False, fontsize=9)
    return to_png(figure)


def confusion_matrix(matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> bytes:
    """Draw a confusion matrix as a PNG.

    Args:
        matrix: `int [C, C]`, numbers of examples; rows are true classes, columns predicted ones.
        class_names: `C` names, in the order of the rows.
    """
    side = _side(len(class_names))
    figure = Figure(figsize=(side + 0.4, side), layout="constrained")
    _draw_confusion(figure.add_subplot(), matrix, class_names)
    return to_png(figure)


def model_results(
    per_class: Mapping[str, ClassMetrics], matrix: Sequence[Sequence[int]], class_names: Sequence[str]
) -> bytes:
    """Draw precision, recall and F1 (0–1) of each class, and the confusion matrix beside them, as a PNG.

    Args:
        per_class: `{class name: {"precision", "recall", "f1"}}`.
        matrix: As in `confusion_matrix`.
        class_names: As in `confusion_matrix`.
    """
    side = _side(len(class_names))
    figure = Figure(figsize=(2 * side + 0.8, side), layout="constrained")
    bars, cells = figure.subplots(1, 2)
    style(bars, xlabel="", ylabel="")
    rows = np.arange(len(class_names))
    classes = [per_class[name] for name in class_names]
    for offset, label, values, color in (
        (-0.26, "precision", [each["precision"] for each in classes], BLUE),
        (0.0, "recall", [each["recall"] for each in classes], ORANGE),
        (0.26, "F1", [each["f1"] for each in classes], GREEN),
    ):
        lengths = np.array(values, dtype=float)  # null is NaN
        bars.barh(rows + offset, lengths, height=0.24, color=color, label=label)
    _name_ticks(bars, "y", class_names)
    bars.set(xlim=(0, 1), ylim=(len(class_names) - 0.5, -0.5))
    bars.grid(visible=False, axis="y")
    bars.legend(frameon=False, fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    _draw_confusion(cells, matrix, class_names)
    return to_png(figure)


def calibration(bins: Sequence[CalibrationBin], before: Sequence[CalibrationBin] = ()) -> bytes:
    """Draw a reliability diagram, with the number of examples in each bin below it, as a PNG.

    Args:
        bins: One `{"lower", "upper", "confidence", "accuracy", "num_examples"}` a bin of confidence; all but
            the last 0–1. Empty bins are not drawn.
        before: the same of the model before it was calibrated, as a line.
    """
    figure = Figure(figsize=(5.4, 4.8), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled = [each for each in bins if each["num_examples"]]
    left = [each["lower"] for each in filled]
    width = [each["upper"] - each["lower"] for each in filled]
    accuracies = [each["accuracy"] for each in filled]
    style(top, xlabel="", ylabel="accuracy")
    top.bar(left, accuracies, width, align="edge", color=BLUE, alpha=0.25, edgecolor="white")
    confidences = [each["confidence"] for each in filled]
    top.plot(confidences, accuracies, color=BLUE, marker="o", markersize=4.5, label="measured")
    if earlier := [each for each in before if each["num_examples"]]:
        x, y = ([each[name] for each in earlier] for name in ("confidence", "accuracy"))
        top.plot(x, y, color=ORANGE, marker="o", markersize=3, linewidth=1, label="before calibration")
    top.plot((0, 1), (0, 1), color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    top.set(xlim=(0, 1), ylim=(0, 1.05))
    top.legend(frameon=False, fontsize=9, loc="upper left")
    style(bottom, xlabel="confidence", ylabel="photos")
    counts = bottom.bar(left, [each["num_examples"] for each in filled], width, align="edge", color=BLUE)
    bottom.bar_label(counts, fontsize=8, padding=1)
    bottom.margins(y=0.3)
    bottom.grid(visible=False)
    return to_png(figure)


def data(splits: Mapping[str, SplitStatistics], class_names: Sequence[str]) -> bytes:
    """Draw the number of examples of each class by split, and the distribution of brightness, as a PNG.

    Args:
        splits: `{split: {"per_class": {class name: count}, "brightness": {"histogram": int [10]}}}`; the bins
            go from black to white.
        class_names: The classes, in label order.
    """
    height = min(max(0.32 * len(class_names) + 1.0, 2.4), 12.0)
    figure = Figure(figsize=(5.4, height + 2.4), layout="constrained")
    counts, brightness = figure.subplots(2, 1, height_ratios=(height, 2.4))
    style(counts, xlabel="photos", ylabel="")
    style(brightness, xlabel="mean brightness of a photo, from black to white", ylabel="share of the split")
    left = np.zeros(len(class_names))
    for index, (split, statistics) in enumerate(splits.items()):
        color = COLORS[index % len(COLORS)]
        numbers = np.array([statistics["per_class"].get(name, 0) for name in class_names])
        counts.barh(np.arange(len(class_names)), numbers, left=left, color=color, height=0.7, label=split)
        left += numbers
        histogram = np.array(statistics["brightness"]["histogram"], dtype=float)
        edges = np.linspace(0, 1, len(histogram) + 1)
        brightness.stairs(histogram / max(histogram.sum(), 1), edges, color=color, linewidth=1.6)
    _name_ticks(counts, "y", class_names)
    counts.set_ylim(len(class_names) - 0.5, -0.5)
    counts.grid(visible=False, axis="y")
    counts.legend(frameon=False, fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    brightness.set(xlim=(0, 1), xticks=(0, 0.5, 1))
    brightness.set_ylim(bottom=0)
    return to_png(figure)


def on_device(models: Mapping[str, Measured]) -> bytes:
    """Draw accuracy over latency and over size, a point for each model, as a PNG.

    Args:
        models: `{name: {"accuracy" (0–1), "accuracy_interval", "latency_ms", "size_bytes"}}`.
    """
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, label in ((left, "latency, ms"), (right, "size, MB")):
        style(axes, xlabel=label, ylabel="accuracy" if axes is left else "")
        for (name, row), color in zip(models.items(), itertools.cycle(COLORS)):
            low, high = row["accuracy_interval"]
            error = [[row["accuracy"] - low], [high - row["accuracy"]]]
            cost = row["latency_ms"] if axes is left else row["size_bytes"] / 1e6
            axes.errorbar(cost, row["accuracy"], yerr=error, fmt="o", color=color, capsize=3, label=name)
        axes.set_xlim(left=0)
    figure.legend(*right.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=9)
    return to_png(figure)


def photos(images: Sequence[NDArray[np.uint8]], titles: Sequence[str], *, num_columns: int = 6) -> bytes:
    """Draw images in rows, each below its title, as a PNG.

    Args:
        images: `uint8 [height, width, 3]` each, RGB, 0–255.
        titles: one for each of them.
        num_columns: images in a row.
    """
    num_rows = -(-len(images) // num_columns)
    figure = Figure(figsize=(1.15 * num_columns, 1.35 * num_rows), layout="constrained")
    for axes in (grid := figure.subplots(num_rows, num_columns, squeeze=False)).flat:
        axes.set_axis_off()
    titles, fonts = _to_readable(tuple(titles))
    for axes, image, title in zip(grid.flat, images, titles):  # noqa: B905 (the last row may end early)
        axes.imshow(image)
        axes.set_title(title, fontsize=8, parse_math=False, fontfamily=fonts)
    return to_png(figure)


def comparison(rows: Sequence[Row]) -> bytes:
    """Draw the accuracy of each model with its interval, a line each, as a PNG.

    Args:
        rows: `{"model", "learns_from", "accuracy" (0–1), "accuracy_interval"}`, from top to bottom; those that learn
            from the same have one colour.
    """
    figure = Figure(figsize=(8.4, 0.34 * len(rows) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    style(axes, xlabel="accuracy on the test photos, with 95 % interval", ylabel="")
    sources = list(dict.fromkeys(row["learns_from"] for row in rows))
    for position, row in enumerate(rows):
        low, high = row["accuracy_interval"]
        error = [[row["accuracy"] - low], [high - row["accuracy"]]]
        color = COLORS[sources.index(row["learns_from"]) % len(COLORS)]
        axes.errorbar(row["accuracy"], position, xerr=error, fmt="o", color=color, capsize=3)
        axes.annotate(
            f"{100 * row['accuracy']:.1f}",
            (high, position),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    _name_ticks(axes, "y", [f"{row['model']} · {row['learns_from']}" for row in rows])
    axes.set(xlim=(0, 1.05), ylim=(len(rows) - 0.5, -0.5))
    axes.grid(visible=False, axis="y")
    return to_png(figure)


def _draw_confusion(axes: Axes, matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> None:
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap=matplotlib.colormaps["Blues"], vmin=0, vmax=1)
    if len(class_names) <= MAX_ANNOTATED_CLASSES:
        for row, column in np.ndindex(*counts.shape):
            color = "white" if shares[row, column] > 0.5 else "black" if counts[row, column] else "#aaaaaa"
            axes.text(column, row, f"{counts[row, column]}", color=color, ha="center", va="center")
    _name_ticks(axes, "x", class_names)
    _name_ticks(axes, "y", class_names)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.spines[:].set_visible(False)


def _name_ticks(axes: Axes, axis: str, class_names: Sequence[str]) -> None:
    """Name the ticks of `"x"` or `"y"` after the classes; a dollar sign in a name is no mathematics."""
    readable, fonts = _to_readable(tuple(class_names))
    names = [name.replace("$", r"\$") for name in readable]
    style: dict[str, Any] = {"fontsize": min(max(200 / max(len(names), 1), 5), 10), "fontfamily": fonts}  # points
    if axis == "x":
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", **style)
    else:
        axes.set_yticks(range(len(names)), names, **style)


@cache
def _to_readable(names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the names and the fonts to draw them with; a name that no installed font can draw becomes its number."""
    fonts = ["DejaVu Sans"]  # comes with matplotlib
    missing = set(map(ord, "".join(names))) - _letters(findfont("DejaVu Sans"))
    # matplotlib's font of last resort has a box for every letter.
    found = [font for font in fontManager.ttflist if "Last Resort" not in font.name]
    for font in sorted(found, key=lambda font: (font.name, font.fname)) if missing else ():
        if missing & _letters(font.fname):
            fonts.append(font.name)
            missing -= _letters(font.fname)
    numbers = {
        name: f"# {number}" for number, name in enumerate(names, start=1) if not missing.isdisjoint(map(ord, name))
    }
    if numbers:
        shown = ", ".join(f"{number} for {name}" for name, number in numbers.items())
        log.warning("report: no installed font can draw some names; the plots show %s", shown)
    return [numbers.get(name, name) for name in names], fonts


@cache
def _letters(font_file: str) -> frozenset[int]:
    """Return the code points that a font can draw."""
    return frozenset(FT2Font(font_file).get_charmap())


def _side(num_classes: int) -> float:
    """Return the side of a confusion matrix in inches: enough to read, never a poster."""
    return min(max(0.5 * num_classes + 2.0, 4.4), 12.0)


def style(axes: Axes, *, xlabel: str, ylabel: str) -> None:
    """Give axes their labels and the look of all plots."""
    axes.set(xlabel=xlabel, ylabel=ylabel, axisbelow=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.8)


def to_png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    # Without the Software field, which holds matplotlib's version, the bytes depend on the image alone.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
