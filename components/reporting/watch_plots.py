"""Draw what watching found, as `plots` draws all else."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from components.monitoring.betting import threshold
from components.monitoring.drift import Finding
from components.reporting.plots import BLUE, COLORS, GREY, ORANGE, style, to_png

_NUM_BINS = 20
_MAX_POINTS = 2000


def evidence(findings: Sequence[Finding]) -> bytes:
    """Draw the evidence of each question over the photos, as a share of what an alarm takes, as a PNG."""
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    style(axes, xlabel="photos", ylabel="evidence (alarm at 1)")
    for finding, color in zip(findings, COLORS, strict=False):
        num_drawn = min(len(finding.photos), _MAX_POINTS)
        drawn = np.linspace(0, len(finding.photos) - 1, num_drawn).astype(int)
        ratios = finding.evidence[drawn] / threshold(finding.error)
        axes.plot(finding.photos[drawn] + 1, ratios, color=color, label=finding.question)
    axes.axhline(1, color=GREY, linestyle="--", linewidth=1)
    axes.set_ylim(-1, 3)
    axes.legend(frameon=False, fontsize=9, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return to_png(figure)


def p_values(values: NDArray[np.float64]) -> bytes:
    """Draw a histogram of p-values, 0–1, beside that of photos like those to validate on, as a PNG."""
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    style(axes, xlabel="p-value: from strange to ordinary", ylabel="share of the photos")
    counts, edges = np.histogram(values, _NUM_BINS, (0, 1))
    shares = counts / max(len(values), 1)
    axes.stairs(shares, edges, color=BLUE, fill=True, alpha=0.25)
    axes.stairs(shares, edges, color=BLUE, linewidth=1.6, label="these photos")
    axes.axhline(1 / _NUM_BINS, color=ORANGE, linestyle="--", linewidth=1.2, label="as on validation")
    axes.set(xlim=(0, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(frameon=False, fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return to_png(figure)
