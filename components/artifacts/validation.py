"""`validation.json`: the anomalies of a data set; and `schema.json`: what its source's data looked like so far."""

from pathlib import Path
from typing import Literal, TypedDict

from components.errors import DataError
from components.storage.files import read_json, write_json


class Anomaly(TypedDict):
    """A broken rule; an error stops the run, a warning does not."""

    severity: Literal["error", "warning"]
    rule: str
    message: str


class Validation(TypedDict):
    """`validation.json`: the anomalies, and the file name of the schema that was used."""

    anomalies: list[Anomaly]
    schema: str


class Schema(TypedDict):
    """A schema: label shares (0–1) and brightness histogram of train, `min` and `max` of its sizes in pixels."""

    source: str
    class_names: list[str]
    formats: list[str]
    label_distribution: dict[str, float]
    brightness_histogram: list[int]
    width: dict[str, float | None]
    height: dict[str, float | None]


def read_validation(validation_dir: Path) -> Validation:
    """Read `validation.json`."""
    return read_json(validation_dir / "validation.json")


def write_validation(out_dir: Path, validation: Validation, schema: Schema) -> None:
    """Write `validation.json`, and the schema beside it."""
    write_schema(out_dir / "schema.json", schema)
    write_json(out_dir / "validation.json", validation)


def write_schema(path: Path, schema: Schema) -> None:
    """Write a schema."""
    write_json(path, schema)


def read_schema(path: Path) -> Schema:
    """Read a schema.

    Raises:
        DataError: the file does not hold one.
    """
    needed = {"class_names", "formats", "label_distribution", "brightness_histogram"}
    try:
        schema: Schema = read_json(path)
        missing = sorted(needed - schema.keys())
    except (ValueError, AttributeError) as exc:
        raise DataError(f"A schema must be a JSON object. Received: {path}. Delete it and run again.") from exc
    if missing:
        raise DataError(f"A schema must hold {missing}. Received: {path}, without. Delete it and run again.")
    return schema
