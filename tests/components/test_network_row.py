"""A network's row says what it is, and where its numbers come from."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components import network_row
from components.artifacts.comparison_rows import Row, read_rows
from components.artifacts.evaluation import read_metrics
from components.artifacts.litert_evaluation import read_litert_evaluation, write_litert_evaluation
from components.artifacts.manifest import read_manifest
from components.storage.files import read_json, write_json


@pytest.fixture
def folders(artifact: Callable[[str], Path], tmp_path: Path) -> dict[str, Path]:
    """A training that tests may change, its evaluation and that of its files, and the features it began with."""
    return {
        "training_dir": Path(shutil.copytree(artifact("trainer"), tmp_path / "training")),
        "evaluation_dir": artifact("evaluator"),
        "litert_evaluation_dir": artifact("litert_evaluator"),
        "features_dir": artifact("features"),
    }


def describe(folders: dict[str, Path], out_dir: Path, **training: Any) -> Row:
    """Return the row of the training, some of whose values are others."""
    path = folders["training_dir"] / "training.json"
    write_json(path, read_json(path) | training)
    network_row.describe(**folders, out_dir=out_dir)
    (row,) = read_rows(out_dir)
    return row


def test_row_of_a_network_holds_every_column(folders: dict[str, Path], tmp_path: Path) -> None:
    metrics = read_metrics(folders["evaluation_dir"])
    int8 = read_litert_evaluation(folders["litert_evaluation_dir"])["files"]["int8"]
    weights = {"source": "imagenet", "fallback": None}
    assert describe(folders, tmp_path, backbone="mobilenet_v2", weights=weights, num_parameters=1000) == {
        "model": "mobilenet_v2",
        "learns_from": "photos, backbone frozen",
        **{name: metrics[name] for name in ("accuracy", "accuracy_interval", "num_examples", "macro")},
        "elsewhere": None,
        "fit_s": read_manifest(folders["training_dir"])["seconds"],
        "inputs_s": read_manifest(folders["features_dir"])["seconds"],
        "num_parameters": 1000,
        "int8": {name: int8[name] for name in ("accuracy", "size_bytes", "latency_ms")},
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
    weights = {"source": source, "fallback": None}
    assert describe(folders, tmp_path, epochs=epochs, weights=weights)["learns_from"] == learns_from


def test_row_has_the_accuracy_on_photos_from_elsewhere(folders: dict[str, Path], tmp_path: Path) -> None:
    metrics = read_metrics(folders["evaluation_dir"])
    folders["evaluation_dir"] = tmp_path / "evaluation"
    write_json(folders["evaluation_dir"] / "metrics.json", {**metrics, "elsewhere": {"accuracy": 0.5}})
    assert describe(folders, tmp_path)["elsewhere"] == 0.5


def test_a_network_from_scratch_needs_no_features_and_may_have_no_int8_file(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    write_litert_evaluation(tmp_path, {"files": {}})
    folders["litert_evaluation_dir"] = tmp_path
    del folders["features_dir"]
    row = describe(folders, tmp_path, epochs={"scratch": 3})
    assert (row["learns_from"], row["inputs_s"], row["int8"]) == ("photos, from scratch", 0.0, None)
