"""What a version returned for each photo, read from REST or gRPC."""

import base64
import hashlib
import json
import math
import zlib
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MAX_BYTES = 1 << 26
"""Of a request, unpacked: as the local server's --max_request_bytes."""


@dataclass(frozen=True)
class Prediction:
    """Probabilities of labels, and whether the photo is known; `None` of a model that knows no limits.

    Raises:
        ValueError: a probability is no number; such a response is as wrong as an error.
    """

    probabilities: Mapping[str, float]
    is_known: bool | None = None

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.probabilities.values())):
            raise ValueError(f"probabilities must be finite. Received: {dict(self.probabilities)}")

    @property
    def label(self) -> str:
        """The label of the highest probability."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


def estimate_drop(stable: Prediction, canary: Prediction) -> float:
    """Return how much worse the canary's label is, by the mean of what both models' probabilities say.

    Where the labels are the same it is 0; with the models exchanged it has the other sign. It is as good as the
    probabilities are calibrated.

    >>> round(estimate_drop(Prediction({"daisy": 0.9, "rose": 0.1}), Prediction({"daisy": 0.4, "rose": 0.6})), 2)
    0.3
    """
    before, after = stable.label, canary.label
    models = (stable.probabilities, canary.probabilities)
    return sum(model.get(before, 0.0) - model.get(after, 0.0) for model in models) / 2


def to_predictions(outputs: Any) -> list[Prediction]:
    """Return the predictions in a model's outputs; none where they are not a classifier's."""
    try:
        rows = zip(outputs["classes"], outputs["probabilities"], strict=True)
        known = outputs.get("is_known") or [None] * len(outputs["classes"])
        return [
            Prediction({str(name): float(value) for name, value in zip(*row, strict=True)}, is_known)
            for row, is_known in zip(rows, known, strict=True)
            if row[0]
        ]
    except (LookupError, TypeError, ValueError, AttributeError):
        return []


def read_rest_predictions(content: bytes) -> list[Prediction]:
    """Read a REST response, in rows or columns."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return []
    if not isinstance(document, dict):
        return []
    if isinstance(rows := document.get("predictions"), list) and all(isinstance(row, dict) for row in rows):
        return to_predictions({name: [row.get(name) for row in rows] for name in (rows[0] if rows else ())})
    return to_predictions(document.get("outputs"))


def read_rest_photos(body: bytes, encoding: str = "") -> list[str]:
    """Return the SHA-256 of each photo in a REST request: of the encoded image, or of its JSON where it is pixels.

    Args:
        body: as it came.
        encoding: its `Content-Encoding`.
    """
    try:
        if "gzip" in encoding.lower():
            unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
            body = unpack.decompress(body, _MAX_BYTES)
            if not unpack.eof:
                return []
        document = json.loads(body)
        rows = document["instances"] if "instances" in document else document["inputs"]
        if isinstance(rows, dict) and "b64" not in rows and len(rows) == 1:
            rows = next(iter(rows.values()))
        return [_digest(row) for row in (rows if isinstance(rows, list) else [rows])]
    except (ValueError, RecursionError, LookupError, TypeError, zlib.error):
        return []


def digest_all(photos: Sequence[str]) -> str:
    """Return what stands for all photos of a request."""
    return photos[0] if len(photos) == 1 else hashlib.sha256(" ".join(photos).encode()).hexdigest()


def _digest(row: Any) -> str:
    if isinstance(row, dict) and len(row) == 1 and "b64" not in row:
        row = next(iter(row.values()))
    if isinstance(row, dict) and isinstance(row.get("b64"), str):
        try:
            return hashlib.sha256(base64.b64decode(row["b64"])).hexdigest()
        except Base64Error:
            pass  # the server refuses it
    return hashlib.sha256(json.dumps(row).encode()).hexdigest()
