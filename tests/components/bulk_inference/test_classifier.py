"""Which images are listed, which model is taken, and a row for every image, whatever is wrong with it."""

import io
import os
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest
from PIL import Image
from pyarrow import parquet

from client.classifier_client import UnavailableError
from components.bulk_inference.classifier import Classifier, classify_part, find_model
from components.bulk_inference.images import list_images
from components.bulk_inference.output import PredictionFolder
from components.errors import InferenceError
from tests.client.fakes import FakeRest, free_port


@pytest.fixture
def file(colour_models: Path) -> Path:
    return colour_models / "tflite" / "3" / "colours_int8.tflite"


@pytest.fixture
def folder(tmp_path: Path, encode: Any) -> Path:
    """Three images, and files that are none."""
    images = tmp_path / "images"
    (images / "more").mkdir(parents=True)
    for name, colour in {"b.jpg": "blue", "a.PNG": "red", "more/c.webp": "lime"}.items():
        (images / name).write_bytes(encode(Image.new("RGB", (20, 20), colour), "PNG"))
    (images / "notes.txt").touch()
    (images / ".hidden.jpg").touch()
    return images


def classify(model: str, images: list[str], out: Path) -> dict[str, dict[str, Any]]:
    predictions = PredictionFolder(str(out))
    (part,) = predictions.plan(images, model={}, part_size=100)
    with Classifier(model).open() as client:
        classify_part(client, predictions, part)
    rows = parquet.read_table(out).to_pylist()
    assert len(rows) == len(images)
    return {row["image"]: row for row in rows}


# Which images.


def test_images_of_a_folder_are_listed_in_order(folder):
    names = ["a.PNG", "b.jpg", "more/c.webp"]
    assert list_images(str(folder)) == [f"{folder}/{name}" for name in names]
    assert list_images(f"file://{folder}") == [f"file://{folder}/{name}" for name in names]


def test_a_pattern_lists_what_matches_once(folder):
    assert list_images(f"{folder}/**/*.[jw]*") == [f"{folder}/b.jpg", f"{folder}/more/c.webp"]
    assert list_images(f"file://{folder}/*.jpg") == [f"file://{folder}/b.jpg"]
    assert list_images(f"{folder}/b.jpg") == [f"{folder}/b.jpg"]


@pytest.mark.parametrize("name", ["nowhere", "*.gif", "empty", "b.jpeg"])
@pytest.mark.parametrize("kind", ["", "file://"])
def test_no_image_is_an_error_that_says_what_is_looked_for(folder, name, kind):
    (folder / "empty").mkdir()
    with pytest.raises(InferenceError, match=rf"{name.replace('*', '.')}"):
        list_images(f"{kind}{folder}/{name}")


# Which model.


def test_the_newest_int8_file_is_found_from_any_folder_of_models(tmp_path):
    for name in ("flowers/9", "flowers/10", "tflite/9", "tflite/10"):
        (tmp_path / name).mkdir(parents=True)
    for version in ("9", "10"):
        for kind in ("int8", "float32"):
            (tmp_path / "tflite" / version / f"flowers_{kind}.tflite").touch()
    newest, older = (str(tmp_path / "tflite" / version / "flowers_int8.tflite") for version in ("10", "9"))
    for name in ("", "tflite", "tflite/10", "flowers", "flowers/10"):
        assert find_model(str(tmp_path / name), tmp_path) == newest
    for name in ("tflite/9", "flowers/9", "tflite/9/flowers_int8.tflite"):
        assert find_model(str(tmp_path / name), tmp_path) == older
    chosen = str(tmp_path / "tflite" / "9" / "flowers_float32.tflite")
    for model in (chosen, "rest://localhost:8501", "s3://bucket/flowers_int8.tflite"):
        assert find_model(model, tmp_path) == model


