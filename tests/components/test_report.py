"""The report is one page that needs nothing else and tells the truth."""

import base64
import html
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from components import report
from components.artifacts.blessing import read_blessing
from components.artifacts.evaluation import Prediction, read_metrics, read_predictions, write_predictions
from components.artifacts.examples import read_encoded
from components.artifacts.explanations import read_explanations, write_explanations
from components.artifacts.litert_evaluation import read_litert_evaluation
from components.artifacts.parity import read_parity
from components.artifacts.push import read_push
from components.artifacts.validation import read_validation
from components.errors import ComponentError
from components.report import ReportOptions
from components.reporting.gallery import to_thumbnail
from components.storage.files import read_json
from tests.components.report_inputs import Inputs, read_text

LIMITS = ("p_values", "risk_coverage")
EVIL = '<img src=x onerror="alert(1)">.jpg'


@pytest.fixture(scope="module")
def folders(inputs: Callable[[str], dict[str, Path]]) -> dict[str, Path]:
    return inputs("report")


@pytest.fixture(scope="module")
def page(artifact: Callable[[str], Path]) -> str:
    """The report of the real artifacts."""
    return (artifact("report") / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def mistakes(folders: dict[str, Path]) -> list[Prediction]:
    """The wrong predictions, the most confident first."""
    wrong = [p for p in read_predictions(folders["evaluation_dir"]) if p["predicted"] != p["label"]]
    return sorted(wrong, key=lambda p: -max(p["probabilities"]))


@pytest.fixture
def changed(
    tmp_path: Path, folders: dict[str, Path], artifact: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Inputs:
    """A copy of the inputs; the plots, which take seconds, are those of the unchanged ones."""
    images = {path.stem: path.read_bytes() for path in (artifact("report") / "plots").iterdir()}
    monkeypatch.setattr(report, "_draw", lambda *numbers: images)
    return Inputs(tmp_path, folders)


def _percent(*values: float) -> str:
    return " ".join(f"{100 * value:.1f} %" for value in values)


def _interval(bounds: list[float]) -> str:
    return " to ".join(map(_percent, bounds))


def _mistakes(page: str) -> str:
    """Return the section of the worst mistakes."""
    return page[page.index('id="mistakes"') : page.index('id="explanations"')]


def _filenames(page: str) -> list[str]:
    return re.findall(r"<code>([^<]+)</code></figcaption>", _mistakes(page))


def test_report_tells_how_good_each_file_for_a_device_is(page: str, folders: dict[str, Path], changed: Inputs) -> None:
    text = read_text(page)
    evaluation = read_litert_evaluation(folders["litert_evaluation_dir"])
    assert len(evaluation["files"]) == 4
    for kind, file in evaluation["files"].items():
        cost = f"{file['size_bytes'] / 1e6:.1f} {file['latency_ms']:.1f} {file['peak_memory_bytes'] / 1e6:.0f}"
        accuracy = f"{_percent(file['accuracy'])} {_interval(file['accuracy_interval'])}"
        assert f"{kind} {accuracy} {_percent(file['agreement'])} {cost} ✓ yes" in text
    for form in read_parity(folders["parity_dir"])["forms"]:
        allowed = "–" if form["tolerance"] is None else f"{form['tolerance']:.0e}"
        row = f"{form['form'].replace('_', ' ')} {form['max_difference']:.1e} {allowed} {_percent(form['agreement'])}"
        assert row in text
    evaluation["files"]["int8"] |= {"passed": False, "objections": ["it predicts one class for everything"]}
    changed.change("litert_evaluation_dir/evaluation.json", **evaluation)
    assert "✗ no: it predicts one class for everything" in read_text(changed.build())


def test_report_shows_what_the_model_looked_at(page: str, folders: dict[str, Path], changed: Inputs) -> None:
    names = read_metrics(folders["evaluation_dir"])["class_names"]
    for each in read_explanations(folders["explanation_dir"]):
        true = "" if each["predicted"] == each["label"] else f", true {names[each['label']]}"
        shown = f"{names[each['predicted']]} {_percent(each['probability'])}{true} {each['filename']}"
        assert shown in read_text(page)
    write_explanations(changed.folders["explanation_dir"], [])
    assert "What it looked at" not in changed.build()


def test_report_says_that_there_are_no_files_for_a_device(tmp_path: Path, folders: dict[str, Path]) -> None:
    inputs = Inputs(tmp_path, folders)
    inputs.change("litert_evaluation_dir/evaluation.json", files={})
    assert "There are no LiteRT files: the evaluator did not bless the model." in read_text(inputs.build())
    assert not (tmp_path / "out" / "plots" / "on_device.png").exists()


def test_report_needs_nothing_but_itself(page: str, mistakes: list[Prediction], folders: dict[str, Path]) -> None:
    assert not re.search(r"<(script|link|iframe|object|base)\b", page)
    assert not re.search(r"https?://|url\(|@import", page)
    sources = re.findall(r"""\b(?:src|href|srcset|poster|action)\s*=\s*["']?([^"'\s>]*)""", page)
    num_plots, num_explanations = 8, len(read_explanations(folders["explanation_dir"]))
    num_strange = 10  # all test photos
    assert len(sources) == num_plots + num_explanations + len(mistakes) + num_strange
    assert all(source.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for source in sources)
    assert "default-src 'none'" in page


def test_report_is_accessible(page: str) -> None:
    assert '<html lang="en">' in page
    assert all(re.search(r'\balt="[^"]+"', image) for image in re.findall(r"<img\b[^>]*>", page))
    assert all('scope="' in header for header in re.findall(r"<th\b[^>]*>", page))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'aria-labelledby="([^"]+)"', page)) <= set(ids)


