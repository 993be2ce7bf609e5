"""Blessing: real evaluation of SavedModels whose predictions are known beforehand."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components import evaluator
from components.artifacts.baseline import Baseline, write_baseline
from components.artifacts.blessing import read_blessing
from components.artifacts.evaluation import read_metrics, read_predictions
from components.artifacts.examples import IndexRow, read_encoded, read_examples, read_index
from components.artifacts.learned_photos import LEARNED_PHOTOS, to_id, write_learned_photos
from components.artifacts.manifest import MANIFEST
from components.errors import EvaluationError
from components.evaluator import EvaluatorOptions
from components.reporting import metrics
from components.storage.bucket import Bucket
from components.storage.files import read_json, write_json
from components.storage.models import LINEAGE
from export.spec import read_spec
from tests.components.oracles import save_oracle, write_spec

NO_BASELINE: Baseline = {"version": None, "path": None}


@pytest.fixture(scope="module")
def rows(examples_dir: Path) -> list[IndexRow]:
    return [row for row in read_index(examples_dir) if row["split"] == "test"]


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory, rows: list[IndexRow], examples_dir: Path) -> Callable[..., Path]:
    """Return the function that saves a model which is right on the first `num_right` of the ten test photos.

    It has learned from the training photos of the examples, and from the last `num_learned` test photos.
    """
    photos = [encoded for _, encoded in read_encoded(examples_dir, "test")]

    @cache
    def save(
        num_right: int, *, class_names: tuple[str, ...] = (), nan: bool = False, num_learned: int | None = 0
    ) -> Path:
        labels = np.array([row["label"] for row in rows])
        predicted = np.where(np.arange(10) < num_right, labels, (labels + 1) % 5)
        predictions = np.full((10, 5), 0.05, np.float32)
        predictions[np.arange(10), predicted] = 0.8
        if nan:
            predictions[-1] = np.nan
        folder = tmp_path_factory.mktemp("model")
        save_oracle(folder, photos, {"probabilities": predictions})
        write_spec(folder, list(class_names) or read_examples(examples_dir)["class_names"])
        if num_learned is not None:
            learned = [{**row, "split": "train"} for row in rows[10 - num_learned :]]
            write_learned_photos(folder, [*read_index(examples_dir), *learned])  # type: ignore[list-item]
        return folder

    return save


@pytest.fixture
def evaluate(tmp_path: Path, examples_dir: Path) -> Callable[..., dict[str, Any]]:
    def evaluate(
        export_dir: Path, *, baseline: Path | str | None = None, earlier: Path | None = None, **options: Any
    ) -> dict[str, Any]:
        """Return the summary, with the contents of the files that were written."""
        write_baseline(tmp_path, {"version": 7, "path": str(baseline)} if baseline else NO_BASELINE)
        summary = evaluator.evaluate(
            examples_dir=examples_dir,
            export_dir=export_dir,
            baseline_dir=tmp_path,
            out_dir=tmp_path,
            options=EvaluatorOptions(**options),
            earlier_dir=earlier,
        )
        return {
            **summary,
            "metrics": read_metrics(tmp_path),
            "blessing": read_blessing(tmp_path),
            "predictions": read_predictions(tmp_path),
        }

    return evaluate


def failed(result: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["message"] for check in result["blessing"]["checks"] if not check["passed"]}


def test_good_model_is_blessed_where_there_is_nothing_to_compare_with(save: Any, evaluate: Any) -> None:
    result = evaluate(save(9))
    assert result["blessed"] is result["blessing"]["blessed"] is True
    names = ["finite", "min_accuracy", "majority", "min_recall", "baseline", "calibration", "refusal"]
    assert [check["name"] for check in result["blessing"]["checks"]] == names
    assert result["accuracy"] == result["metrics"]["accuracy"] == 0.9
    assert all(result["metrics"][name] is None for name in ("baseline", "limits", "elsewhere", "corruptions"))


def test_metrics_are_those_of_the_predictions_whatever_the_size_of_a_batch(
    save: Any, evaluate: Any, rows: list[IndexRow]
) -> None:
    results = [evaluate(save(7), batch_size=size) for size in (3, 32)]
    assert results[0] == results[1]
    measured = results[0]["metrics"]
    assert measured["num_examples"] == 10
    assert measured["loss"] == pytest.approx(-(7 * np.log(0.8) + 3 * np.log(0.05)) / 10)
    assert measured["brier"] == pytest.approx((7 * 0.05 + 3 * (0.95**2 + 0.8**2 + 3 * 0.05**2)) / 10)
    assert measured["accuracy_interval"] == metrics.wilson_interval(7, 10)
    # Its temperature is a half: before, 0.8 beside four times 0.05 was the half beside four eighths.
    assert measured["uncalibrated"]["temperature"] == 0.5
    assert measured["uncalibrated"]["loss"] == pytest.approx(-(7 * np.log(0.5) + 3 * np.log(0.125)) / 10)
    assert (measured["data"], measured["weights"]) == ({"source": "drawn"}, {"source": "none"})
    predictions = results[0]["predictions"]
    assert [p["filename"] for p in predictions] == [row["filename"] for row in rows]
    assert sum(p["label"] == p["predicted"] for p in predictions) == 7
    assert predictions[0]["probabilities"][predictions[0]["predicted"]] == 0.8


def test_slices_divide_the_photos_and_add_up(save: Any, evaluate: Any, rows: list[IndexRow]) -> None:
    slices = evaluate(save(6))["metrics"]["slices"]
    assert "format" not in slices, "all of them are JPEG"
    for parts in slices.values():
        assert len(parts) > 1
        assert sum(part["num_examples"] for part in parts.values()) == 10
        assert sum(part["accuracy"] * part["num_examples"] for part in parts.values()) == pytest.approx(6)
    dark = [n for n, row in enumerate(rows) if row["brightness"] < 0.3]
    if "brightness" in slices and dark:
        assert slices["brightness"]["dark"]["num_examples"] == len(dark)


def test_slice_values_follow_their_bounds() -> None:
    row = {"brightness": 0.29, "contrast": 0.14, "width": 223, "height": 224, "format": "gif"}
    found = {name: value_of(row) for name, value_of in evaluator._SLICES.items()}
    assert found == {"brightness": "dark", "contrast": "low", "shape": "tall", "size": "small", "format": "gif"}
    row |= {"brightness": 0.61, "contrast": 0.15, "width": 224}
    found = {name: value_of(row) for name, value_of in evaluator._SLICES.items()}
    assert found == {"brightness": "bright", "contrast": "normal", "shape": "square", "size": "large", "format": "gif"}


@pytest.mark.parametrize(("num_right", "blessed"), [(5, False), (6, True)])
def test_accuracy_below_the_least_is_not_blessed(save: Any, evaluate: Any, num_right: int, blessed: bool) -> None:
    result = evaluate(save(num_right), min_accuracy=0.6)
    assert result["blessed"] is blessed
    if not blessed:
        assert failed(result) == {"min_accuracy": "accuracy 0.5000 is below evaluator.min_accuracy (0.6)"}


@pytest.mark.parametrize(
    ("num_right", "max_accuracy_drop", "blessed"), [(10, 0.0, True), (9, 0.0, True), (4, 0.0, False), (4, 0.3, True)]
)
def test_a_model_that_is_shown_to_be_worse_than_the_pushed_one_is_not_blessed(
    save: Any, evaluate: Any, num_right: int, max_accuracy_drop: float, blessed: bool
) -> None:
    result = evaluate(
        save(num_right), baseline=save(10), max_accuracy_drop=max_accuracy_drop, min_accuracy=0, max_loss_rise=9
    )
    baseline = result["metrics"]["baseline"]
    assert (baseline["version"], baseline["accuracy"], baseline["num_examples"]) == (7, 1.0, 10)
    assert baseline["num_only_baseline_right"] == 10 - num_right
    assert baseline["num_only_candidate_right"] == 0
    assert result["blessed"] is blessed
    assert list(failed(result)) == ([] if blessed else ["baseline"])
    if not blessed:
        assert "accuracy 0.4000 is below that of the pushed version 7 (1.0000)" in failed(result)["baseline"]
        assert "6 are right with the pushed one alone and 0 with this one alone" in failed(result)["baseline"]


def test_one_photo_less_is_too_few_to_tell(save: Any, evaluate: Any, caplog: pytest.LogCaptureFixture) -> None:
    result = evaluate(save(9), baseline=save(10))
    check = result["blessing"]["checks"][4]
    assert check["passed"]
    assert check["message"].endswith("p = 0.500; too few to tell")
    assert "too few to tell" in caplog.text


def test_a_baseline_that_knows_the_test_photos_by_heart_does_not_block_its_successors(save: Any, evaluate: Any) -> None:
    # It is right on all; of the seven photos that it has not learned from this one knows as many.
    result = evaluate(save(7), baseline=save(10, num_learned=3))
    baseline = result["metrics"]["baseline"]
    assert (baseline["num_examples"], baseline["accuracy"], baseline["candidate_accuracy"]) == (7, 1.0, 1.0)
    assert result["blessed"]
    assert result["metrics"]["num_examples"] == 10


@pytest.mark.parametrize(("num_learned", "reason"), [(10, "learned from every test photo"), (None, "carries no list")])
@pytest.mark.parametrize("require_baseline", [False, True])
def test_a_baseline_that_cannot_be_judged_is_said_and_an_option_decides(
    save: Any, evaluate: Any, num_learned: int | None, reason: str, require_baseline: bool
) -> None:
    result = evaluate(save(7), baseline=save(10, num_learned=num_learned), require_baseline=require_baseline)
    check = result["blessing"]["checks"][4]
    assert result["blessed"] is check["passed"] is not require_baseline
    assert f"cannot be compared with the pushed version 7: it has {reason}" in check["message"].replace(
        "it c", "it has c"
    )
    assert result["metrics"]["baseline"]["accuracy"] is None


def test_a_model_carries_what_it_learned_from(export_dir: Path, examples_dir: Path, evaluate: Any) -> None:
    learned = [to_id(row["sha256"]) for row in read_index(examples_dir) if row["split"] in ("train", "validation")]
    assert sorted(learned) == read_json(export_dir / LEARNED_PHOTOS)
    assert len(learned) == 40
    # The same examples: all test photos are new to both, and the same model is not worse than itself.
    result = evaluate(export_dir, baseline=export_dir, min_accuracy=0, must_beat_majority=False)
    assert result["blessed"]
    assert result["metrics"]["baseline"]["num_examples"] == 10
    assert result["metrics"]["baseline"]["p_value"] == 0.5


def measured(confusion: list[list[int]]) -> Any:
    labels = np.repeat(np.arange(len(confusion)), np.sum(confusion, axis=1))
    predicted = np.concatenate([np.repeat(np.arange(len(row)), row) for row in confusion])
    return metrics.summarize_classes(predicted, labels, [f"class {n}" for n in range(len(confusion))])


@pytest.mark.parametrize(
    ("confusion", "passed"),
    [
        ([[19, 0], [1, 0]], False),  # names the majority for everything
        ([[18, 1], [0, 1]], False),  # as often right, otherwise
        ([[19, 0], [0, 1]], True),
        ([[2, 8], [8, 2]], False),
        ([[4, 6], [3, 7]], True),
    ],
)
def test_a_model_no_better_than_the_majority_is_not_blessed(confusion: list[list[int]], passed: bool) -> None:
    found = measured(confusion)
    assert evaluator._check_majority(found, EvaluatorOptions())["passed"] is passed
    assert evaluator._check_majority(found, EvaluatorOptions(must_beat_majority=False))["passed"]


@pytest.mark.parametrize(
    ("confusion", "passed", "message"),
    [
        ([[90, 0], [15, 0]], False, "recall is below evaluator.min_recall (0.25): class 1 (0 of 15)"),
        ([[90, 0], [5, 0]], True, "too few photos to tell: class 1 (0 of 5)"),
        ([[90, 0], [15, 5]], True, "at least evaluator.min_recall (0.25); the lowest, of class 1, is 0.2500"),
    ],
)
def test_a_class_that_is_hardly_ever_recognised_is_not_blessed(
    confusion: list[list[int]], passed: bool, message: str
) -> None:
    check = evaluator._check_recall(measured(confusion), EvaluatorOptions())
    assert check["passed"] is passed
    assert message in check["message"]
    assert evaluator._check_recall(measured(confusion), EvaluatorOptions(min_recall=0))["passed"]


def test_accuracy_at_the_bar_is_enough_however_it_is_rounded() -> None:
    for num_right in range(1, 50):
        found = {"accuracy": num_right / 49}
        bar = sum([1 / 49] * num_right)  # as exact as the sum of its parts
        assert evaluator._check_accuracy(found, EvaluatorOptions(min_accuracy=min(bar, 1)))["passed"]  # type: ignore[arg-type]


def test_a_baseline_is_not_called_again_where_its_own_evaluation_is_known(save, evaluate, tmp_path):
    export_dir, pushed, earlier = save(8), tmp_path / "pushed", tmp_path / "earlier"
    evaluate(export_dir)
    earlier.mkdir()
    shutil.copy2(tmp_path / "outputs.npz", earlier)
    shutil.copytree(export_dir, pushed)
    (pushed / "saved_model.pb").write_bytes(b"it cannot be called")
    write_json(pushed / LINEAGE, {"model": {"digest": "of the export"}})
    write_json(earlier / MANIFEST, {"inputs": {"export_dir": {"digest": "of the export"}}})
    found = evaluate(save(9), baseline=pushed, earlier=earlier)["metrics"]["baseline"]
    assert (found["accuracy"], found["candidate_accuracy"], found["num_only_candidate_right"]) == (0.8, 0.9, 1)
    write_json(earlier / MANIFEST, {"inputs": {"export_dir": {"digest": "of another"}}})
    with pytest.raises(EvaluationError, match="must load"):
        evaluate(save(9), baseline=pushed, earlier=earlier)


def test_a_baseline_at_a_url_is_measured_as_one_here(save, evaluate, s3):
    Bucket(s3.url).upload(save(8), "models/flowers/7", marker="saved_model.pb")
    result = evaluate(save(9), baseline=f"{s3.url}/models/flowers/7")
    assert result["metrics"]["baseline"]["version"] == 7
    assert result["metrics"]["baseline"]["accuracy"] == 0.8


def test_model_of_other_classes_than_the_pushed_one_is_not_blessed(save: Any, evaluate: Any) -> None:
    result = evaluate(save(10), baseline=save(3, class_names=("cat", "dog")))
    assert not result["blessed"]
    assert "the pushed version 7 has other classes" in failed(result)["baseline"]
    assert result["metrics"]["baseline"]["accuracy"] is None


def test_model_that_predicts_no_number_is_not_blessed(save: Any, evaluate: Any) -> None:
    result = evaluate(save(10, nan=True))
    assert not result["blessed"]
    assert failed(result) == {"finite": "every probability and the loss are not finite numbers"}


def test_reasons_against_a_model_are_logged(save: Any, evaluate: Any, caplog: pytest.LogCaptureFixture) -> None:
    evaluate(save(0))
    assert "not blessed: accuracy 0.0000 is below" in caplog.text


def test_model_that_cannot_be_loaded_or_called_is_an_error(save: Any, evaluate: Any, tmp_path: Path) -> None:
    write_spec(tmp_path / "empty", ["a"])
    with pytest.raises(EvaluationError, match=r"must load and take encoded photos on serving_default: .*empty"):
        evaluate(tmp_path / "empty")
    damaged = Path(shutil.copytree(save(9), tmp_path / "damaged"))
    (damaged / "saved_model.pb").write_bytes(b"\xff" * 100)
    with pytest.raises(EvaluationError, match="must load and take"):
        evaluate(damaged)
    tf.saved_model.save(tf.Module(), str(tmp_path / "mute"))
    write_spec(tmp_path / "mute", ["a"])
    with pytest.raises(EvaluationError, match="must load and take"):
        evaluate(tmp_path / "mute")
    good = save(9)
    write_spec(tmp_path / "mute", read_spec(good)["class_names"])
    write_learned_photos(tmp_path / "mute", [])
    with pytest.raises(EvaluationError, match="must load and take"):
        evaluate(good, baseline=tmp_path / "mute")


def test_nothing_to_evaluate_on_is_an_error(examples_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(examples_dir, tmp_path, dirs_exist_ok=True)
    lines = (examples_dir / "index.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "index.jsonl").write_text("".join(line for line in lines if '"split": "test"' not in line))
    with pytest.raises(EvaluationError, match="evaluated on the test split, and it has no examples"):
        evaluator.evaluate(
            examples_dir=tmp_path,
            export_dir=tmp_path,
            baseline_dir=tmp_path,
            out_dir=tmp_path,
            options=EvaluatorOptions(),
        )


@pytest.mark.parametrize(
    "wrong",
    [{"min_accuracy": 1.1}, {"max_accuracy_drop": -0.1}, {"min_recall": 2}, {"confidence": 1}, {"batch_size": 0}],
    ids=str,
)
def test_options_out_of_range_are_errors(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be .*Received: "):
        EvaluatorOptions(**wrong)
