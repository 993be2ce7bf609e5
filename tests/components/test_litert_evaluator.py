"""Each LiteRT file is judged by what the thin client makes of it, in a process without TensorFlow."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components import litert_evaluator
from components.errors import EvaluationError
from components.litert_evaluator import LiteRTEvaluatorOptions
from components.storage.files import read_json
from export import measure as litert_worker

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["dynamic", "float16", "float32", "int8"]

Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture
def evaluate(tmp_path: Path, examples_dir: Path, export_dir: Path, evaluation_dir: Path, litert_dir: Path) -> Evaluate:
    def evaluate(files_dir: Path = litert_dir, **options: Any) -> dict[str, Any]:
        litert_evaluator.evaluate(
            examples_dir=examples_dir,
            export_dir=export_dir,
            evaluation_dir=evaluation_dir,
            litert_dir=files_dir,
            out_dir=tmp_path,
            options=LiteRTEvaluatorOptions(**options),
        )
        return read_json(tmp_path / "evaluation.json")

    return evaluate


def test_every_file_is_measured_on_the_whole_split(evaluate: Evaluate, litert_dir: Path, evaluation_dir: Path) -> None:
    found = evaluate(max_accuracy_drop=1, min_agreement=0)
    assert sorted(found["files"]) == KINDS
    sizes = [row["size_bytes"] for row in found["files"].values()]
    assert sizes == sorted(sizes, reverse=True)
    measured = read_json(evaluation_dir / "metrics.json")
    assert found["saved_model"]["accuracy"] == measured["accuracy"]
    for kind, row in found["files"].items():
        assert row["name"] == f"flowers_{kind}.tflite"
        assert row["num_examples"] == measured["num_examples"] == 10
        assert row["size_bytes"] == (litert_dir / row["name"]).stat().st_size
        assert 0 < row["latency_ms"] < 10_000
        assert (row["passed"], row["objections"]) == (True, [])
    # The same pixels to two grey levels: no photo is so close to the border between two classes.
    assert found["files"]["float32"]["accuracy"] == measured["accuracy"]
    assert found["files"]["float32"]["agreement"] == 1.0
    # TensorFlow alone takes 300 MB.
    assert all(20e6 < row["peak_memory_bytes"] < 200e6 for row in found["files"].values())
    assert found["saved_model"]["peak_memory_bytes"] > 200e6


def test_nothing_was_converted_nothing_is_measured(evaluate: Evaluate, tmp_path: Path) -> None:
    assert evaluate(tmp_path) == {"saved_model": None, "files": {}}


def test_a_file_that_answers_one_class_for_everything_is_not_passed() -> None:
    labels, expected, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), np.zeros(4, np.int64)
    options = LiteRTEvaluatorOptions(max_accuracy_drop=1, min_agreement=0)
    found = litert_evaluator._judge(predicted, labels, expected, options)
    assert (found["passed"], found["objections"]) == (False, ["it answers one class for everything"])
    # So does the SavedModel itself, which is for the evaluator to judge.
    assert litert_evaluator._judge(predicted, labels, predicted, options)["passed"]


def test_a_file_that_is_less_accurate_or_disagrees_is_not_passed() -> None:
    labels, expected = np.arange(10) % 5, np.arange(10) % 5
    predicted = np.array([0, 1, 2, 3, 4, 0, 1, 2, 3, -1])  # the last one could not be read
    judge = litert_evaluator._judge
    good = judge(predicted, labels, expected, LiteRTEvaluatorOptions(max_accuracy_drop=0.1, min_agreement=0.9))
    assert good == {"agreement": 0.9, "passed": True, "objections": []}
    bad = judge(predicted, labels, expected, LiteRTEvaluatorOptions(max_accuracy_drop=0.05, min_agreement=0.95))
    assert bad["objections"] == [
        "its accuracy is 0.1000 below the SavedModel's, more than litert_evaluator.max_accuracy_drop (0.05)",
        "it agrees with the SavedModel on 0.9000 of the photos, less than litert_evaluator.min_agreement (0.95)",
    ]


def test_an_answer_that_is_missing_or_no_number_is_no_class() -> None:
    answers = [{"a": 0.2, "b": 0.8}, None, {"a": float("nan"), "b": 0.5}, {"b": 0.1, "a": 0.9}]
    assert litert_evaluator._predicted(answers, ["a", "b"]).tolist() == [1, -1, -1, 0]


def test_a_file_that_does_not_run_is_an_error(evaluate: Evaluate, tmp_path: Path) -> None:
    (tmp_path / "flowers_int8.tflite").write_bytes(b"no model")
    with pytest.raises(EvaluationError, match=r"flowers_int8\.tflite must run in a process of its own, .*b'no model'"):
        evaluate(tmp_path)


def test_a_file_that_takes_too_long_is_an_error(evaluate: Evaluate) -> None:
    with pytest.raises(EvaluationError, match=r"must answer every test photo within litert_evaluator\.timeout_s"):
        evaluate(timeout_s=0.01)


@pytest.mark.parametrize(("option", "value"), [("max_accuracy_drop", -0.1), ("min_agreement", 1.1), ("timeout_s", 0)])
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{option} must be .*Received: {value}"):
        LiteRTEvaluatorOptions(**{option: value})


def test_the_worker_imports_no_tensorflow_for_a_file(litert_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "client" / "samples", tmp_path / "photos")
    script = (
        "import sys; from pathlib import Path; from export import measure\n"
        "measure.main(Path(sys.argv[1]), Path(sys.argv[2]), 2)\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", script, str(litert_dir / "flowers_int8.tflite"), str(tmp_path / "photos")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)["predictions"]
    assert [round(sum(answer.values()), 2) for answer in answers] == [1.0, 1.0]


def test_the_worker_goes_on_past_a_photo_that_cannot_be_read(
    litert_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "0").write_bytes(b"no photo")
    (tmp_path / "1").write_bytes((ROOT / "client" / "samples" / "rose.jpg").read_bytes())
    litert_worker.main(litert_dir / "flowers_int8.tflite", tmp_path)
    first, second = json.loads(capsys.readouterr().out)["predictions"]
    assert first is None
    assert len(second) == 5
