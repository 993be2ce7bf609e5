"""The JSON of TensorFlow Serving's REST responses: https://www.tensorflow.org/tfx/serving/api_rest."""

import json
from collections.abc import Mapping
from typing import Any

from serving.local_server.errors import invalid_argument
from serving.local_server.json_tensors import shortest, to_json
from serving.local_server.servable import Array


def write_predictions(outputs: Mapping[str, Array], *, rows: bool) -> bytes:
    """Write the outputs of a predict request, in the form that it came in; a single output is written bare."""
    if not rows:
        columns = {name: to_json(name, array) for name, array in outputs.items()}
        return _dump({"outputs": columns if len(columns) > 1 else next(iter(columns.values()))})
    batch_size: int | None = None
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        if not len(array):
            raise invalid_argument(f"Tensor name: {name} has invalid batch size: 0")
        if batch_size not in (None, len(array)):
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {batch_size}"
            )
        batch_size = len(array)
    lists = {name: to_json(name, array) for name, array in outputs.items()}
    if len(lists) == 1:
        return _dump({"predictions": next(iter(lists.values()))})
    return _dump({"predictions": [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]})


def write_classifications(result: Any) -> bytes:
    """Write a `ClassificationResult`: for each example its `[label, score]` pairs."""
    return _dump(
        {"results": [[[c.label, shortest(c.score)] for c in found.classes] for found in result.classifications]}
    )


def write_regressions(result: Any) -> bytes:
    """Write a `RegressionResult`: a number for each example."""
    return _dump({"results": [shortest(found.value) for found in result.regressions]})


def write_error(message: str) -> bytes:
    return _dump({"error": message})


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
