"""The statistics, computed from examples made by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components import statistics
from components.artifacts.statistics import Statistics, read_statistics
from components.errors import DataError
from tests.components.hand_made import make_row, write


def compute(tmp_path: Path, rows: list[Any], **changes: Any) -> Statistics:
    statistics.compute(examples_dir=write(tmp_path / "examples", rows, **changes), out_dir=tmp_path / "out")
    return read_statistics(tmp_path / "out")


def test_statistics_count_examples_classes_and_formats_of_each_split(tmp_path: Path) -> None:
    rows = [make_row(), make_row(label=1, format="png"), make_row(label=1), make_row("test")]
    splits = compute(tmp_path, rows)["splits"]
    counts = {split: numbers["num_examples"] for split, numbers in splits.items()}
    assert counts == {"train": 3, "validation": 0, "test": 1}
    assert splits["train"]["per_class"] == {"daisy": 1, "tulip": 2}
    assert splits["test"]["per_class"] == {"daisy": 1, "tulip": 0}
    assert splits["train"]["formats"] == {"jpeg": 2, "png": 1}


def test_statistics_describe_sizes(tmp_path: Path) -> None:
    rows = [make_row(width=100, height=100), make_row(width=200, height=100), make_row(width=600, height=200)]
    train = compute(tmp_path, rows)["splits"]["train"]
    assert train["width"] == {"min": 100, "median": 200, "mean": 300, "max": 600}
    assert train["height"] == {"min": 100, "median": 100, "mean": pytest.approx(400 / 3), "max": 200}
    assert train["aspect_ratio"] == {"min": 1, "median": 2, "mean": 2, "max": 3}


def test_statistics_describe_brightness_and_contrast(tmp_path: Path) -> None:
    values = [0.0, 0.05, 0.55, 1.0]
    rows = [make_row(brightness=value, contrast=1 - value) for value in values]
    train = compute(tmp_path, rows)["splits"]["train"]
    spread = pytest.approx(np.std(values))
    assert train["brightness"] == {
        "mean": pytest.approx(0.4),
        "std": spread,
        "histogram": [2, 0, 0, 0, 0, 1, 0, 0, 0, 1],
    }
    assert train["contrast"] == {"mean": pytest.approx(0.6), "std": spread, "histogram": [1, 0, 0, 0, 1, 0, 0, 0, 0, 2]}


def test_statistics_of_an_empty_split_are_null(tmp_path: Path) -> None:
    empty = compute(tmp_path, [make_row()])["splits"]["validation"]
    assert empty["num_examples"] == 0
    assert empty["width"] == {"min": None, "median": None, "mean": None, "max": None}
    assert empty["brightness"] == {"mean": None, "std": None, "histogram": [0] * 10}


def test_statistics_describe_a_split_that_the_examples_do_not_name_as_empty(tmp_path: Path) -> None:
    splits = {"train": {"num_examples": 1, "per_class": {"daisy": 1}, "shards": []}}
    result = compute(tmp_path, [make_row()], splits=splits)
    assert result["splits"]["test"]["num_examples"] == 0


def test_statistics_carry_the_source_and_the_excluded_files(tmp_path: Path) -> None:
    rules = ["unreadable", "duplicate", "unreadable"]
    excluded = [{"file": f"{i}.jpg", "split": None, "rule": rule, "reason": "-"} for i, rule in enumerate(rules)]
    result = compute(tmp_path, [make_row()], excluded=excluded)
    assert result["num_excluded"] == 3
    assert result["excluded_by_rule"] == {"duplicate": 1, "unreadable": 2}
    assert result["excluded"] == excluded
    assert (result["source"], result["resolved"], result["fallback"]) == ("auto", "synthetic", "no network")


def test_compute_returns_the_key_numbers(tmp_path: Path) -> None:
    examples_dir = write(tmp_path / "examples", [make_row(), make_row("test")])
    assert statistics.compute(examples_dir=examples_dir, out_dir=tmp_path / "out") == {
        "num_classes": 2,
        "num_train": 1,
        "num_validation": 0,
        "num_test": 1,
        "num_excluded": 0,
    }


WRONG = [
    {"split": "dev"},
    {"label": 2},
    {"label": -1},
    {"width": 0},
    {"height": 1.5},
    {"brightness": 1.1},
    {"contrast": float("nan")},
    {"brightness": None},
    {"format": None},
]


@pytest.mark.parametrize("line", ["{", "[]", "{}", *(json.dumps(make_row(**wrong)) for wrong in WRONG)])
def test_statistics_refuse_a_malformed_row_by_its_line(tmp_path: Path, line: str) -> None:
    examples_dir = write(tmp_path / "examples", [make_row()])
    with (examples_dir / "index.jsonl").open("a", encoding="utf-8") as index:
        index.write(f"{line}\n")
    with pytest.raises(DataError, match=r"line 2 of .*index\.jsonl"):
        statistics.compute(examples_dir=examples_dir, out_dir=tmp_path / "out")


def test_statistics_refuse_an_index_that_lost_examples(tmp_path: Path) -> None:
    examples_dir = write(tmp_path / "examples", [make_row(), make_row()])
    (examples_dir / "index.jsonl").write_text(json.dumps(make_row()) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"Received: .*for train.*--force examples"):
        statistics.compute(examples_dir=examples_dir, out_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()
