"""What a model knows of its limits: measured on test photos, foreign ones and others, and gated."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components import evaluator
from components.artifacts.baseline import write_baseline
from components.artifacts.blessing import read_blessing
from components.artifacts.evaluation import read_metrics, read_predictions
from components.artifacts.examples import IndexRow, read_encoded, read_examples, read_index
from components.artifacts.learned_photos import write_learned_photos
from components.errors import DataError, EvaluationError
from components.evaluator import EvaluatorOptions
from components.reporting import metrics
from components.storage.files import read_json
from pipelines import local_runner
from pipelines.folders import Folders
from tests import tiny_pipeline
from tests.components.oracles import save_oracle, write_spec

NUM_FOREIGN = 40
SPEC = {"refused_share": 0.03, "coverage": 0.95}


@pytest.fixture(scope="module")
def rows(examples_dir: Path) -> list[IndexRow]:
    return [row for row in read_index(examples_dir) if row["split"] == "test"]


@pytest.fixture(scope="module")
def class_names(examples_dir: Path) -> list[str]:
    return read_examples(examples_dir)["class_names"]


@pytest.fixture(scope="module")
def foreign_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of one colour each, in folders of folders, and two files that are none."""
    folder = tmp_path_factory.mktemp("foreign")
    for number in range(NUM_FOREIGN):
        path = folder / f"{number % 2}" / "deep" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (5 * number, 90, 200)).save(path)
    (folder / "README.txt").write_text("Things that are no flowers.")
    (folder / "0" / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.fixture(scope="module")
def save(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[IndexRow],
    examples_dir: Path,
    class_names: list[str],
    foreign_dir: Path,
) -> Callable[..., Path]:
    """Return the function that saves a model which knows the ten test photos, and the foreign ones after them."""
    photos = [encoded for _, encoded in read_encoded(examples_dir, "test")]
    photos += [path.read_bytes() for path in sorted(foreign_dir.rglob("*.png"))]
    labels = np.array([row["label"] for row in rows] + [0] * NUM_FOREIGN)

    def save(*, p_values: Any = None, confidence: float = 0.8, leave_out: str = "") -> Path:
        """Save a model that is right on all; photos at a p-value of at most 0.03 are refused."""
        probabilities = np.full((len(photos), 5), (1 - confidence) / 4, np.float32)
        probabilities[np.arange(len(photos)), labels] = confidence
        outputs: dict[str, Any] = {"probabilities": probabilities}
        if p_values is not None:
            p_values = np.broadcast_to(np.float32(p_values), len(photos))
            sets = probabilities >= 0.19
            outputs |= {"p_value": p_values, "is_known": p_values > 0.03, "prediction_set": sets}
        outputs.pop(leave_out, None)
        folder = tmp_path_factory.mktemp("model")
        save_oracle(folder, photos, outputs)
        write_spec(folder, class_names, limits=SPEC)
        write_learned_photos(folder, read_index(examples_dir))
        return folder

    return save


@pytest.fixture
def evaluate(tmp_path: Path, examples_dir: Path) -> Callable[..., dict[str, Any]]:
    def evaluate(export_dir: Path, *, baseline: Path | None = None, **options: Any) -> dict[str, Any]:
        """Return the metrics, the checks by name and the predictions."""
        write_baseline(tmp_path, {"version": 7 if baseline else None, "path": str(baseline) if baseline else None})
        evaluator.evaluate(
            examples_dir=examples_dir,
            export_dir=export_dir,
            baseline_dir=tmp_path,
            out_dir=tmp_path,
            options=EvaluatorOptions(**options),
        )
        assert not list(tmp_path.glob(".*"))
        return {
            "metrics": read_metrics(tmp_path),
            "checks": {check["name"]: check for check in read_blessing(tmp_path)["checks"]},
            "predictions": read_predictions(tmp_path),
        }

    return evaluate


def known(*first: float) -> list[float]:
    """Return p-values: these for the first test photos, 0.5 for the others, and 0.01 for half of the foreign ones."""
    return [*first, *[0.5] * (10 - len(first)), *[0.01, 0.5] * (NUM_FOREIGN // 2)]


def test_limits_are_those_of_the_outputs(save: Any, evaluate: Any, rows: list[IndexRow]) -> None:
    result = evaluate(save(p_values=known(0.02, 0.1)), batch_size=4)
    limits = result["metrics"]["limits"]
    assert limits["refused"] == {"share": 0.1, "interval": metrics.wilson_interval(1, 10), "num_examples": 10}
    assert limits["covered"]["share"] == limits["mean_set_size"] == 1
    assert limits["set_sizes"] == [0, 10, 0, 0, 0, 0]
    assert limits["accepted"] == {**metrics.accuracy(np.ones(9, bool))}
    assert (limits["expected_refused_share"], limits["expected_coverage"]) == (0.03, 0.95)
    assert limits["risk_coverage"][-1] == {"coverage": 1.0, "error": 0.0}
    assert sum(each["num_examples"] for each in limits["p_values"]) == 10
    assert limits["foreign"] is None
    first = result["predictions"][0]
    assert (first["p_value"], first["is_known"], first["prediction_set"]) == (0.02, False, [rows[0]["label"]])
    assert "0.1000 of 10 test photos are refused; no other model" in result["checks"]["refusal"]["message"]
    assert "foreign" not in result["checks"]


def test_sets_have_the_most_probable_label_first(save: Any, evaluate: Any, rows: list[IndexRow]) -> None:
    result = evaluate(save(p_values=0.5, confidence=0.22))
    for row, prediction in zip(rows, result["predictions"], strict=True):
        assert prediction["prediction_set"][0] == row["label"]
        assert sorted(prediction["prediction_set"]) == [0, 1, 2, 3, 4]
    assert result["metrics"]["limits"]["set_sizes"] == [0, 0, 0, 0, 0, 10]


def test_a_model_without_limits_has_none(save: Any, evaluate: Any, foreign_dir: Path) -> None:
    result = evaluate(save(), foreign_photos=str(foreign_dir))
    assert result["metrics"]["limits"] is None
    assert {result["predictions"][0][name] for name in ("p_value", "is_known", "prediction_set")} == {None}
    for name in ("refusal", "foreign"):
        assert result["checks"][name]["passed"]
        assert "this model refuses nothing: it knows no limits" in result["checks"][name]["message"]


def test_a_model_with_some_of_the_limits_is_refused(save: Any, evaluate: Any) -> None:
    with pytest.raises(EvaluationError, match=r"all of them\. Received: p_value, prediction_set alone"):
        evaluate(save(p_values=0.5, leave_out="is_known"))


def test_foreign_photos_are_held_against_the_test_photos(
    save: Any, evaluate: Any, foreign_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = evaluate(save(p_values=known(0.01)), foreign_photos=str(foreign_dir))
    foreign = result["metrics"]["limits"]["foreign"]
    assert foreign["refused"] == metrics.share(np.arange(NUM_FOREIGN) % 2 == 0)
    # Of the test photos nine are above one half and tie with the other; one ties with the first half.
    assert foreign["auroc"] == pytest.approx(0.9 * 0.75 + 0.1 * 0.25)
    assert (foreign["num_unreadable"], foreign["folder"]) == (2, str(foreign_dir))
    assert sum(each["num_examples"] for each in foreign["p_values"]) == NUM_FOREIGN
    assert "2 of 42 files" in caplog.text
    message = "0.5000 of 40 foreign photos are let through; no other model has been pushed"
    assert message in result["checks"]["foreign"]["message"]


def test_a_folder_without_an_image_is_an_error_before_the_model_runs(evaluate: Any, export_dir: Path, tmp_path: Path):
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="must hold some"):
        evaluator.describe_source(EvaluatorOptions(foreign_photos=str(tmp_path / "none")))
    with pytest.raises(EvaluationError, match=r"foreign_photos must be a folder of this machine\. Received: gone"):
        evaluator.describe_source(EvaluatorOptions(foreign_photos="gone"))
    (tmp_path / "none" / "a.txt").write_text("a")
    write_spec(tmp_path / "no_model", ["a"])
    for option in ("foreign_photos", "other_photos"):
        (tmp_path / "none" / "a").mkdir(exist_ok=True)
        (tmp_path / "none" / "a" / "b.jpg").write_text("a")
        with pytest.raises(EvaluationError, match=rf"evaluator.{option} must hold images\. .* can be read"):
            evaluate(tmp_path / "no_model", **{option: str(tmp_path / "none")})


def test_the_content_of_the_folders_is_a_part_of_what_the_step_reads(tmp_path: Path) -> None:
    (tmp_path / "daisy").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "daisy" / "a.png")
    options = EvaluatorOptions(foreign_photos=str(tmp_path), other_photos=str(tmp_path))
    before = evaluator.describe_source(options)
    assert evaluator.describe_source(options) == before
    Image.new("RGB", (8, 8), "red").save(tmp_path / "daisy" / "b.png")
    after = evaluator.describe_source(options)
    assert all(before[name] != after[name] for name in ("foreign_photos", "other_photos"))
    assert evaluator.describe_source(EvaluatorOptions()) == {}


def test_photos_from_elsewhere_are_judged_by_their_folders(
    evaluate: Any, export_dir: Path, class_names: list[str], tmp_path: Path
) -> None:
    for number, name in enumerate(class_names[1:]):
        (tmp_path / "other" / name).mkdir(parents=True)
        for red in (40, 240):
            Image.new("RGB", (40, 30), (red, 60 * number, 90)).save(tmp_path / "other" / name / f"{red}.png")
    (tmp_path / "other" / class_names[1] / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    options = {"min_accuracy": 0, "min_recall": 0, "must_beat_majority": False}
    elsewhere = evaluate(export_dir, other_photos=str(tmp_path / "other"), **options)["metrics"]["elsewhere"]
    assert (elsewhere["num_examples"], elsewhere["num_unreadable"]) == (8, 1)
    assert elsewhere["accuracy_interval"][0] <= elsewhere["accuracy"] <= elsewhere["accuracy_interval"][1]
    assert elsewhere["limits"]["refused"]["num_examples"] == elsewhere["limits"]["covered"]["num_examples"] == 8
    assert 1 <= elsewhere["limits"]["mean_set_size"] <= 5
    (tmp_path / "other" / class_names[0][:-1]).mkdir()
    (tmp_path / "other" / class_names[0][:-1] / "1.jpg").write_bytes(b"a")
    with pytest.raises(EvaluationError, match=f"Did you mean {class_names[0]}"):
        evaluate(export_dir, other_photos=str(tmp_path / "other"))


def test_labels_of_photos_from_elsewhere_are_the_models(
    save: Any, evaluate: Any, rows: list[IndexRow], class_names: list[str], examples_dir: Path, tmp_path: Path
) -> None:
    for number, (row, (_, encoded)) in enumerate(zip(rows, read_encoded(examples_dir, "test"), strict=True)):
        if row["label"] != 1:  # so that labels and folders are counted otherwise
            folder = tmp_path / "other" / class_names[row["label"]]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.jpg").write_bytes(encoded)
    elsewhere = evaluate(save(p_values=0.5), other_photos=str(tmp_path / "other"))["metrics"]["elsewhere"]
    assert (elsewhere["num_examples"], elsewhere["accuracy"]) == (8, 1.0)
    assert elsewhere["limits"]["covered"]["share"] == 1.0


def test_corruptions_are_judged_on_the_validation_photos(evaluate: Any, export_dir: Path) -> None:
    options = {"min_accuracy": 0, "min_recall": 0, "must_beat_majority": False, "corruptions": True}
    results = [evaluate(export_dir, batch_size=size, **options)["metrics"]["corruptions"] for size in (2, 32)]
    assert list(results[0]) == ["as they are", "blurred", "noisy", "JPEG", "darkened", "brightened", "cropped"]
    assert {each["num_examples"] for each in results[0].values()} == {5}
    for name, each in results[0].items():
        # A batch of another size is summed in another order.
        assert each["loss"] == pytest.approx(results[1][name]["loss"], rel=1e-4)
        assert 0 <= each["refused"]["share"] <= 1
    assert len({each["loss"] for each in results[0].values()}) == 7


@pytest.mark.parametrize(("confidence", "passed"), [(0.8, True), (0.78, True), (0.5, False)])
def test_a_model_that_is_shown_to_be_calibrated_worse_is_not_blessed(
    save: Any, evaluate: Any, confidence: float, passed: bool
) -> None:
    check = evaluate(save(confidence=confidence), baseline=save(confidence=0.8))["checks"]["calibration"]
    assert check["passed"] is passed
    verdict = "is not shown to be" if passed else "is"
    loss = -np.log(confidence)
    figures = f"its cross-entropy {loss:.4f} {verdict} above that of the pushed version 7 (0.2231) by more than"
    assert figures in check["message"]


def test_a_rise_within_the_margin_is_calibrated_as_well(save: Any, evaluate: Any) -> None:
    result = evaluate(save(confidence=0.5), baseline=save(confidence=0.8), max_loss_rise=0.5)
    assert result["checks"]["calibration"]["passed"]
    assert result["metrics"]["baseline"]["loss"]["candidate"] == pytest.approx(np.log(2))


@pytest.mark.parametrize(("num_refused", "passed"), [(0, True), (1, True), (6, False)])
def test_a_model_that_is_shown_to_refuse_more_test_photos_is_not_blessed(
    save: Any, evaluate: Any, num_refused: int, passed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = known(*[0.01] * num_refused), known()
    result = evaluate(save(p_values=ours), baseline=save(p_values=theirs))
    check, pair = result["checks"]["refusal"], result["metrics"]["baseline"]["refused"]
    assert check["passed"] is passed
    assert (pair["num_only_candidate"], pair["num_only_baseline"], pair["num_examples"]) == (num_refused, 0, 10)
    assert f"{num_refused / 10:.4f} of 10 test photos are refused" in check["message"]
    assert f"{num_refused} with this one alone and 0 with the pushed one alone" in check["message"]
    assert check["message"].endswith("too few to tell") is (num_refused == 1)


@pytest.mark.parametrize(("share", "passed"), [(0.5, True), (0.52, True), (1.0, False)])
def test_a_model_that_is_shown_to_let_more_foreign_photos_through_is_not_blessed(
    save: Any, evaluate: Any, foreign_dir: Path, share: float, passed: bool
) -> None:
    num_through = int(share * NUM_FOREIGN)
    ours = [0.5] * (10 + num_through) + [0.01] * (NUM_FOREIGN - num_through)
    theirs = [0.5] * (10 + NUM_FOREIGN // 2) + [0.01] * (NUM_FOREIGN // 2)
    result = evaluate(save(p_values=ours), baseline=save(p_values=theirs), foreign_photos=str(foreign_dir))
    check = result["checks"]["foreign"]
    assert check["passed"] is passed
    assert f"{share:.4f} of 40 foreign photos are let through" in check["message"].replace(
        "0.5000 of", f"{share:.4f} of"
    )
    assert "0.5000 of the pushed version 7" in check["message"]
    assert result["metrics"]["baseline"]["let_through"]["num_examples"] == NUM_FOREIGN


def test_a_pushed_model_without_limits_is_said_and_passes(save: Any, evaluate: Any, foreign_dir: Path) -> None:
    result = evaluate(save(p_values=known(0.01)), baseline=save(), foreign_photos=str(foreign_dir))
    for name in ("refusal", "foreign"):
        check = result["checks"][name]
        assert check["passed"]
        assert check["message"].endswith(
            "cannot be compared with the pushed version 7: the pushed model knows no limits"
        )
    assert result["checks"]["calibration"]["passed"]
    assert result["metrics"]["baseline"]["refused"] is None


def test_the_same_model_is_not_worse_than_itself(evaluate: Any, export_dir: Path, foreign_dir: Path) -> None:
    options = {"min_accuracy": 0, "min_recall": 0, "must_beat_majority": False}
    result = evaluate(export_dir, baseline=export_dir, foreign_photos=str(foreign_dir), **options)
    assert all(check["passed"] for check in result["checks"].values())
    pair = result["metrics"]["baseline"]["let_through"]
    assert (pair["num_only_baseline"], pair["num_only_candidate"]) == (0, 0)
    spec = read_json(export_dir / "assets.extra" / "model_spec.json")["limits"]
    assert result["metrics"]["limits"]["expected_refused_share"] == spec["refused_share"]


@pytest.mark.parametrize("wrong", [{"max_loss_rise": -1}, {"max_refused_rise": 2}, {"max_foreign_rise": -0.1}], ids=str)
def test_margins_out_of_range_are_errors(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be .*Received: "):
        EvaluatorOptions(**wrong)


def test_a_run_judges_again_when_the_photos_of_a_folder_change(
    shared_dir: Path, artifact: Callable[[str], Path], tmp_path: Path
) -> None:
    artifact("evaluator")
    folders = Folders(runs=shared_dir / "pipeline" / "runs", models=shared_dir / "pipeline" / "models")
    options = replace(tiny_pipeline.CONFIG.evaluator, foreign_photos=str(tmp_path))

    def run() -> Path:
        config = replace(tiny_pipeline.CONFIG, evaluator=options)
        return local_runner.run(tiny_pipeline.steps_to("evaluator"), config, folders=folders)[1]["evaluator"].path

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    first = run()
    assert run() == first
    Image.new("RGB", (8, 8), "red").save(tmp_path / "b.png")
    limits = read_metrics(run())["limits"]
    assert limits
    assert limits["foreign"]
    assert limits["foreign"]["refused"]["num_examples"] == 2
