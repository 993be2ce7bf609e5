"""Which LiteRT file is taken: one of the newest version, and of no other unless it is named."""

import logging
from pathlib import Path

import pytest

from components.bulk_inference.models import find_model
from components.errors import InferenceError


def push(models: Path, name: str, version: int, *kinds: str) -> None:
    saved_model, litert = models / name / str(version), models / "tflite" / str(version)
    saved_model.mkdir(parents=True)
    (saved_model / "saved_model.pb").touch()
    for kind in kinds:
        litert.mkdir(parents=True, exist_ok=True)
        (litert / f"{name}_{kind}.tflite").touch()


@pytest.mark.parametrize("has_saved_models", [True, False])
def test_the_newest_int8_file_is_found_from_any_folder_of_models(tmp_path, has_saved_models):
    for version in (9, 10):
        push(tmp_path, "flowers", version, "int8", "float32")
        if not has_saved_models:
            (tmp_path / "flowers" / str(version) / "saved_model.pb").unlink()
    newest, older = (str(tmp_path / "tflite" / version / "flowers_int8.tflite") for version in ("10", "9"))
    for name in ("", "tflite", "tflite/10", "flowers", "flowers/10"):
        assert find_model(str(tmp_path / name), tmp_path) == newest
    for name in ("tflite/9", "flowers/9", "tflite/9/flowers_int8.tflite"):
        assert find_model(str(tmp_path / name), tmp_path) == older
    chosen = str(tmp_path / "tflite" / "9" / "flowers_float32.tflite")
    for model in (chosen, "rest://localhost:8501", "s3://bucket/flowers_int8.tflite"):
        assert find_model(model, tmp_path) == model


def test_an_older_version_is_never_taken_for_the_newest_one(tmp_path):
    push(tmp_path, "flowers", 1, "int8", "float32")
    push(tmp_path, "flowers", 2)
    old = tmp_path / "tflite" / "1" / "flowers_int8.tflite"
    for name in ("", "flowers", "flowers/2"):
        with pytest.raises(InferenceError, match=rf"Version 2 of flowers has no LiteRT file .*, {old}\. Choose one"):
            find_model(str(tmp_path / name), tmp_path)
    assert find_model(str(tmp_path / "flowers" / "1"), tmp_path) == str(old)


def test_without_an_int8_file_another_of_the_same_version_is_taken_and_named(tmp_path, caplog):
    push(tmp_path, "flowers", 1, "int8")
    push(tmp_path, "flowers", 2, "float32", "float16")
    with caplog.at_level(logging.WARNING):
        found = find_model(str(tmp_path), tmp_path)
    assert found == str(tmp_path / "tflite" / "2" / "flowers_float32.tflite")
    assert "no int8 file of flowers: flowers_float32.tflite is taken, which may be slower" in caplog.text


def test_the_newest_version_is_that_of_the_name(tmp_path):
    push(tmp_path, "flowers", 1, "int8")
    push(tmp_path, "cars", 2, "int8")
    flowers, cars = tmp_path / "tflite" / "1" / "flowers_int8.tflite", tmp_path / "tflite" / "2" / "cars_int8.tflite"
    for name in ("", "tflite", "flowers"):
        assert find_model(str(tmp_path / name), tmp_path) == str(flowers)
    assert find_model(str(tmp_path / "cars"), tmp_path) == str(cars)


def test_of_several_names_without_flowers_one_must_be_chosen(tmp_path):
    push(tmp_path, "cars", 1, "int8")
    assert find_model(str(tmp_path), tmp_path) == str(tmp_path / "tflite" / "1" / "cars_int8.tflite")
    push(tmp_path, "birds", 2, "int8")
    for path in (tmp_path, tmp_path / "tflite"):
        with pytest.raises(InferenceError, match=rf"several: birds, cars\. .* --model {tmp_path}/birds\."):
            find_model(str(path), tmp_path)


def test_a_withdrawn_version_is_not_taken(tmp_path):
    push(tmp_path, "flowers", 1, "int8")
    push(tmp_path / ".withdrawn", "flowers", 2, "int8")
    assert find_model(str(tmp_path), tmp_path) == str(tmp_path / "tflite" / "1" / "flowers_int8.tflite")


def test_a_model_that_is_not_there_is_an_error_that_says_what_is(tmp_path, colour_models):
    file = colour_models / "tflite" / "3" / "colours_int8.tflite"
    with pytest.raises(InferenceError, match=rf"Nothing is there: {tmp_path}/flowers\. LiteRT files in .*: {file}\."):
        find_model(str(tmp_path / "flowers"), colour_models)
    with pytest.raises(InferenceError, match="none; train one with `make train`"):
        find_model(str(tmp_path), tmp_path)


def test_a_url_is_looked_through_as_a_folder_is(tmp_path):
    push(tmp_path, "flowers", 9, "int8")
    push(tmp_path, "flowers", 10, "int8", "float32")
    for version in ("9", "10"):
        (tmp_path / "tflite" / version / "model_spec.json").touch()
    url = f"file://{tmp_path}"
    newest, older = (f"{url}/tflite/{version}/flowers_int8.tflite" for version in ("10", "9"))
    for name in ("", "/", "/tflite", "/tflite/10", "/flowers", "/flowers/", "/flowers/10"):
        assert find_model(url + name, url) == newest
    for name in ("tflite/9", "flowers/9", "tflite/9/flowers_int8.tflite"):
        assert find_model(f"{url}/{name}", url) == older
    with pytest.raises(InferenceError, match=rf"Nothing is there: {url}/cars\. LiteRT files in {url}: .*{newest}, "):
        find_model(f"{url}/cars", url)
