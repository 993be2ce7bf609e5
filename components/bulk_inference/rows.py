"""The rows of a part as a Parquet file, and what its footer says of them."""

import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from client.classifier_client import ImageError, Prediction
from client.classifier_client.transports.answers import LIMITS
from components.bulk_inference.images import ListedImage

COLUMNS = ("image", "label", "probability", "probabilities", "model_version", "error", *LIMITS)
"""`LIMITS` are null in each row of a model that does not tell them."""
_KEY, _NUM_REFUSED = b"made_from", b"num_refused"


@dataclass(frozen=True)
class Counts:
    """How many rows there are, and of which kinds.

    Attributes:
        num_images: one row for each.
        num_errors: that could not be read.
        num_refused: that look like none of the classes.
        num_without_p_value: of which the model does not tell whether they do.
    """

    num_images: int = 0
    num_errors: int = 0
    num_refused: int = 0
    num_without_p_value: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def __str__(self) -> str:
        """Return them in words; what the model does not tell is not counted as zero."""
        words = [f"{self.num_images} images", f"{self.num_errors} errors"]
        if self.num_images > self.num_errors + self.num_without_p_value:
            words.append(f"{self.num_refused} like none of the classes")
        if self.num_without_p_value:
            words.append(f"{self.num_without_p_value} without a p-value")
        return ", ".join(words)


@dataclass(frozen=True)
class Footer:
    """What a part says of itself.

    Attributes:
        key: of what it is made from; empty in a file that something else wrote.
        counts: of its rows.
    """

    key: str
    counts: Counts


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
            "p_value": pa.float32(),
            "is_known": pa.bool_(),
            "prediction_set": pa.list_(pa.string()),
        }
    )
    rows = [_to_row(image.path, result) for image, result in zip(images, results, strict=True)]
    num_refused = sum(row.get("is_known") is False for row in rows)
    schema = schema.with_metadata({_KEY: key.encode(), _NUM_REFUSED: str(num_refused).encode()})
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
    metadata = footer.metadata or {}
    num_refused = metadata.get(_NUM_REFUSED, b"")
    num_errors = _count_values(footer, "error")
    return Footer(
        key=metadata.get(_KEY, b"").decode(errors="replace"),
        counts=Counts(
            num_images=footer.num_rows,
            num_errors=num_errors,
            num_refused=int(num_refused) if num_refused.isdigit() else 0,
            num_without_p_value=footer.num_rows - num_errors - _count_values(footer, "p_value"),
        ),
    )


def to_text(name: str) -> str:
    """Return a file's name as text, which it need not be."""
    return name.encode(errors="backslashreplace").decode()


def _count_values(footer: Any, name: str) -> int:
    """Return how many values of a column are not null."""
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    columns = [g.column(c) for g in groups for c in range(g.num_columns) if g.column(c).path_in_schema == name]
    return sum(column.num_values - column.statistics.null_count for column in columns if column.statistics)


def _to_row(image: str, result: Prediction | ImageError) -> dict[str, Any]:
    if isinstance(result, ImageError):
        return {"image": to_text(image), "error": to_text(result.reason)}
    return {
        "image": to_text(image),
        "label": result.label,
        "probability": result.probability,
        "probabilities": list(result.probabilities.items()),
        "model_version": result.model_version,
        **{name: getattr(result, name) for name in LIMITS},
    }
