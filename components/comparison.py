"""All compared models in one table, one plot and one page.

Reads the `rows.json` of each model, or `missing.json` where one cannot be had. Writes `comparison.json` (the rows, in
the order of the steps, and what they were judged on), `comparison.html`, a page that needs nothing but itself, and
`plots/comparison.png`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components import examples
from components.artifacts.manifest import MISSING
from components.network_row import ROWS
from components.reporting import page, plots
from components.storage.files import read_json, write_json

_HEADER = (
    "model", "learns from", "accuracy", "95 % interval", "precision", "recall", "F1",
    "own s", "shared s", "parameters", "int8 MB", "int8 ms",
)  # fmt: skip


def build(*, examples_dir: Path, out_dir: Path, **rows_dirs: Path) -> dict[str, Any]:
    """Put the rows together.

    Args:
        examples_dir: whose test split judged all of them.
        out_dir: an existing folder.
        rows_dirs: a folder for each model or group of models, in the order of the table.
    """
    found = [row for folder in rows_dirs.values() for row in _read(folder)]
    judged = [row for row in found if "accuracy" in row]
    highest = max(row["accuracy"] for row in judged)
    best = [row for row in judged if row["accuracy"] == highest]
    described = examples.describe(examples_dir)
    data = {name: described[name] for name in ("source", "resolved", "fallback")}
    write_json(out_dir / "comparison.json", {"data": data, "rows": found})
    picture = plots.comparison(judged)
    (out_dir / "plots").mkdir(exist_ok=True)
    (out_dir / "plots" / "comparison.png").write_bytes(picture)
    html = page.template("comparison.html.j2").render(
        data=data,
        judged=judged,
        missing=[row for row in found if "missing" in row],
        best=best,
        num_examples=judged[0]["num_examples"],
        picture=page.to_data_uri(picture, "image/png"),
    )
    (out_dir / "comparison.html").write_bytes(html.encode("utf-8", "replace"))
    return {
        "num_rows": len(found),
        "num_missing": len(found) - len(judged),
        "best": ", ".join(r["model"] for r in best),
    }


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """Write rows as a Markdown table whose columns stand below each other; what is missing stands below it."""
    lines = [_HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADER))]
    lines.insert(1, tuple("-" * width for width in widths))
    table = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    reasons = [f"{row['model']}: {row['missing']}" for row in rows if "missing" in row]
    return "\n".join([*table, *reasons])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
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
        f"{row['fit_s']:.1f}",
        f"{row['inputs_s']:.1f}",
        f"{row['num_parameters']:,}",
        f"{int8['size_bytes'] / 1e6:.1f}" if int8 else "–",
        f"{int8['latency_ms']:.1f}" if int8 else "–",
    )


def _read(folder: Path) -> list[dict[str, Any]]:
    if (folder / MISSING).exists():
        missing = read_json(folder / MISSING)
        return [{"model": missing["what"], "missing": missing["reason"]}]
    return read_json(folder / ROWS)
