"""The rows of a part as a Parquet file, and what its footer says of them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from client.classifier_client import ImageError, Prediction
from components.bulk_inference.images import ListedImage

_KEY = b"made_from"


@dataclass(frozen=True)
class Footer:
    """What a part says of itself.

    Attributes:
        key: of what it is made from; empty in a file that something else wrote.
        num_rows: one for each image.
        num_errors: rows with an error.
    """

    key: str
    num_rows: int
    num_errors: int


def encode_rows(images: Sequence[ListedImage], results: Sequence[Prediction | ImageError], *, key: str) -> bytes:
    """Return a Parquet file with the row of each image: where it could not be read, `error` alone."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema(
        {
            "image": pa.string(),
            "label": pa.string(),
            "probability": pa.float32(),
            "probabilities": pa.map_(pa.string(), pa.float32()),
            "model_version": pa.string(),
            "error": pa.string(),
        },
        metadata={_KEY: key.encode()},
    )
    rows = [_to_row(image.path, result) for image, result in zip(images, results, strict=True)]
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows, schema), buffer)
    return buffer.getvalue()


def read_footer(content: bytes | None) -> Footer | None:
    """Return what a Parquet file says of itself; `None` where it is gone, or cut short or else damaged."""
    from pyarrow import parquet

    try:
        footer = parquet.read_metadata(io.BytesIO(content or b""))
    except (ValueError, OSError):  # pyarrow's, of what it cannot parse
        return None
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    errors = [g.column(c) for g in groups for c in range(g.num_columns) if g.column(c).path_in_schema == "error"]
    return Footer(
        key=(footer.metadata or {}).get(_KEY, b"").decode(errors="replace"),
        num_rows=footer.num_rows,
        num_errors=sum(column.num_values - column.statistics.null_count for column in errors if column.statistics),
    )


def to_text(name: str) -> str:
    """Return a file's name as text, which it need not be."""
    return name.encode(errors="backslashreplace").decode()


def _to_row(image: str, result: Prediction | ImageError) -> dict[str, Any]:
    if isinstance(result, ImageError):
        return {"image": to_text(image), "error": to_text(result.reason)}
    return {
        "image": to_text(image),
        "label": result.label,
        "probability": result.probability,
        "probabilities": list(result.probabilities.items()),
        "model_version": result.model_version,
    }
