"""A network's row says what it is, and where its numbers come from."""

from pathlib import Path
from typing import Any

import pytest

from components import network_row as rows
from components.storage.files import read_json, write_json


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """A training of a backbone, judged, with an int8 file; its features took 30 s."""
    contents: dict[str, dict[str, Any]] = {
        "training": {
            "training.json": {
                "backbone": "mobilenet_v2",
                "weights": {"source": "imagenet", "fallback": None},
                "num_parameters": 1000,
                "epochs": {"head": 10},
            },
            "manifest.json": {"seconds": 7.0},
        },
        "evaluation": {
            "metrics.json": {
                "accuracy": 0.9,
                "accuracy_interval": [0.8, 0.95],
                "num_examples": 50,
                "macro": {"precision": 0.91, "recall": 0.9, "f1": 0.89},
                "loss": 0.3,
            }
        },
        "litert_evaluation": {
            "evaluation.json": {
                "files": {"int8": {"accuracy": 0.88, "size_bytes": 2_500_000, "latency_ms": 3.5, "name": "m.tflite"}}
            }
        },
        "features": {"manifest.json": {"seconds": 30.0}},
    }
    for name, files in contents.items():
        for file, content in files.items():
            write_json(tmp_path / name / file, content)
    return {f"{name}_dir": tmp_path / name for name in contents}


def describe(folders: dict[str, Path], out_dir: Path) -> dict[str, Any]:
    out_dir.mkdir(exist_ok=True)
    rows.describe(**folders, out_dir=out_dir)
    (row,) = read_json(out_dir / "rows.json")
    return row


def test_row_of_a_network_holds_every_column(folders: dict[str, Path], tmp_path: Path) -> None:
    assert describe(folders, tmp_path / "out") == {
        "model": "mobilenet_v2",
        "learns_from": "photos, backbone frozen",
        "accuracy": 0.9,
        "accuracy_interval": [0.8, 0.95],
        "num_examples": 50,
        "macro": {"precision": 0.91, "recall": 0.9, "f1": 0.89},
        "fit_s": 7.0,
        "inputs_s": 30.0,
        "num_parameters": 1000,
        "int8": {"accuracy": 0.88, "size_bytes": 2_500_000, "latency_ms": 3.5},
    }


@pytest.mark.parametrize(
    ("epochs", "source", "learns_from"),
    [
        ({"head": 1, "fine_tune": 2}, "weights.h5", "photos, fine-tuned"),
        ({"head": 1}, "none", "photos, backbone frozen, random weights"),
    ],
)
def test_row_says_how_a_network_learned(
    folders: dict[str, Path], tmp_path: Path, epochs: dict[str, int], source: str, learns_from: str
) -> None:
    path = folders["training_dir"] / "training.json"
    write_json(path, read_json(path) | {"epochs": epochs, "weights": {"source": source, "fallback": None}})
    assert describe(folders, tmp_path / "out")["learns_from"] == learns_from


def test_a_network_from_scratch_needs_no_features_and_may_have_no_int8_file(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    path = folders["training_dir"] / "training.json"
    write_json(path, read_json(path) | {"epochs": {"scratch": 3}, "weights": {"source": "none", "fallback": None}})
    write_json(folders["litert_evaluation_dir"] / "evaluation.json", {"saved_model": None, "files": {}})
    del folders["features_dir"]
    row = describe(folders, tmp_path / "out")
    assert (row["learns_from"], row["inputs_s"], row["int8"]) == ("photos, from scratch", 0.0, None)
