"""Which model predicts: the newest pushed one, always, also when versions come, break and go."""

import logging
import shutil
from pathlib import Path

import pytest

from client.classifier_client import Prediction
from serving.web.errors import StartError
from serving.web.model_info import ModelInfo
from serving.web.models import FileModel, PushedModel, find_files
from tests.client.litert_files import with_metadata
from tests.serving.web.conftest import RED, push


def classify(model: PushedModel) -> tuple[str, str]:
    prediction = model.classify(RED)
    assert isinstance(prediction, Prediction)
    return prediction.label, prediction.model_version


@pytest.fixture
def pushed(tmp_path: Path, model: bytes) -> PushedModel:
    """The model of a folder of its own, with version 1."""
    push(tmp_path, model, 1)
    return PushedModel(tmp_path, "flowers")


def touch(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ([], []),
        (["9/flowers_int8.tflite", "10/flowers_int8.tflite"], ["10/flowers_int8.tflite", "9/flowers_int8.tflite"]),
        (["1/flowers_float32.tflite", "1/flowers_int8.tflite"], ["1/flowers_int8.tflite"]),
        (["1/flowers_int8.tflite", "2/flowers_float32.tflite"], ["2/flowers_float32.tflite", "1/flowers_int8.tflite"]),
        (["1/flowers_int8.tflite", "2/birds_int8.tflite"], ["1/flowers_int8.tflite"]),
        (["1/flowers_int8.tflite", ".staging/2/flowers_int8.tflite"], ["1/flowers_int8.tflite"]),
        (["latest/flowers_int8.tflite"], []),
    ],
)
def test_the_newest_version_comes_first_and_of_its_files_the_fastest(
    tmp_path: Path, there: list[str], found: list[str]
) -> None:
    touch(tmp_path, *there)
    assert find_files(tmp_path, "flowers") == [tmp_path / file for file in found]


def test_a_newer_version_takes_over_and_a_withdrawn_one_makes_room(
    tmp_path: Path, model: bytes, pushed: PushedModel
) -> None:
    assert classify(pushed) == ("red", "1")
    push(tmp_path, model, 2, class_names=("rose", "leaf", "sky"))
    pushed.refresh()
    assert classify(pushed) == ("rose", "2")
    assert pushed.info.class_names == ("rose", "leaf", "sky")
    shutil.rmtree(tmp_path / "tflite" / "2")
    pushed.refresh()
    assert classify(pushed) == ("red", "1")


def test_a_broken_version_is_logged_once_and_the_one_before_goes_on(
    tmp_path: Path, model: bytes, pushed: PushedModel, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "tflite" / "2" / "flowers_int8.tflite"
    broken.parent.mkdir()
    broken.write_bytes(b"no model")
    with caplog.at_level(logging.INFO):
        pushed.refresh()
        pushed.refresh()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "version 1 goes on" in caplog.text
    assert classify(pushed) == ("red", "1")
    push(tmp_path, model, 3)
    pushed.refresh()
    assert classify(pushed) == ("red", "3")


def test_at_the_start_an_older_version_is_never_taken_for_the_newest(tmp_path: Path, model: bytes) -> None:
    push(tmp_path, model, 1)
    touch(tmp_path / "tflite", "2/flowers_int8.tflite")
    older = tmp_path / "tflite" / "1" / "flowers_int8.tflite"
    with pytest.raises(StartError, match=rf"the newest version, .*empty file.* --tflite {older}, or query"):
        PushedModel(tmp_path, "flowers")
    shutil.rmtree(tmp_path / "tflite" / "1")
    with pytest.raises(StartError, match="empty file"):
        PushedModel(tmp_path, "flowers")


def test_a_newest_version_without_a_file_is_said_and_no_older_one_is_taken(tmp_path: Path, model: bytes) -> None:
    push(tmp_path, model, 1)
    touch(tmp_path, "flowers/1/saved_model.pb", "flowers/2/saved_model.pb")
    older = tmp_path / "tflite" / "1" / "flowers_int8.tflite"
    with pytest.raises(StartError, match=rf"version 2 of flowers has no LiteRT file in .* --tflite {older}, or query"):
        PushedModel(tmp_path, "flowers")
    push(tmp_path, model, 2)
    assert classify(PushedModel(tmp_path, "flowers")) == ("red", "2")


def test_a_newer_version_without_a_file_is_logged_once_and_taken_when_it_has_one(
    tmp_path: Path, model: bytes, pushed: PushedModel, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "flowers/2/saved_model.pb")
    pushed.refresh()
    pushed.refresh()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "version 1 goes on: " in caplog.text
    assert "version 2 of flowers has no LiteRT file" in caplog.text
    push(tmp_path, model, 2)
    pushed.refresh()
    assert classify(pushed) == ("red", "2")


def test_all_versions_gone_is_no_reason_to_stop(tmp_path: Path, pushed: PushedModel) -> None:
    shutil.rmtree(tmp_path / "tflite")
    pushed.refresh()
    assert classify(pushed) == ("red", "1")


def test_no_version_is_an_error_that_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"tflite holds no version .* Run `make train` first"):
        PushedModel(tmp_path, "flowers")


def test_a_file_describes_itself(tmp_path: Path, model: bytes) -> None:
    spec = {"model_name": "colours", "class_names": ["red", "green", "blue"], "model_version": "7"}
    (tmp_path / "any.tflite").write_bytes(with_metadata(model, spec=spec))
    info = FileModel(tmp_path / "any.tflite").info
    assert (info.name, info.version, info.class_names) == ("colours", "7", ("red", "green", "blue"))


@pytest.mark.parametrize(
    ("spec", "is_synthetic"),
    [
        ({"data": {"source": "auto", "resolved": "synthetic", "fallback": "no network"}}, True),
        ({"data": "synthetic"}, True),
        ({"data": {"source": "photos", "resolved": "photos", "fallback": None}}, False),
        ({}, False),
    ],
)
def test_drawn_flowers_are_known_by_the_spec(spec: dict[str, object], is_synthetic: bool) -> None:
    assert ModelInfo("flowers", "here", spec=spec).is_synthetic is is_synthetic
