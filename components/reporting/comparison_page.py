"""The page of a comparison: one table and one plot of all models."""

from collections.abc import Sequence

from components.artifacts.comparison_rows import MissingRow, Row
from components.artifacts.examples import DataOrigin
from components.reporting import page


def render(data: DataOrigin, judged: Sequence[Row], missing: Sequence[MissingRow], plot: bytes) -> str:
    """Return the page as HTML; `plot` is a PNG."""
    highest = max(row["accuracy"] for row in judged)
    return page.template("comparison_page").render(
        data=data,
        judged=judged,
        missing=missing,
        best=[row for row in judged if row["accuracy"] == highest],
        num_examples=judged[0]["num_examples"],
        plot=page.to_data_uri(plot, "image/png"),
    )
