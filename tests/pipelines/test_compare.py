"""The comparison from photos to its table, with tiny settings: every row, the missing one too, and once only."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.storage.files import read_json
from pipelines import __main__ as command_line
from pipelines import compare, flowers
from pipelines.compare import CompareConfig
from pipelines.config import override
from tests import tiny_pipeline

# The one backbone has random weights, for the other there are none: `small_cnn` has no published ones.
SETTINGS = [
    *tiny_pipeline.assignments(),
    *("edges.image_size_px=64", "depthwise.image_size_px=32", "depthwise.epochs=1", "classical.num_trees=5"),
    *("fine_tuning.epochs=1", "fine_tuning.num_heads=1", "fine_tuning.fine_tune_epochs=1"),
    *("student.epochs=1", "student.num_heads=1", "student.fine_tune=1", "student.fine_tune_epochs=1"),
    *("mobilenet_v2.backbone=small_cnn", "mobilenet_v2.image_size_px=32", "mobilenet_v2.weights=none"),
    *("efficientnet_v2_b0.backbone=small_cnn", "efficientnet_v2_b0.image_size_px=32"),
    # Judging the files of one of the networks is enough here.
    "judging.min_accuracy=1",
]
SHARED = tiny_pipeline.steps_to("litert_evaluator")
"""What the flowers pipeline has made already."""
Compare = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, own_logging: None) -> Compare:
    def run(*settings: str) -> int:
        folders = ["--runs-dir", str(tmp_path / "runs"), "--models-dir", str(tmp_path / "models")]
        return command_line.main(["compare", "--set", *SETTINGS, *settings, *folders])

    return run


@pytest.fixture
def made(artifact: Callable[[str], Path], tmp_path: Path) -> set[str]:
    """Copy what the flowers pipeline has made to where the comparison runs; return the names of the steps."""
    for step in SHARED:
        made = artifact(step.name)
        shutil.copytree(made, tmp_path / "runs" / "artifacts" / step.name / made.name)
    return {step.name for step in SHARED}


def test_comparison_has_a_row_for_every_model_and_a_second_run_only_looks_again(
    made: set[str], run: Compare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    latest = tmp_path / "runs" / "latest_comparison"
    first = read_json(latest / "run.json")["steps"]
    assert {name for name, step in first.items() if step["reason"] == "cached"} == made - {"validator", "baseline"}
    rows = read_json(latest / "comparison.json")["rows"]
    classical = ["logistic regression", "k-nearest neighbours", "support vector machine", "decision tree"]
    classical.append("random forest")
    networks = ["small_cnn"] * 5  # frozen, fine-tuned, instead of two others, and the student
    assert [row["model"] for row in rows] == [*classical, "depthwise_cnn", *classical, *networks]
    *_, without_weights, student = rows
    judged = [row for row in rows if row is not without_weights]
    assert student["learns_from"].startswith("predictions of small_cnn, fine-tuned")
    assert {row["num_examples"] for row in judged} == {10}
    assert all(row["accuracy_interval"][0] <= row["accuracy"] <= row["accuracy_interval"][1] for row in judged)
    assert [row["model"] for row in judged if row["int8"]] == ["small_cnn"]
    assert without_weights["missing"] == "No ImageNet weights are published for small_cnn. Set model.weights=none."
    printed = capsys.readouterr().out
    assert "small_cnn: No ImageNet weights are published" in printed
    assert f"Comparison: {tmp_path}/runs/{latest.resolve().name}/comparison.html" in printed
    assert (latest / "comparison.html").exists()
    assert (latest / "plots" / "comparison.png").exists()
    assert list((tmp_path / "models").glob("*/*")) == [], "nothing is pushed"

    assert run() == 0
    reasons = {name: step["reason"] for name, step in read_json(latest / "run.json")["steps"].items()}
    again = {name: reason for name, reason in reasons.items() if reason != "cached"}
    assert again.pop("efficientnet_v2_b0_model") == "could not be had before"
    assert again.pop("validator") == again.pop("baseline") == "looks at what is there"
    assert set(again.values()) == {"passed over: efficientnet_v2_b0_model could not be had"}
    assert read_json(latest / "comparison.json")["rows"] == rows


def test_steps_of_the_flowers_pipeline_stand_as_they_are() -> None:
    names = {step.name for step in compare.STEPS}
    shared = [step for step in flowers.STEPS if step.name in names]
    assert [step for step in compare.STEPS if step in shared] == shared
    assert not {"infra_validator", "pusher"} & names
    assert not any("models" in step.state.values() for step in compare.STEPS if step.name != "baseline")


def test_every_step_reads_what_an_earlier_one_makes_and_options_that_are_there() -> None:
    config = CompareConfig()
    earlier: set[str] = set()
    for step in compare.STEPS:
        assert set(step.inputs.values()) <= earlier, step.name
        assert all(hasattr(config, section) for section in step.options.values()), step.name
        assert step.name not in earlier
        earlier.add(step.name)


def test_options_of_both_are_overridden_and_others_refused() -> None:
    config = override(CompareConfig(), ["classical.num_trees=7", "trainer.epochs=2"])
    assert (config.classical.num_trees, config.trainer.epochs) == (7, 2)
    config = override(CompareConfig(), ["evaluator.other_photos=photos", "judging.min_accuracy=0.5"])
    assert (config.judging.other_photos, config.judging.min_accuracy) == ("photos", 0.5), "all are judged on them"
    with pytest.raises(ValueError, match=re.escape("Did you mean 'depthwise.epochs'?")):
        override(CompareConfig(), ["depthwise.epohcs=2"])


def test_a_wrong_option_ends_with_2(run: Compare, tmp_path: Path, capsys: Any) -> None:
    assert run("edges.image_size_px=250") == 2
    assert "error: edges: image_size_px must be" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
