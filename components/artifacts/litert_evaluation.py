"""How good each LiteRT file is on the test split, and whether it may be pushed: `evaluation.json`.

`saved_model.json` has the same figures of the SavedModel, for comparison.
"""

from pathlib import Path
from typing import TypedDict

from components.artifacts.evaluation import Accuracy
from components.storage.files import read_json, write_json

_SAVED_MODEL_FILE = "saved_model.json"


class Measured(Accuracy):
    """A model on the device: latency of one photo from its encoded bytes (median), and the process's peak memory."""

    size_bytes: int
    latency_ms: float
    peak_memory_bytes: int


class LiteRTFile(Measured):
    """A LiteRT file, and whether it may be pushed.

    Attributes:
        name: of the file.
        sha256: of its content.
        agreement: share of the photos on which it predicts the label that the SavedModel predicts.
        refusal_agreement: share of the photos that it refuses as none of the classes, or does not, as the SavedModel
            does; null for a model that does not know its limits.
        passed: whether nothing speaks against it.
        objections: what does.
        notes: what might, and is not shown by so few photos.
    """

    name: str
    sha256: str
    agreement: float
    refusal_agreement: float | None
    passed: bool
    objections: list[str]
    notes: list[str]


class LiteRTEvaluation(TypedDict):
    """`evaluation.json`: the files by kind."""

    files: dict[str, LiteRTFile]


def read_litert_evaluation(litert_evaluation_dir: Path) -> LiteRTEvaluation:
    """Read `evaluation.json`."""
    return read_json(litert_evaluation_dir / "evaluation.json")


def read_passed_files(litert_evaluation_dir: Path) -> dict[str, LiteRTFile]:
    """Read the files that may be pushed, by kind."""
    files = read_litert_evaluation(litert_evaluation_dir)["files"]
    return {kind: file for kind, file in files.items() if file["passed"]}


def write_litert_evaluation(out_dir: Path, evaluation: LiteRTEvaluation) -> None:
    """Write `evaluation.json`."""
    write_json(out_dir / "evaluation.json", evaluation)


def read_saved_model_cost(saved_model_cost_dir: Path) -> Measured:
    """Read `saved_model.json`."""
    return read_json(saved_model_cost_dir / _SAVED_MODEL_FILE)


def write_saved_model_cost(out_dir: Path, measured: Measured) -> None:
    """Write `saved_model.json`."""
    write_json(out_dir / _SAVED_MODEL_FILE, measured)
