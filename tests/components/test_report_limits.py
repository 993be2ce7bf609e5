"""The report on what a model knows of its limits, and on further photos."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.evaluation import LimitsMetrics, read_metrics, read_predictions, write_predictions
from components.reporting import metrics
from tests.components.report_inputs import Inputs, read_text

SHARE = {"share": 0.86, "interval": [0.8, 0.9], "num_examples": 50}


@pytest.fixture(scope="module")
def folders(inputs: Callable[[str], dict[str, Path]]) -> dict[str, Path]:
    return inputs("report")


@pytest.fixture
def changed(tmp_path: Path, folders: dict[str, Path]) -> Inputs:
    return Inputs(tmp_path, folders)


@pytest.fixture(scope="module")
def limits(folders: dict[str, Path]) -> LimitsMetrics:
    found = read_metrics(folders["evaluation_dir"])["limits"]
    assert found
    return found


def test_report_tells_what_is_refused_and_what_the_sets_hold(
    artifact: Callable[[str], Path], limits: LimitsMetrics
) -> None:
    text = read_text((artifact("report") / "report.html").read_text(encoding="utf-8"))
    refused, covered = limits["refused"], limits["covered"]
    assert f"Refused were {round(10 * refused['share'])} of 10 photos ({100 * refused['share']:.1f} %" in text
    assert "where 3.0 % were to be expected." in text
    assert f"hold it for {round(10 * covered['share'])} of 10 photos" in text
    assert f"A set has {limits['mean_set_size']:.2f} labels on average" in text
    for size, number in enumerate(limits["set_sizes"]):
        assert (f" {size} {10 * number:.1f} % {number} " in text) is (number > 0)
    assert "Photos from elsewhere" not in text
    assert "Worse photos" not in text
    assert "other things" not in text


def test_report_shows_the_strangest_test_photos_first(changed: Inputs) -> None:
    evaluation_dir = changed.folders["evaluation_dir"]
    predictions = read_predictions(evaluation_dir)
    for number, each in enumerate(predictions):
        each |= {"p_value": 1.0 if number != 4 else 1 / 277, "is_known": number != 4}
    write_predictions(evaluation_dir, predictions)
    page = changed.build(num_strange=2, num_mistakes=0)
    section = page[page.index("The strangest test photos") : page.index('id="slices"')]
    shown = [predictions[position]["filename"] for position in (4, 0)]
    assert re.findall(r"<code>([^<]+)</code></figcaption>", section) == shown
    assert "refused , 1 in 277 is so strange" in read_text(f"<body>{section}")
    assert section.count("refused</b>") == 1
    assert "The strangest test photos" not in changed.build(num_strange=0)


def test_report_goes_on_for_a_model_without_limits(changed: Inputs) -> None:
    evaluation_dir = changed.folders["evaluation_dir"]
    changed.change("evaluation_dir/metrics.json", limits=None)
    nothing: dict[str, Any] = {"p_value": None, "is_known": None, "prediction_set": None}
    write_predictions(evaluation_dir, [{**p, **nothing} for p in read_predictions(evaluation_dir)])  # type: ignore[typeddict-item]
    page = changed.build()
    assert 'id="limits"' not in page
    assert not {"p_values.png", "risk_coverage.png"} & {path.name for path in (changed.root / "out/plots").iterdir()}


def test_report_tells_what_is_let_through_of_other_things(changed: Inputs, limits: LimitsMetrics) -> None:
    foreign = {
        "folder": "things/<b>",
        "num_unreadable": 1,
        "refused": SHARE,
        "auroc": 0.985,
        "p_values": limits["p_values"],
    }
    changed.change("evaluation_dir/metrics.json", limits={**limits, "foreign": foreign, "accepted": None})
    page = changed.build()
    assert "43 of 50 photos (86.0 %, 95 % interval 80.0 % to 90.0 %) were." in read_text(page)
    assert "in 98.5 % of all pairs" in read_text(page)
    assert "1 file cannot be read as an image" in read_text(page)
    assert "things/<b>" not in page
    assert "and of foreign photos" in page


def test_report_tells_how_the_model_does_elsewhere_and_on_worse_photos(changed: Inputs) -> None:
    measured = {"accuracy": 0.9, "accuracy_interval": [0.8, 0.95], "num_examples": 50, "loss": 0.3, "ece": 0.04}
    elsewhere = {
        **measured,
        "folder": "elsewhere",
        "num_unreadable": 0,
        "limits": {"refused": SHARE, "covered": SHARE, "mean_set_size": 1.5},
    }
    corruptions = {"as they are": {**measured, "refused": SHARE}, "blurred": {**measured, "refused": None}}
    changed.change("evaluation_dir/metrics.json", elsewhere=elsewhere, corruptions=corruptions)
    text = read_text(changed.build())
    assert "another collection, 90.0 % (95 % interval 80.0 % to 95.0 %) are classified right" in text
    assert "the right label for 43 of 50 photos (86.0 %, 95 % interval 80.0 % to 90.0 %), with 1.50 labels" in text
    assert "as they are 90.0 % 80.0 % to 95.0 % 0.300 4.0 % 86.0 %" in text
    assert "blurred 90.0 % 80.0 % to 95.0 % 0.300 4.0 % –" in text
    elsewhere["limits"] = None
    changed.change("evaluation_dir/metrics.json", elsewhere=elsewhere)
    assert "the right label for 43" not in read_text(changed.build())


def test_p_values_of_the_report_are_those_of_the_predictions(folders: dict[str, Path], limits: LimitsMetrics) -> None:
    import numpy as np

    p_values = np.float32([p["p_value"] for p in read_predictions(folders["evaluation_dir"])])
    assert metrics.p_value_histogram(p_values) == limits["p_values"]
