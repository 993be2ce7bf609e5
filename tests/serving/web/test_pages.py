"""The pages as a plain form gets them, and the model card."""

import json
from pathlib import Path

import pytest

from serving.web.card import find_run, read_card
from serving.web.model_info import ModelInfo
from serving.web.models import FileModel
from tests.serving.web.conftest import GREY, RED, SIZE_PX, Page, make_photo, open_page

PLOT = make_photo((128, 128, 128), "PNG")
METRICS = {
    "accuracy": 0.9,
    "accuracy_interval": [0.8, 0.95],
    "num_examples": 50,
    "class_names": ["red", "green", "blue"],
    "confusion_matrix": [[17, 1, 0], [2, 14, 0], [0, 2, 14]],
    "per_class": {name: {"recall": 0.9} for name in ("red", "green", "blue")},
    "macro": {"f1": 0.89},
}
MEASURED = {"name": "f_int8.tflite", "sha256": "abc", "accuracy": 0.88}


def write_run(folder: Path, *, version: int | None = 1) -> Path:
    """Write what the card reads of a run."""
    documents = {
        "metrics.json": METRICS,
        "steps/examples/examples.json": {"splits": {"train": {"num_examples": 1200}, "test": {"num_examples": 50}}},
        "steps/pusher/push.json": {"version": version, "path": f"models/flowers/{version}"},
    }
    for name, document in documents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(document))
    (folder / "plots").mkdir()
    (folder / "plots" / "accuracy.png").write_bytes(PLOT)
    return folder


def test_the_response_to_a_form_is_a_whole_page(page: Page) -> None:
    files = [("photo", ("a.jpg", RED)), ("photo", ("b.jpg", GREY)), ("photo", ("c.jpg", b"text"))]
    response = page.post("/", files=files)
    assert response.status_code == 200
    html = " ".join(response.text.split())
    assert "<!doctype html>" in html
    assert 'red <span class="share">9' in html
    assert "The closest is" in html
    assert "This file is not a photo that can be read here." in html


def test_a_form_without_a_photo_is_refused_with_a_sentence(page: Page) -> None:
    response = page.post("/", files={"photo": ("", b"")})
    assert response.status_code == 400
    assert '<p class="alert" role="alert">There was no photo in the request.' in response.text


def test_a_form_may_name_a_sample_and_nothing_else(page: Page) -> None:
    assert "rose.jpg" in page.post("/", files={"sample": (None, "rose.jpg")}).text
    assert page.post("/", files={"sample": (None, "../README.md")}).status_code == 400


def test_samples_are_shown(page: Page) -> None:
    html = page.get("/").text
    for name in ("daisy", "dandelion", "rose", "sunflower", "tulip"):
        assert f'value="{name}.jpg"' in html
    assert page.get("/samples/daisy.jpg").headers["Content-Type"] == "image/jpeg"


@pytest.mark.parametrize("path", ["/", "/model"])
def test_no_page_names_another_host_or_styles_inline(page: Page, path: str) -> None:
    html = page.get(path).text
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html
    assert "style=" not in html
    assert "onclick" not in html


def test_the_card_shows_the_spec_where_there_is_no_run(page: Page) -> None:
    html = page.get("/model").text
    assert "red, green, blue" in html
    assert f"{SIZE_PX} × {SIZE_PX} pixels" in html
    assert "No run of the pipeline was found" in html
    assert page.get("/model/plots/accuracy.png").status_code == 404


@pytest.mark.parametrize(("version", "is_of_another"), [(1, False), (2, True), (None, True)])
def test_the_card_shows_a_run_and_whether_it_is_of_another_model(
    tmp_path: Path, file_model: FileModel, version: int | None, is_of_another: bool
) -> None:
    run_dir = write_run(tmp_path / "20260101-000000-aaaa", version=version)
    (tmp_path / "latest").symlink_to(run_dir.name)
    with open_page(file_model, runs_dir=tmp_path) as page:
        html = page.get("/model").text
        assert "90.0\u00a0%" in html
        assert "1,200 train, 50 test" in html
        assert '<td class="right">17</td>' in " ".join(html.split())
        assert ("numbers are of another model" in html) is is_of_another
        assert page.get("/model/plots/accuracy.png").content == PLOT
        for name in ("loss", "data", "..%2f..%2fmetrics"):
            assert page.get(f"/model/plots/{name}.png").status_code == 404


def test_the_card_is_of_the_run_that_pushed_the_model(tmp_path: Path) -> None:
    runs = {
        version: write_run(tmp_path / f"2026010{day}-000000-aaaa", version=version)
        for day, version in enumerate((1, 2, 11, None))
    }
    (tmp_path / "latest").symlink_to(runs[None].name)
    assert find_run(tmp_path, ModelInfo("flowers", "a file", version="1")) == runs[1]
    for model in (ModelInfo("flowers", "a file", version="3"), ModelInfo("birds", "a file", version="1")):
        assert find_run(tmp_path, model) == tmp_path / "latest"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"accuracy": 1}', "no json"])
def test_a_malformed_run_is_no_run(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.json").write_text(content)
    assert read_card(tmp_path) is None


def test_the_card_knows_the_very_file(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path)
    path = run_dir / "steps" / "litert_evaluator" / "evaluation.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"files": {"int8": MEASURED}}))
    card = read_card(run_dir)
    assert card
    same, other = (
        ModelInfo("f", "models/tflite/1/f_int8.tflite", version="9", spec={"files": {"int8": {**MEASURED, **changed}}})
        for changed in ({}, {"sha256": "def"})
    )
    assert card.find_file(same) == MEASURED
    assert card.find_file(other) is None
    assert (card.is_of_another(same), card.is_of_another(other)) == (False, True)
