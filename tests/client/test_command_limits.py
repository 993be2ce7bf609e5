"""What the command prints of a model that knows its limits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client.classifier_client import command
from tests.client.fakes import LIMITS, PHOTO, REFUSED, FakeRest

Run = Callable[..., list[str]]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    PHOTO.save(path)
    return path


@pytest.fixture
def run(fake_rest: FakeRest, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command with a model of some limits, which succeeds; return the lines of its output."""

    def run(limits: dict[str, Any], *words: object) -> list[str]:
        fake_rest.limits = limits
        arguments = ["--target", fake_rest.target, *map(str, words)]
        assert command.main(arguments, samples_dir=Path()) == command.OK, "a refused image is a prediction"
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out.splitlines()

    return run


def test_table_says_which_images_look_like_none_of_the_classes(run: Run, photo: Path) -> None:
    row, last = run(REFUSED, photo)
    assert row == f"{photo}  none of these  p=0.008  tulip  75.0%  daisy  25.0%"
    assert last.endswith(" ms (median), 1 of 1 looks like none of these")
    row, _, last = run(LIMITS, photo, photo)
    assert row == f"{photo}                 p=0.500  tulip  75.0%  daisy  25.0%"
    assert last.endswith(" ms (median), 0 of 2 look like none of these")


def test_table_shows_the_set_where_it_has_more_than_one_class(run: Run, photo: Path) -> None:
    row, _ = run({**LIMITS, "prediction_set": (True, True)}, "--top-k", 1, photo)
    assert row == f"{photo}                 p=0.500  tulip  75.0%  set: tulip, daisy"


def test_json_has_the_limits(run: Run, photo: Path) -> None:
    document = json.loads(run(REFUSED, "--json", "--top-k", 1, photo)[0])
    assert list(document)[-3:] == ["p_value", "is_known", "prediction_set"]
    assert (document["p_value"], document["is_known"]) == (1 / 128, False)
    assert document["prediction_set"] == ["tulip", "daisy"], "all of it, however few probabilities are shown"


def test_json_has_null_where_the_model_does_not_tell(run: Run, photo: Path) -> None:
    document = json.loads(run({}, "--json", photo)[0])
    assert [document[name] for name in LIMITS] == [None] * 3