def test_report_tells_verdict_and_numbers(page: str, folders: dict[str, Path]) -> None:
    text = read_text(page)
    assert f"Blessed, pushed as version {read_push(folders['push_dir'])['version']}" in text
    metrics = read_metrics(folders["evaluation_dir"])
    assert f"{_percent(metrics['accuracy'])} 95 % interval: {_interval(metrics['accuracy_interval'])}" in text
    assert f"{metrics['loss']:.3f}" in text
    for folder in ("evaluation_dir", "infra_validation_dir"):
        checks = read_blessing(folders[folder])["checks"]
        assert checks
        assert all(check["message"] in text for check in checks)


def test_report_tells_timings_and_fine_tuning(changed: Inputs) -> None:
    for folder in changed.folders:
        changed.change(f"{folder}/manifest.json", seconds=62)
    history = read_json(changed.root / "training_dir/history.json")
    changed.change("training_dir/history.json", fine_tune={name: [*row, 0.5] for name, row in history["head"].items()})
    text = read_text(changed.build())
    assert "Total 13 min 26 s" in text  # thirteen steps of 62 s
    assert "The head learned for 2 epochs, and fine-tuning followed for 3 epochs" in text


@pytest.mark.parametrize(
    ("evaluated", "served", "verdict"),
    [
        (True, True, "Blessed, not pushed"),
        (False, True, "Not blessed, not pushed"),
        (True, False, "Not blessed, not pushed"),
    ],
)
def test_report_tells_why_nothing_was_pushed(changed: Inputs, evaluated: bool, served: bool, verdict: str) -> None:
    changed.change("evaluation_dir/blessing.json", blessed=evaluated)
    changed.change("infra_validation_dir/blessing.json", blessed=served)
    changed.change("push_dir/push.json", pushed=False, version=None, path=None, reason="The server refused it.")
    page = changed.build()
    assert f'<h1 class="bad">{verdict}</h1>' in page
    assert "The server refused it." in page


def test_report_shows_the_end_of_the_log_of_a_server_that_did_not_serve(changed: Inputs) -> None:
    log = changed.root / "infra_validation_dir" / "logs" / "server.log"
    log.write_text("\n".join([f"line {number}" for number in range(99)] + [EVIL]), encoding="utf-8")
    assert "line 98" not in changed.build(), "a log is of interest when something failed"
    changed.change("infra_validation_dir/blessing.json", blessed=False)
    page = changed.build()
    assert "line 98" in page
    assert "line 2\n" not in page
    assert "<img src=x" not in page


def test_report_has_no_banner_without_a_fallback(page: str) -> None:
    assert 'class="banner"' not in page


NO_WEIGHTS = {"weights": {"source": "none", "fallback": "No network."}}


@pytest.mark.parametrize(
    ("file", "values", "title"),
    [
        ("examples_dir/examples.json", {"fallback": "No network."}, "Stand-in data:"),
        ("training_dir/training.json", NO_WEIGHTS, "Stand-in weights:"),
        ("evaluation_dir/metrics.json", NO_WEIGHTS, "Stand-in weights:"),
    ],
)
def test_report_is_loud_about_a_fallback(changed: Inputs, file: str, values: dict[str, Any], title: str) -> None:
    changed.change(file, **values)
    page = changed.build()
    assert 'class="banner"' in page
    assert title in read_text(page)
    assert "No network." in page


def test_report_shows_the_most_confident_mistakes_first(
    page: str, mistakes: list[Prediction], folders: dict[str, Path], changed: Inputs
) -> None:
    assert len(mistakes) > 1
    assert _filenames(page) == [mistake["filename"] for mistake in mistakes]
    names, first = read_metrics(folders["evaluation_dir"])["class_names"], mistakes[0]
    predicted, true = (
        f"{names[c]} {_percent(first['probabilities'][c])}" for c in (first["predicted"], first["label"])
    )
    assert f"predicted {predicted} true {true} {first['filename']}" in read_text(page)
    shown = changed.build(num_mistakes=1)
    assert _filenames(shown) == [first["filename"]]
    assert f"{len(mistakes)} photos of 10 got a wrong name" in read_text(shown)
    assert "these are 1 of them" in read_text(shown)


