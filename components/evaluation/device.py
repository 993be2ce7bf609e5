"""What a model costs on a device: time and memory of a process that does nothing else."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from components.artifacts.examples import read_encoded
from components.artifacts.litert_evaluation import Measured
from components.errors import EvaluationError
from components.reporting import metrics
from export.measure import Measured as Output

PROGRAM = "export.measure"
TIMEOUT_S = 3600.0
_ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def open_test_photos(examples_dir: Path) -> Iterator[Path]:
    """Yield a folder of the encoded test photos, in their order by name."""
    with TemporaryDirectory() as folder:
        for position, (_, encoded) in enumerate(read_encoded(examples_dir, "test")):
            (Path(folder) / f"{position:08d}").write_bytes(encoded)
        yield Path(folder)


def run_alone(model: Path, photos_dir: Path, *, num_photos: int | None = None, timeout_s: float = TIMEOUT_S) -> Output:
    """Classify the photos of a folder, or the first of them, with the program that measures a model.

    Raises:
        EvaluationError: the model cannot be run, or not in time.
    """
    arguments = (str(model.absolute()), str(photos_dir), *([str(num_photos)] if num_photos else []))
    command = [sys.executable, "-m", PROGRAM, *arguments]
    try:
        done = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, timeout=timeout_s)
    except subprocess.TimeoutExpired as exc:
        raise EvaluationError(
            f"{model} must classify the test photos within {timeout_s:g} s (litert_evaluator.timeout_s), and does not. "
            "Allow more, or look whether the machine has the memory."
        ) from exc
    except subprocess.CalledProcessError as exc:
        lines = exc.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {exc.returncode}"]
        raise EvaluationError(f"{model} must run in a process of its own, and does not: {lines[-1]}") from exc
    return json.loads(done.stdout)


def describe(right: NDArray[np.bool_], num_bytes: int, output: Output) -> Measured:
    """Return how good and how costly a model is; `right` `bool [N]` are the photos that it classifies rightly."""
    return {
        **metrics.accuracy(right),
        "size_bytes": num_bytes,
        "latency_ms": output["latency_ms"],
        "peak_memory_bytes": output["peak_memory_bytes"],
    }
