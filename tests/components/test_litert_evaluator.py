"""Each LiteRT file is judged by what the thin client makes of it, in a process without TensorFlow."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from components import litert_evaluator
from components.artifacts.blessing import Check, write_blessing
from components.artifacts.evaluation import read_metrics, read_predictions, write_predictions
from components.artifacts.litert_evaluation import (
    LiteRTEvaluation,
    LiteRTFile,
    read_litert_evaluation,
    read_saved_model_cost,
)
from components.errors import EvaluationError
from components.litert_evaluator import LiteRTEvaluatorOptions
from export import measure

ROOT = Path(__file__).resolve().parents[2]
Evaluate = Callable[..., LiteRTEvaluation]


@pytest.fixture
def evaluate(tmp_path: Path, inputs: Callable[[str], dict[str, Path]]) -> Evaluate:
    def evaluate(litert_dir: Path, *, evaluation_dir: Path | None = None, **options: float) -> LiteRTEvaluation:
        folders = {**inputs("litert_evaluator"), "litert_dir": litert_dir}
        folders |= {"evaluation_dir": evaluation_dir} if evaluation_dir else {}
        litert_evaluator.evaluate(**folders, out_dir=tmp_path, options=LiteRTEvaluatorOptions(**options))
        return read_litert_evaluation(tmp_path)

    return evaluate


def test_every_file_is_measured_on_the_whole_split(
    artifact: Callable[[str], Path], litert_dir: Path, evaluation_dir: Path
) -> None:
    evaluation, metrics = read_litert_evaluation(artifact("litert_evaluator")), read_metrics(evaluation_dir)
    files, saved_model = evaluation["files"], read_saved_model_cost(artifact("saved_model_cost"))
    assert sorted(files) == ["dynamic", "float16", "float32", "int8"]
    sizes = [row["size_bytes"] for row in files.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert saved_model["accuracy"] == metrics["accuracy"]
    for kind, row in files.items():
        assert row["name"] == f"flowers_{kind}.tflite"
        assert row["num_examples"] == metrics["num_examples"] == 10
        assert row["size_bytes"] == (litert_dir / row["name"]).stat().st_size
        assert 0 < row["latency_ms"] < 10_000
        assert (row["passed"], row["objections"], row["notes"]) == (True, [], [])
        # So few known photos refuse none.
        assert row["refusal_agreement"] == 1.0
    # The same pixels to two grey levels: no photo is so close to the border between two classes.
    assert files["float32"]["accuracy"] == metrics["accuracy"]
    assert files["float32"]["agreement"] == 1.0
    # TensorFlow alone takes 300 MB.
    assert all(20e6 < row["peak_memory_bytes"] < 200e6 for row in files.values())
    assert saved_model["peak_memory_bytes"] > 200e6


def test_nothing_was_converted_nothing_is_measured(evaluate: Evaluate, tmp_path: Path) -> None:
    assert evaluate(tmp_path) == {"files": {}}


def test_files_of_a_model_that_is_not_blessed_are_not_measured(
    evaluate: Evaluate, evaluation_dir: Path, litert_dir: Path, tmp_path: Path
) -> None:
    refused = shutil.copytree(evaluation_dir, tmp_path / "refused")
    write_blessing(refused, [Check(name="a", passed=False, message="")], validator="evaluator")
    assert evaluate(litert_dir, evaluation_dir=refused) == {"files": {}}


def judge(
    predicted: list[int],
    labels: list[int],
    expected: list[int],
    is_known: tuple[Sequence[bool | None], Sequence[bool | None]] | None = None,
    **options: float,
) -> LiteRTFile:
    """Judge labels, and of some what is known to the file and to the SavedModel."""
    found, known = is_known or ([None] * len(labels),) * 2
    output: measure.Measured = {
        "predictions": [],
        "p_values": [],
        "is_known": list(found),
        "latency_ms": 1.0,
        "peak_memory_bytes": 1,
    }
    rows = (np.array(row) for row in (predicted, labels, expected))
    return litert_evaluator._judge(Path(__file__), output, *rows, known, LiteRTEvaluatorOptions(**options))


def judge_refusals(found: Sequence[bool | None], expected: Sequence[bool | None], **options: float) -> LiteRTFile:
    labels = [0, 1] * (len(found) // 2)
    return judge(labels, labels, labels, (found, expected), **options)


def test_a_file_that_refuses_what_the_saved_model_refuses_is_passed() -> None:
    expected = [True] * 194 + [False] * 6
    file = judge_refusals([*expected[:-1], True], expected)
    assert (file["refusal_agreement"], file["passed"], file["notes"]) == (0.995, True, [])


def test_a_file_that_is_shown_to_refuse_other_photos_is_not_passed() -> None:
    expected = [True] * 192 + [False] * 8
    file = judge_refusals([False] * 12 + expected[12:], expected)
    assert (file["refusal_agreement"], file["passed"]) == (0.94, False)
    assert file["objections"] == [
        "it refuses what the SavedModel refuses on 0.9400 of the photos, less than "
        "litert_evaluator.min_refusal_agreement (0.98)"
    ]
    assert judge_refusals([False] * 12 + expected[12:], expected, min_refusal_agreement=0.9)["passed"]
    # Of 50 photos, two are too few to tell.
    few = judge_refusals([False] * 2 + expected[2:50], expected[:50])
    assert (few["refusal_agreement"], few["passed"], len(few["notes"])) == (0.96, True, 1)
    assert few["notes"][0].endswith("(0.98); 50 photos are too few to tell")


def test_refusals_of_random_weights_are_chance_and_measured_alone(
    evaluate: Evaluate, litert_dir: Path, evaluation_dir: Path, tmp_path: Path
) -> None:
    """The files refuse nothing here; the model, whose weights are random, is made to refuse all."""
    refusing = tmp_path / "evaluation"
    shutil.copytree(evaluation_dir, refusing)
    refused = [{**prediction, "is_known": False} for prediction in read_predictions(evaluation_dir)]
    write_predictions(refusing, cast(Any, refused))
    for row in evaluate(litert_dir, evaluation_dir=refusing)["files"].values():
        assert (row["refusal_agreement"], row["passed"], row["objections"]) == (0.0, True, [])


def test_a_file_that_refuses_nothing_is_not_passed_although_it_agrees_on_most_photos() -> None:
    expected = [True] * 294 + [False] * 6
    file = judge_refusals([True] * 300, expected)
    assert (file["refusal_agreement"], file["objections"]) == (
        0.98,
        ["it refuses 0 of the 6 photos that the SavedModel refuses"],
    )


def test_a_file_that_does_not_tell_what_it_knows_is_not_passed_unless_the_saved_model_does_not_either() -> None:
    assert not judge_refusals([None] * 20, [True] * 20)["passed"]
    for found in ([None] * 20, [True] * 20):
        file = judge_refusals(found, [None] * 20)
        assert (file["refusal_agreement"], file["objections"], file["notes"]) == (None, [], [])


def test_a_file_that_predicts_one_class_for_everything_is_not_passed() -> None:
    labels, options = [0, 0, 0, 1], {"max_accuracy_drop": 1, "min_agreement": 0}
    file = judge([0, 0, 0, 0], labels, [0, 0, 1, 1], **options)
    assert (file["passed"], file["objections"]) == (False, ["it predicts one class for everything"])
    # So does the SavedModel itself, which is for the evaluator to judge.
    assert judge([0, 0, 0, 0], labels, [0, 0, 0, 0], **options)["passed"]


def test_a_file_that_is_shown_to_be_less_accurate_or_to_disagree_is_not_passed() -> None:
    labels = [0, 1, 2, 3, 4] * 20
    wrong = [*labels[:-10], *([1, 0] * 5)]
    predicted = [w if w != label else 2 for w, label in zip(wrong, labels, strict=True)]
    predicted[:-10] = labels[:-10]
    good = judge(predicted, labels, labels, max_accuracy_drop=0.1, min_agreement=0.9)
    assert (good["agreement"], good["passed"], good["objections"], good["notes"]) == (0.9, True, [], [])
    bad = judge(predicted, labels, labels, max_accuracy_drop=0.02, min_agreement=0.97)
    assert bad["objections"] == [
        "its accuracy is 0.1000 below the SavedModel's, more than litert_evaluator.max_accuracy_drop (0.02)",
        "it agrees with the SavedModel on 0.9000 of the photos, less than litert_evaluator.min_agreement (0.97)",
    ]
    assert not bad["passed"]


def test_few_photos_are_too_few_to_tell_and_a_note_says_so() -> None:
    labels = [0, 1, 2, 3, 4]
    expected = [0, 1, 2, 3, 3]
    # Better than the SavedModel: that it disagrees does not speak against it.
    file = judge(labels, labels, expected)
    assert (file["accuracy"], file["agreement"], file["objections"], file["notes"]) == (1.0, 0.8, [], [])
    file = judge(expected, labels, labels)
    assert (file["passed"], file["objections"]) == (True, [])
    assert all(note.endswith("; 5 photos are too few to tell") for note in file["notes"])
    assert len(file["notes"]) == 2


def test_a_drop_of_seven_points_shows_on_274_photos() -> None:
    labels = [0, 1] * 137
    predicted = [*labels[:-20], *[1 - label for label in labels[-20:]]]
    assert not judge(predicted, labels, labels)["passed"]


def test_a_prediction_that_is_no_number_is_not_passed() -> None:
    labels = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    file = judge([*labels[:-1], -1], labels, labels, max_accuracy_drop=1, min_agreement=0)
    assert file["objections"] == ["1 of 10 predictions are missing, or no numbers"]


def test_a_prediction_that_is_missing_or_no_number_is_no_class() -> None:
    predictions = [{"a": 0.2, "b": 0.8}, None, {"a": float("nan"), "b": 0.5}, {"b": 0.1, "a": 0.9}]
    assert litert_evaluator._to_labels(predictions, ["a", "b"]).tolist() == [1, -1, -1, 0]


def test_a_file_that_does_not_run_is_an_error(evaluate: Evaluate, tmp_path: Path) -> None:
    (tmp_path / "flowers_int8.tflite").write_bytes(b"no model")
    with pytest.raises(EvaluationError, match=r"flowers_int8\.tflite must run in a process of its own, .*b'no model'"):
        evaluate(tmp_path)


def test_a_file_that_takes_too_long_is_an_error(evaluate: Evaluate, litert_dir: Path) -> None:
    with pytest.raises(
        EvaluationError, match=r"must classify the test photos within .* \(litert_evaluator\.timeout_s\)"
    ):
        evaluate(litert_dir, timeout_s=0.01)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_accuracy_drop", -0.1),
        ("min_agreement", 1.1),
        ("min_refusal_agreement", -0.1),
        ("confidence", 0.4),
        ("timeout_s", 0),
    ],
)
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
    predictions = json.loads(done.stdout)["predictions"]
    assert [round(sum(prediction.values()), 2) for prediction in predictions] == [1.0, 1.0]


def test_the_worker_goes_on_past_a_photo_that_cannot_be_read(
    litert_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "0").write_bytes(b"no photo")
    (tmp_path / "1").write_bytes((ROOT / "client" / "samples" / "rose.jpg").read_bytes())
    measure.main(litert_dir / "flowers_int8.tflite", tmp_path)
    measured = json.loads(capsys.readouterr().out)
    first, second = measured["predictions"]
    assert first is None
    assert len(second) == 5
    assert (measured["is_known"], measured["p_values"][0]) == ([None, True], None)
    assert 0 < measured["p_values"][1] <= 1


def test_the_worker_says_of_a_file_what_it_says_of_the_saved_model(
    litert_dir: Path, export_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = []
    for model in (litert_dir / "flowers_float32.tflite", export_dir):
        measure.main(model, ROOT / "client" / "samples")
        outputs.append(json.loads(capsys.readouterr().out))
    of_file, of_saved_model = outputs
    assert of_file["is_known"] == of_saved_model["is_known"] == [True] * 5
    # Of five known photos there are six ranks; JPEG decoders differ by a grey level or two.
    np.testing.assert_allclose(of_file["p_values"], of_saved_model["p_values"], atol=1 / 6 + 1e-6)