def test_report_is_glad_when_there_are_no_mistakes(changed: Inputs) -> None:
    predictions = read_predictions(changed.folders["evaluation_dir"])
    write_predictions(changed.folders["evaluation_dir"], [{**p, "predicted": p["label"]} for p in predictions])
    next(changed.folders["examples_dir"].glob("test-*")).unlink()  # nobody reads it
    assert "Every test photo is classified right" in changed.build(num_strange=0)


def test_report_escapes_file_names_and_reasons(changed: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation_dir, explanation_dir = changed.folders["evaluation_dir"], changed.folders["explanation_dir"]
    write_predictions(evaluation_dir, [{**p, "filename": EVIL} for p in read_predictions(evaluation_dir)])
    write_explanations(explanation_dir, [{**e, "filename": EVIL} for e in read_explanations(explanation_dir)])
    photos = [(EVIL, encoded) for _, encoded in read_encoded(changed.folders["examples_dir"], "test")]
    monkeypatch.setattr("components.artifacts.examples.read_encoded", lambda *split: photos)
    excluded = [{"file": EVIL, "split": None, "rule": "unreadable", "reason": EVIL}]
    changed.change(
        "statistics_dir/statistics.json", excluded=excluded, num_excluded=1, excluded_by_rule={"unreadable": 1}
    )
    changed.change("push_dir/push.json", reason=EVIL)
    page = changed.build()
    assert "<img src=x" not in page
    assert html.escape(EVIL, quote=False).split('"')[0] in page


def test_report_lists_the_first_excluded_files_and_counts_the_rest(changed: Inputs) -> None:
    excluded = [
        {"file": f"bad-{index}.jpg", "split": "train", "rule": "unreadable", "reason": "It ends too early."}
        for index in range(53)
    ]
    changed.change(
        "statistics_dir/statistics.json", excluded=excluded, num_excluded=53, excluded_by_rule={"unreadable": 53}
    )
    text = read_text(changed.build())
    assert "bad-49.jpg" in text
    assert "bad-50.jpg" not in text
    assert "And 3 more" in text


def test_report_shows_anomalies(page: str, folders: dict[str, Path], changed: Inputs) -> None:
    anomalies = read_validation(folders["validation_dir"])["anomalies"]
    assert f"found {len(anomalies)} anomalies" in read_text(page)
    assert all(anomaly["message"] in read_text(page) for anomaly in anomalies)
    changed.change("validation_dir/validation.json", anomalies=anomalies[:1])
    assert "found 1 anomaly" in read_text(changed.build())


def test_report_shows_missing_numbers_as_a_dash(changed: Inputs) -> None:
    changed.change("evaluation_dir/metrics.json", loss=float("nan"), accuracy=None)
    assert "Loss – cross-entropy" in read_text(changed.build())


def test_report_makes_small_thumbnails(page: str, encode: Callable[..., bytes]) -> None:
    thumbnails = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", _mistakes(page))
    wide = to_thumbnail(encode(Image.new("RGB", (320, 240)), "JPEG"))
    for encoded, size in [*((each, (160, 160)) for each in thumbnails), (wide.partition(",")[2], (160, 120))]:
        assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == size


def test_report_goes_on_without_a_photo_that_cannot_be_decoded() -> None:
    assert to_thumbnail(b"no photo") is None


def test_report_refuses_predictions_of_other_photos(changed: Inputs) -> None:
    predictions = read_predictions(changed.folders["evaluation_dir"])[::-1]
    write_predictions(changed.folders["evaluation_dir"], predictions)
    position = next(index for index, p in enumerate(predictions) if p["predicted"] != p["label"])
    wrong = re.escape(f"'{predictions[position]['filename']}' as prediction {position}")
    with pytest.raises(ComponentError, match=f"{wrong}.*Evaluate these examples again"):
        changed.build()


def test_report_names_a_missing_input(changed: Inputs) -> None:
    (changed.root / "training_dir" / "history.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"history\.json"):
        changed.build()


def test_same_inputs_give_the_same_bytes(
    artifact: Callable[[str], Path], folders: dict[str, Path], tmp_path: Path
) -> None:
    report.build(**folders, out_dir=tmp_path, options=ReportOptions())
    names = ("accuracy", "loss", "model_results", "confusion_matrix", "calibration", "data", "on_device", *LIMITS)
    files = [Path("report.html"), *(Path("plots") / f"{name}.png" for name in names)]
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*.*")} == set(files)
    for file in files:
        content = (tmp_path / file).read_bytes()
        assert content == (artifact("report") / file).read_bytes(), file
        assert content.startswith(b"\x89PNG\r\n") or file.suffix == ".html"
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


@pytest.mark.parametrize("name", ["num_mistakes", "num_strange"])
@pytest.mark.parametrize("number", [-1, 201])
def test_options_bound_the_number_of_photos(name: str, number: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be 0 to 200"):
        ReportOptions(**{name: number})