def test_a_model_that_is_not_there_is_an_error_that_says_what_is(tmp_path, colour_models, file):
    with pytest.raises(InferenceError, match=rf"Nothing is there: {tmp_path}/flowers\. LiteRT files in .*: {file}\."):
        find_model(str(tmp_path / "flowers"), colour_models)
    with pytest.raises(InferenceError, match="none; train one with `make train`"):
        find_model(str(tmp_path), tmp_path)


def test_a_model_is_known_by_its_content(file, tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    copy = tmp_path / "copy.tflite"
    copy.write_bytes(file.read_bytes())
    assert Classifier(str(copy)).identify() == Classifier(f"file://{file}").identify()
    copy.write_bytes(b"another")
    assert Classifier(str(copy)).identify() != Classifier(str(file)).identify()
    assert Classifier("rest://host:1").identify() == {"server": "rest://host:1"}


# The rows.


def test_every_image_has_a_row_whatever_is_wrong_with_it(file, folder, tmp_path, encode):
    good = encode(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")
    bad = {
        "cut.jpg": (good[: len(good) // 2], "damaged or cut short"),
        "text.jpg": (b"no image at all", "it begins with 'no image at all'"),
        "empty.jpg": (b"", "empty"),
        "large.png": (encode(Image.new("1", (6000, 5000)), "PNG"), "at most 25,000,000 pixels"),
    }
    for name, (content, _) in bad.items():
        (folder / name).write_bytes(content)
    images = [*list_images(str(folder)), f"{folder}/gone.jpg"]
    rows = classify(str(file), images, tmp_path / "out")
    for name, reason in {**{name: reason for name, (_, reason) in bad.items()}, "gone.jpg": "cannot be read"}.items():
        row = rows.pop(f"{folder}/{name}")
        assert reason in row.pop("error")
        assert {key for key, value in row.items() if value is not None} == {"image"}
    assert {Path(image).name: row["label"] for image, row in rows.items()} == {
        "a.PNG": "red",
        "b.jpg": "blue",
        "c.webp": "green",
    }
    row = rows[f"{folder}/a.PNG"]
    assert (row["error"], row["model_version"]) == (None, "3")
    assert row["probabilities"][0] == ("red", row["probability"])
    assert sum(probability for _, probability in row["probabilities"]) == pytest.approx(1, abs=0.02)  # 8 bits each


def test_images_and_a_model_at_urls_are_fetched(file, tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    bucket = f"memory://{uuid.uuid4()}"
    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"{bucket}/models/3/colours_int8.tflite", file.read_bytes())
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), "blue").save(buffer, "PNG")
    for number in range(40):
        memory.pipe_file(f"{bucket}/images/{number:02d}.png", buffer.getvalue())
    images = list_images(f"{bucket}/images")
    assert len(images) == 40
    memory.rm(images[7])
    rows = classify(f"{bucket}/models/3/colours_int8.tflite", images, tmp_path / "out")
    assert "cannot be read" in rows.pop(images[7])["error"]
    assert {(row["label"], row["model_version"]) for row in rows.values()} == {("blue", "3")}


def test_a_file_name_that_is_no_text_has_a_row(file, folder, tmp_path):
    name = os.fsdecode(os.fsencode(folder) + b"/\xff.png")
    Path(name).write_bytes((folder / "a.PNG").read_bytes())
    rows = classify(str(file), [image for image in list_images(str(folder)) if image.endswith(".png")], tmp_path / "o")
    assert [(row["image"], row["label"]) for row in rows.values()] == [(f"{folder}/\\udcff.png", "red")]


def test_a_server_is_a_model_too(folder, tmp_path):
    with FakeRest() as server:
        rows = classify(f"rest://{server.target}/flowers", list_images(str(folder)), tmp_path / "out")
    assert {row["label"] for row in rows.values()} == {"tulip"}


def test_a_server_that_is_not_there_is_noticed_before_anything_is_read():
    with pytest.raises(UnavailableError):
        Classifier(f"rest://127.0.0.1:{free_port()}").open()
