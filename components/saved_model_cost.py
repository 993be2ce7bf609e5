"""Measure time and memory of the SavedModel in a process that holds nothing else, as those of the LiteRT files are.

Reads the test examples, the SavedModel and its evaluation; writes `saved_model.json`. It says what a LiteRT file saves.
No push waits for it.
"""

from pathlib import Path

import numpy as np

from components.artifacts.evaluation import read_predictions
from components.artifacts.litert_evaluation import write_saved_model_cost
from components.artifacts.summary import Summary
from components.evaluation import device
from components.storage.files import size_bytes

NUM_PHOTOS = 50
"""Enough for the latency; the accuracy is known."""


def measure(*, examples_dir: Path, export_dir: Path, evaluation_dir: Path, out_dir: Path) -> Summary:
    """Measure the SavedModel.

    Raises:
        EvaluationError: it cannot be run, or not in time.
    """
    right = np.array([each["predicted"] == each["label"] for each in read_predictions(evaluation_dir)])
    with device.open_test_photos(examples_dir) as photos_dir:
        output = device.run_alone(export_dir, photos_dir, num_photos=NUM_PHOTOS)
    write_saved_model_cost(out_dir, device.describe(right, size_bytes(export_dir), output))
    return {"latency_ms": round(output["latency_ms"], 1), "peak_memory_mb": round(output["peak_memory_bytes"] / 1e6)}
