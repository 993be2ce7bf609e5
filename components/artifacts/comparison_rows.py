"""`rows.json`: one or more models of the comparison, all judged on the same test photos; `comparison.json`: all."""

from pathlib import Path
from typing import TypedDict, final

from components.artifacts.evaluation import LabelMetrics
from components.artifacts.examples import DataOrigin
from components.artifacts.litert_evaluation import LiteRTFile
from components.artifacts.manifest import read_missing
from components.storage.files import read_json, write_json


class Int8(TypedDict):
    """A model's int8 LiteRT file; latency of one photo, decoding included."""

    accuracy: float
    size_bytes: int
    latency_ms: float


@final
class Row(TypedDict):
    """A model.

    Attributes:
        elsewhere: accuracy on photos of another collection; null where there are none, or it was not tried on them.
        fit_s: its own training.
        inputs_s: the time to make what it learns from, shared with other rows.
    """

    model: str
    learns_from: str
    accuracy: float
    accuracy_interval: list[float]
    num_examples: int
    macro: dict[str, float]
    elsewhere: float | None
    fit_s: float
    inputs_s: float
    num_parameters: int
    int8: Int8 | None


@final
class MissingRow(TypedDict):
    """A model that is not available, and why."""

    model: str
    missing: str


class Comparison(TypedDict):
    """`comparison.json`: the rows of all models, and the data they were judged on."""

    data: DataOrigin
    rows: list[Row | MissingRow]


def make_row(
    *,
    model: str,
    learns_from: str,
    measured: LabelMetrics,
    fit_s: float,
    inputs_s: float,
    num_parameters: int,
    int8: LiteRTFile | None = None,
    elsewhere: float | None = None,
) -> Row:
    """Return the row of a model that was judged."""
    return {
        "model": model,
        "learns_from": learns_from,
        "accuracy": measured["accuracy"],
        "accuracy_interval": measured["accuracy_interval"],
        "num_examples": measured["num_examples"],
        "macro": measured["macro"],
        "elsewhere": elsewhere,
        "fit_s": round(fit_s, 2),
        "inputs_s": round(inputs_s, 2),
        "num_parameters": num_parameters,
        "int8": int8
        and {"accuracy": int8["accuracy"], "size_bytes": int8["size_bytes"], "latency_ms": int8["latency_ms"]},
    }


def read_rows(rows_dir: Path) -> list[Row | MissingRow]:
    """Read the rows of a step, or why its model is not available."""
    if missing := read_missing(rows_dir):
        return [{"model": missing["what"], "missing": missing["reason"]}]
    return read_json(rows_dir / "rows.json")


def write_rows(out_dir: Path, rows: list[Row]) -> None:
    """Write `rows.json`."""
    write_json(out_dir / "rows.json", rows)


def write_comparison(out_dir: Path, comparison: Comparison) -> None:
    """Write `comparison.json`."""
    write_json(out_dir / "comparison.json", comparison)
