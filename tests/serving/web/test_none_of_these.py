"""What the service says of a photo that looks like none of the classes, or like several."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from serving.web.model_info import read_spec
from serving.web.openapi import describe
from serving.web.settings import Settings
from tests.client.litert_files import P_VALUE_OF_GREY
from tests.serving.web.conftest import GREY, RED, SPEC_LIMITS, YELLOW, Page, PageProcess, push, start_page

FORM = [("photo", ("a.jpg", GREY)), ("photo", ("b.jpg", YELLOW)), ("photo", ("c.jpg", RED))]


def read(page: Page, path: str = "/", **options: Any) -> str:
    """Return a page with its white space as a browser shows it."""
    response = page.post(path, **options) if options else page.get(path)
    assert response.status_code == 200
    return " ".join(response.text.split())


def test_the_api_has_the_limits(limits_page: PageProcess) -> None:
    results = limits_page.classify(("a.jpg", GREY), ("b.jpg", YELLOW), ("c.jpg", RED)).json()["results"]
    grey, yellow, red = results
    assert (grey["is_known"], grey["p_value"]) == (False, pytest.approx(P_VALUE_OF_GREY))
    assert set(grey["prediction_set"]) == {"red", "green", "blue"}
    assert grey["label"] == grey["prediction_set"][0], "the closest all the same"
    assert (yellow["is_known"], set(yellow["prediction_set"])) == (True, {"red", "green"})
    assert (red["is_known"], red["prediction_set"], red["is_sure"]) == (True, ["red"], True)
    schemas = limits_page.get("/openapi.json").json()["components"]["schemas"]
    for result in results:
        jsonschema.Draft202012Validator(schemas["Classified"]).validate(result)


def test_the_api_has_null_where_the_model_does_not_tell(page: PageProcess) -> None:
    (result,) = page.classify(("a.jpg", GREY)).json()["results"]
    assert [result[name] for name in ("p_value", "is_known", "prediction_set")] == [None] * 3
    jsonschema.Draft202012Validator(describe(Settings())["components"]["schemas"]["Classified"]).validate(result)  # type: ignore[index]


def test_the_example_of_the_description_is_as_described() -> None:
    schema: Any = describe(Settings())["components"]["schemas"]["Classified"]  # type: ignore[index]
    (example,) = schema["examples"]
    jsonschema.Draft202012Validator(schema).validate(example)
    assert set(example) == set(schema["properties"])


def test_the_page_says_it_first_and_what_the_photo_resembles_last(limits_page: PageProcess) -> None:
    html = read(limits_page, files=FORM[:1])
    parts = [
        "This does not look like any of the three.",
        "Only 1 in 277 known photos looks so unlike the others.",
        "It resembles",
    ]
    positions = [html.index(part) for part in parts]
    assert positions == sorted(positions)
    assert '<li class="card refused">' in html


def test_the_page_names_the_labels_of_a_set(limits_page: PageProcess) -> None:
    html = read(limits_page, files=FORM[1:])
    assert "Probably one of: red, green." in html or "Probably one of: green, red." in html
    assert html.count("Such a list holds the right one for 95 of 100 photos") == 1, "a set of one is no list"
    assert html.count('<p class="note"></p>') == 2, "nothing beside a label alone, or in the template"


def test_refused_photos_are_counted(limits_page: PageProcess) -> None:
    before = limits_page.metric("classifier_web_photos_total", outcome="refused")
    limits_page.classify(("a.jpg", GREY), ("b.jpg", RED))
    assert limits_page.metric("classifier_web_photos_total", outcome="refused") == before + 1


def test_the_card_shows_the_limits(limits_page: PageProcess, page: PageProcess) -> None:
    html = read(limits_page, "/model")
    assert "stranger than 97.0 % of 276 photos of its classes (distance of its colour from grey)" in html
    assert "None of these" not in read(page, "/model")


def test_the_card_says_where_too_few_photos_are_known_to_refuse_any(tmp_path: Path) -> None:
    content = (Path(__file__).parent / "limits.tflite").read_bytes()
    push(tmp_path / "models", content, 1, limits={**SPEC_LIMITS, "num_examples": 20, "score_threshold": None})
    with start_page(tmp_path / "page.log", "--models-dir", tmp_path / "models") as page:
        assert "never: 20 photos of its classes are too few to refuse 3.0 %" in read(page, "/model")


@pytest.mark.parametrize(
    "changed",
    [{"score": 5}, {"num_examples": 0}, {"num_examples": True}, {"refused_share": "3 %"}, {"coverage": 95}],
    ids=str,
)
def test_malformed_limits_of_a_spec_are_left_out(changed: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model_spec.json"
    for limits, expected in ((SPEC_LIMITS, True), ({**SPEC_LIMITS, **changed}, False), (None, False)):
        path.write_text(json.dumps({"model_name": "flowers", "limits": limits}))
        assert ("limits" in read_spec(path)) is expected
        assert read_spec(path)["model_name"] == "flowers"
