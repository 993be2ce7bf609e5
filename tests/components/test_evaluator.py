"""Blessing: real evaluation of SavedModels whose predictions are known beforehand."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from components import evaluator
from components.artifacts.baseline import Baseline, write_baseline
from components.artifacts.blessing import read_blessing
from components.artifacts.evaluation import read_metrics, read_predictions
from components.artifacts.examples import IndexRow, read_encoded, read_examples, read_index
from components.errors import EvaluationError
from components.evaluator import EvaluatorOptions
from components.reporting import metrics
from components.storage.bucket import Bucket
from components.storage.files import write_json
from export.spec import SPEC, read_spec

NO_BASELINE: Baseline = {"version": None, "path": None}


class Oracle(tf.Module):
    """Knows some photos by heart, and what to predict for each."""

    def __init__(self, photos: list[bytes], predictions: NDArray[np.float32]) -> None:
        super().__init__()
        self.photos, self.predictions = tf.constant(photos), tf.constant(predictions)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")], autograph=False)
    def serve(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        number = tf.argmax(image_bytes[:, tf.newaxis] == self.photos[tf.newaxis], axis=1)
        return {"probabilities": tf.gather(self.predictions, number)}


@pytest.fixture(scope="module")
def rows(examples_dir: Path) -> list[IndexRow]:
    return [row for row in read_index(examples_dir) if row["split"] == "test"]


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory, rows: list[IndexRow], examples_dir: Path) -> Callable[..., Path]:
    """Return the function that saves a model which is right on the first `num_right` of the ten test photos."""
    photos = [encoded for _, encoded in read_encoded(examples_dir, "test")]

    @cache
    def save(num_right: int, *, class_names: tuple[str, ...] = (), nan: bool = False) -> Path:
        labels = np.array([row["label"] for row in rows])
        predicted = np.where(np.arange(10) < num_right, labels, (labels + 1) % 5)
        predictions = np.full((10, 5), 0.05, np.float32)
        predictions[np.arange(10), predicted] = 0.8
        if nan:
            predictions[-1] = np.nan
        folder = tmp_path_factory.mktemp("model")
        module = Oracle(photos, predictions)
        tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
        write_spec(folder, list(class_names) or read_examples(examples_dir)["class_names"])
        return folder

    return save


def write_spec(folder: Path, class_names: list[str]) -> None:
    write_json(folder / SPEC, {"class_names": class_names, "data": {"source": "drawn"}, "weights": {"source": "none"}})


@pytest.fixture
def evaluate(tmp_path: Path, examples_dir: Path) -> Callable[..., dict[str, Any]]:
    def evaluate(export_dir: Path, *, baseline: Path | str | None = None, **options: Any) -> dict[str, Any]:
        """Return the summary, with the contents of the files that were written."""
        write_baseline(tmp_path, {"version": 7, "path": str(baseline)} if baseline else NO_BASELINE)
        summary = evaluator.evaluate(
            examples_dir=examples_dir,
            export_dir=export_dir,
            baseline_dir=tmp_path,
            out_dir=tmp_path,
            options=EvaluatorOptions(**options),
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
    assert [check["name"] for check in result["blessing"]["checks"]] == ["finite", "min_accuracy", "baseline"]
    assert result["accuracy"] == result["metrics"]["accuracy"] == 0.9
    assert result["metrics"]["baseline"] is None


def test_metrics_are_those_of_the_predictions_whatever_the_size_of_a_batch(
    save: Any, evaluate: Any, rows: list[IndexRow]
) -> None:
    results = [evaluate(save(7), batch_size=size) for size in (3, 32)]
    assert results[0] == results[1]
    measured = results[0]["metrics"]
    assert measured["num_examples"] == 10
    assert measured["loss"] == pytest.approx(-(7 * np.log(0.8) + 3 * np.log(0.05)) / 10)
    assert measured["accuracy_interval"] == metrics.wilson_interval(7, 10)
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
    ("num_right", "max_accuracy_drop", "blessed"), [(8, 0.0, True), (7, 0.0, False), (7, 0.15, True), (6, 0.15, False)]
)
def test_model_worse_than_the_pushed_one_is_not_blessed(
    save: Any, evaluate: Any, num_right: int, max_accuracy_drop: float, blessed: bool
) -> None:
    result = evaluate(save(num_right), baseline=save(8), max_accuracy_drop=max_accuracy_drop)
    assert result["metrics"]["baseline"] == {"version": 7, "accuracy": 0.8, "num_examples": 10}
    assert result["blessed"] is blessed
    assert list(failed(result)) == ([] if blessed else ["baseline"])
    if not blessed:
        assert "is below that of the pushed version 7 on the same photos (0.8000)" in failed(result)["baseline"]


def test_a_baseline_at_a_url_is_measured_as_one_here(save, evaluate, s3):
    Bucket(s3.url).upload(save(8), "models/flowers/7", marker="saved_model.pb")
    result = evaluate(save(9), baseline=f"{s3.url}/models/flowers/7")
    assert result["metrics"]["baseline"] == {"version": 7, "accuracy": 0.8, "num_examples": 10}


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


@pytest.mark.parametrize("wrong", [{"min_accuracy": 1.1}, {"max_accuracy_drop": -0.1}, {"batch_size": 0}], ids=str)
def test_options_out_of_range_are_errors(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be .*Received: "):
        EvaluatorOptions(**wrong)
