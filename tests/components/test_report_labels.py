"""The report on labels of the training photos that are probably wrong."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from components.artifacts.examples import read_index
from components.artifacts.labels import write_applied
from components.artifacts.suspects import Outlier, Suspect, write_suspects
from tests.components.artifacts.test_labels import decide
from tests.components.report_inputs import Inputs, read_text


@pytest.fixture
def changed(tmp_path: Path, inputs: Callable[[str], dict[str, Path]]) -> Inputs:
    return Inputs(tmp_path, inputs("report"))


@pytest.fixture
def photos(changed: Inputs) -> list[str]:
    return [row["filename"] for row in read_index(changed.folders["examples_dir"]) if row["split"] == "train"]


def section(page: str) -> str:
    start = page.index('id="labels"')
    return page[start : page.index("</section>", start)]


def doubt(photo: str, *, is_suspect: bool = True) -> Suspect:
    return {
        "photo": photo, "label": "roses", "suggested_label": "tulips", "score": 0.996, "is_suspect": is_suspect,
    }  # fmt: skip


def test_report_shows_suspect_labels_and_strange_photos(changed: Inputs, photos: list[str]) -> None:
    suspects = [doubt(photos[20]), doubt(photos[3]), doubt(photos[5]), doubt(photos[9], is_suspect=False)]
    outliers = [Outlier(photo=photos[30], label="daisy", p_value=1 / 35)]
    write_suspects(changed.folders["suspects_dir"], suspects, outliers)
    page = section(changed.build(num_suspects=2))
    shown = re.findall(r"<code>([^<]+)</code></figcaption>", page)
    assert shown == [photos[20], photos[3], photos[30]]
    assert page.count("data:image/jpeg") == 3
    text = read_text(f"<body>{page}")
    assert "The labels of 3 training photos are suspect" in text
    assert "here are 2" in text
    assert "label roses 0.4 % rather tulips" in text
    assert "label daisy , 1 in 35 is so strange" in text
    assert "left out of training" not in text
    assert "different labels" not in text


def test_report_shows_look_alikes_with_different_labels(changed: Inputs, photos: list[str]) -> None:
    conflict = {"file": photos[8], "split": "train", "rule": "conflict", "reason": "it looks like tulips/1.jpg"}
    changed.change("examples_dir/examples.json", label_conflicts=[conflict])
    page = section(changed.build())
    assert re.findall(r"<code>([^<]+)</code></figcaption>", page) == [photos[8]]
    assert "it looks like tulips/1.jpg" in page


def test_report_says_what_people_decided_and_who(changed: Inputs) -> None:
    assert "decisions of people" not in section(changed.build())
    folder = changed.folders["examples_dir"]
    write_applied(
        folder,
        [
            {**decide("a", "tulip"), "given_label": "rose"},
            {**decide("b", "rose"), "given_label": "rose"},
            {**decide("c", "rose", who="ben"), "given_label": None},
            {**decide("d", None), "given_label": "rose"},
        ],
    )
    text = read_text(f"<body>{section(changed.build())}")
    assert "1 label changed, 1 confirmed, 1 photo added, 1 none of the classes. By anna (3), ben (1)." in text


def test_report_says_that_no_label_is_suspect(changed: Inputs) -> None:
    page = section(changed.build())
    text = read_text(f"<body>{page}")
    assert "No label of a training photo is suspect." in text
    assert "Not judged, for want of photos: daisy, dandelion, roses, sunflowers, tulips." in text
    assert "<figure>" not in page


def test_report_says_what_more_labels_would_gain(changed: Inputs) -> None:
    points = [
        {"share": 0.25, "num_examples": 642, "accuracies": [0.84, 0.86, 0.85, 0.85]},
        {"share": 1.0, "num_examples": 2567, "accuracies": [0.9]},
    ]
    gain = {"expected": 0.018, "low": 0.008, "high": 0.025}
    changed.change("learning_curve_dir/learning_curve.json", points=points, next_gain=gain, num_validation=276)
    text = read_text(f"<body>{section(changed.build())}")
    sentence = (
        "with twice as many labels, expect about 1.8 points of accuracy more (95 % interval 0.8 to 2.5). Measured"
    )
    assert sentence in text
    assert "on 276 validation photos" in text
    assert "25.0 % 642 85.0 % 84.0 % to 86.0 % 100.0 % 2,567 90.0 % –" in text


def test_report_promises_nothing_that_chance_may_have_made(changed: Inputs) -> None:
    gain = {"expected": 0.004, "low": -0.011, "high": 0.012}
    changed.change("learning_curve_dir/learning_curve.json", next_gain=gain)
    text = read_text(f"<body>{section(changed.build())}")
    assert "It cannot be told from chance: twice as many labels would gain about 0.4 points of accuracy" in text
    assert "interval -1.1 to 1.2). Look at the labels above first." in text
