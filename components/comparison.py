"""Put all compared models into one table, one plot and one page.

Reads the rows of each model. Writes `comparison.json` (the rows, in the order of the steps, and the data they were
judged on), `comparison.html`, a page that needs nothing but itself, and `plots/comparison.png`.
"""

from collections.abc import Sequence
from pathlib import Path

from components.artifacts.comparison_rows import MissingRow, Row, read_rows, write_comparison
from components.artifacts.examples import read_origin
from components.artifacts.summary import Summary
from components.reporting import page, plots

_HEADER = (
    "model", "learns from", "accuracy", "95 % interval", "precision", "recall", "F1",
    "elsewhere", "own s", "shared s", "parameters", "int8 MB", "int8 ms",
)  # fmt: skip


def build(*, examples_dir: Path, out_dir: Path, **rows_dirs: Path) -> Summary:
    """Put the rows together.

    Args:
        examples_dir: whose test split judged all of them.
        out_dir: an existing folder.
        rows_dirs: a folder for each model or group of models, in the order of the table.
    """
    rows = [row for folder in rows_dirs.values() for row in read_rows(folder)]
    judged = [row for row in rows if "accuracy" in row]
    data = read_origin(examples_dir)
    write_comparison(out_dir, {"data": data, "rows": rows})
    plot = plots.comparison(judged)
    (out_dir / "plots").mkdir(exist_ok=True)
    (out_dir / "plots" / "comparison.png").write_bytes(plot)
    highest = max(row["accuracy"] for row in judged)
    best = [row for row in judged if row["accuracy"] == highest]
    html = page.template("comparison").render(
        data=data,
        judged=judged,
        missing=[row for row in rows if "missing" in row],
        best=best,
        num_examples=judged[0]["num_examples"],
        plot=page.to_data_uri(plot, "image/png"),
    )
    (out_dir / "comparison.html").write_bytes(html.encode("utf-8", "replace"))
    return {
        "num_rows": len(rows),
        "num_missing": len(rows) - len(judged),
        "best": ", ".join(row["model"] for row in best),
    }


def as_table(rows: Sequence[Row | MissingRow]) -> str:
    """Return rows as a Markdown table with aligned columns, and below it why a model is missing."""
    lines = [_HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADER))]
    lines.insert(1, tuple("-" * width for width in widths))
    table = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    reasons = [f"{row['model']}: {row['missing']}" for row in rows if "missing" in row]
    return "\n".join([*table, *reasons])


def _cells(row: Row | MissingRow) -> tuple[str, ...]:
    if "missing" in row:
        return (row["model"], "missing, see below", *("–" for _ in _HEADER[2:]))
    low, high = row["accuracy_interval"]
    int8 = row["int8"]
    return (
        row["model"],
        row["learns_from"],
        f"{row['accuracy']:.3f}",
        f"{low:.3f}–{high:.3f}",
        *(f"{row['macro'][name]:.3f}" for name in ("precision", "recall", "f1")),
        f"{row['elsewhere']:.3f}" if row["elsewhere"] is not None else "–",
        f"{row['fit_s']:.1f}",
        f"{row['inputs_s']:.1f}",
        f"{row['num_parameters']:,}",
        f"{int8['size_bytes'] / 1e6:.1f}" if int8 else "–",
        f"{int8['latency_ms']:.1f}" if int8 else "–",
    )
