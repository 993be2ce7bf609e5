"""Draw what a model knows of its limits, as `plots` draws all else."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from components.artifacts.evaluation import PValueBin, RiskPoint
from components.reporting.plots import BLUE, GREY, ORANGE, style, to_png


def risk_coverage(points: Sequence[RiskPoint]) -> bytes:
    """Draw the error rate over the share of photos that are classified, the most confident first, as a PNG.

    Args:
        points: `{"coverage" (0–1), "error" (0–1)}`, ascending.
    """
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    style(axes, xlabel="share of the test photos, the most confident first", ylabel="error rate")
    coverage, errors = [each["coverage"] for each in points], [each["error"] for each in points]
    axes.plot(coverage, errors, color=BLUE, marker="o", markersize=3)
    axes.axhline(errors[-1], color=GREY, linestyle="--", linewidth=1, label="all photos")
    axes.set(xlim=(0, 1.02), ylim=(0, max(1.25 * max(errors), 0.02)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    return to_png(figure)


def p_values(
    known: Sequence[PValueBin], foreign: Sequence[PValueBin] = (), refused_share: float | None = None
) -> bytes:
    """Draw histograms of p-values on a logarithmic scale, each as shares of its photos, as a PNG.

    Args:
        known: `{"lower", "upper", "num_examples"}` a bin, from 1 downwards, of test photos.
        foreign: the same bins of photos of other things; empty without such photos.
        refused_share: the p-value up to which a photo is refused; nothing is drawn there where it is none.
    """
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    style(axes, xlabel="p-value: from strange to ordinary", ylabel="share of the photos")
    edges = [each["upper"] for each in known]
    # The last bin goes down to 0, which is nowhere on this scale: it is drawn as wide as the others.
    edges = [edges[-1] * edges[-1] / edges[-2], *reversed(edges)]
    for bins, label, color in ((known, "test photos", BLUE), (foreign, "foreign photos", ORANGE)):
        if counts := [each["num_examples"] for each in reversed(bins)]:
            shares = [count / max(sum(counts), 1) for count in counts]
            axes.stairs(shares, edges, color=color, fill=True, alpha=0.25)
            axes.stairs(shares, edges, color=color, linewidth=1.6, label=label)
    if refused_share:
        axes.axvline(refused_share, color=GREY, linestyle="--", linewidth=1, label="refused, left of this")
    axes.set_xscale("log")
    axes.set_xlim(edges[0], 1)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(frameon=False, fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return to_png(figure)
