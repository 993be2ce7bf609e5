"""A row for every image, whatever is wrong with it, by a file or a server."""

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
from components.bulk_inference.classifier import Classifier, classify_part
from components.bulk_inference.images import ListedImage, list_images
from components.bulk_inference.output import PredictionFolder
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


def classify(model: str, images: list[ListedImage], out: Path) -> dict[str, dict[str, Any]]:
    predictions = PredictionFolder(str(out))
    (part,) = predictions.plan(images, model={}, part_size=100)
    with Classifier(model).open() as client:
        classify_part(client, predictions, part)
    rows = parquet.read_table(out).to_pylist()
    assert len(rows) == len(images)
    return {row["image"]: row for row in rows}


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
    images = [*list_images(str(folder)).images, ListedImage(f"{folder}/gone.jpg")]
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
    images = list(list_images(f"{bucket}/images").images)
    assert len(images) == 40
    memory.rm(images[7].path)
    rows = classify(f"{bucket}/models/3/colours_int8.tflite", images, tmp_path / "out")
    assert "cannot be read" in rows.pop(images[7].path)["error"]
    assert {(row["label"], row["model_version"]) for row in rows.values()} == {("blue", "3")}


def test_a_file_name_that_is_no_text_has_a_row(file, folder, tmp_path):
    name = os.fsdecode(os.fsencode(folder) + b"/\xff.png")
    Path(name).write_bytes((folder / "a.PNG").read_bytes())
    images = [image for image in list_images(str(folder)).images if image.path.endswith(".png")]
    rows = classify(str(file), images, tmp_path / "o")
    assert [(row["image"], row["label"]) for row in rows.values()] == [(f"{folder}/\\udcff.png", "red")]


def test_a_server_is_a_model_too(folder, tmp_path):
    with FakeRest() as server:
        rows = classify(f"rest://{server.target}/flowers", list_images(str(folder)).images, tmp_path / "out")
    assert {row["label"] for row in rows.values()} == {"tulip"}


def test_a_server_that_is_not_there_is_noticed_before_anything_is_read():
    with pytest.raises(UnavailableError):
        Classifier(f"rest://127.0.0.1:{free_port()}").open()
