"""The metadata of a LiteRT file is read as other writers write it, and a file without any is refused."""

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.classifier_client import ModelFileError
from client.classifier_client.transports.litert_metadata import Metadata, read_metadata
from tests.client import litert_files
from tests.client.litert_files import CLASS_NAMES, with_metadata


@pytest.fixture(scope="module")
def model() -> bytes:
    return litert_files.convert((4, 4, 3))


def read(folder: Path, content: bytes) -> Metadata:
    path = folder / "model.tflite"
    path.write_bytes(content)
    return read_metadata(path)


def test_labels_and_normalization_are_read(tmp_path: Path, model: bytes) -> None:
    content = with_metadata(model, normalization=((123.5, 116.0, 103.0), (1.0, 2.0, 4.0)))
    assert read(tmp_path, content) == Metadata(CLASS_NAMES, (123.5, 116.0, 103.0), (1.0, 2.0, 4.0), "")


def test_labels_may_hold_any_letters_and_blank_lines_are_none(tmp_path: Path, model: bytes) -> None:
    labels = ("Gänseblümchen", "ひまわり ", "", "two words", "")
    assert read(tmp_path, with_metadata(model, labels=labels)).class_names == ("Gänseblümchen", "ひまわり", "two words")


@pytest.mark.parametrize("label", ["c\0", "c\rd", "c\x1b[2J", "c\u00a0d", "c\u2028d"])
def test_label_that_is_not_printable_is_refused(label: str, tmp_path: Path, model: bytes) -> None:
    with pytest.raises(ModelFileError, match=r"the label '.*' is not printable"):
        read(tmp_path, with_metadata(model, labels=("a", "b", label)))


@pytest.mark.parametrize("where", ["inside", "beside"])
def test_spec_that_names_other_classes_is_refused(where: str, tmp_path: Path, model: bytes) -> None:
    spec = {"class_names": ["green", "red", "blue"], "model_version": 3}
    if where == "beside":
        (tmp_path / "model_spec.json").write_text(json.dumps(spec))
    with pytest.raises(ModelFileError, match=r"must name the same classes\. Received: red, green, blue and green, red"):
        read(tmp_path, with_metadata(model, spec=spec if where == "inside" else None))


def test_spec_beside_the_file_goes_before_the_one_inside(tmp_path: Path, model: bytes) -> None:
    (tmp_path / "model_spec.json").write_text(json.dumps({"class_names": CLASS_NAMES, "model_version": 4}))
    assert read(tmp_path, with_metadata(model, spec={"model_version": 3})).model_version == "4"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"Received: an empty file"),
        (b"# a text file", r"Received: a file that begins with b'# a text'"),
        (b"\0\0\0\0TFL3", r"Received: (one with damaged metadata|a model without metadata)"),
        (b"\xff\xff\xff\xffTFL3" + bytes(40), r"Received: one with damaged metadata"),
    ],
)
def test_file_that_is_no_model_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=message):
        read(tmp_path, content)


def test_archive_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.tflite", "w") as archive:
        archive.writestr("labels.txt", "rose\n")
    with pytest.raises(ModelFileError, match=r"Received: a file that begins with b'PK.*model\.tflite"):
        read_metadata(tmp_path / "model.tflite")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"missing\.tflite cannot be read \(No such file or directory\)"):
        read_metadata(tmp_path / "missing.tflite")
    with pytest.raises(ModelFileError, match=r"cannot be read \(Is a directory\)"):
        read_metadata(tmp_path)


def test_model_without_metadata_or_labels_is_refused(tmp_path: Path, model: bytes) -> None:
    with pytest.raises(ModelFileError, match=r"Received: a model without metadata, .*model\.tflite\. Export the model"):
        read(tmp_path, model)
    for labels in (None, [""]):
        with pytest.raises(ModelFileError, match="Received: metadata without labels"):
            read(tmp_path, with_metadata(model, labels=labels))


def test_damaged_file_gives_an_error_or_metadata(tmp_path: Path, model: bytes) -> None:
    content = with_metadata(model, spec={"model_version": 1})
    rng = np.random.default_rng(4)
    refused: list[Any] = []
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 20)):
            damaged[rng.integers(8, len(damaged))] = rng.integers(256)
        try:
            read(tmp_path, bytes(damaged[: rng.integers(8, len(damaged))]) if rng.random() < 0.3 else bytes(damaged))
        except ModelFileError as exc:
            refused.append(exc)
    assert len(refused) > 100


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("[]", "a list"),
        ("null", "a NoneType"),
        ("[" * 100_000, "damaged metadata"),
        ("9" * 6000, "damaged metadata"),
        ("\xff", "damaged metadata"),
        ('{"class_names": 5}', "class_names is no list of texts"),
        ('{"class_names": [1, 2, 3]}', "class_names is no list of texts"),
        ('{"model_version": [1]}', "model_version is neither"),
        ('{"files": [1]}', "files are no objects"),
        ('{"files": {"int8": 1}}', "files are no objects"),
    ],
)
def test_spec_of_another_form_is_refused(spec: str, message: str, tmp_path: Path, model: bytes) -> None:
    (tmp_path / "model_spec.json").write_bytes(spec.encode("latin-1"))
    with pytest.raises(ModelFileError, match=message):
        read(tmp_path, with_metadata(model))


def test_file_whose_content_is_not_that_of_the_spec_beside_it_is_refused(tmp_path: Path, model: bytes) -> None:
    content = with_metadata(model)
    described = {"name": "model.tflite", "sha256": hashlib.sha256(content).hexdigest()}
    (tmp_path / "model_spec.json").write_text(json.dumps({"files": {"float32": described}}))
    assert read(tmp_path, content).class_names == CLASS_NAMES
    with pytest.raises(ModelFileError, match=r"must be the one whose sha256 the model_spec\.json beside it has"):
        read(tmp_path, content + b"\0")


@pytest.mark.parametrize(
    "normalization",
    [((0.0,), (0.0,)), ((0.0, 0.0), (1.0, 1.0)), ((float("nan"),), (1.0,)), ((3e38,), (1.0,)), ((0.0,), (1e-40,))],
)
def test_normalization_that_cannot_be_is_refused(normalization: Any, tmp_path: Path, model: bytes) -> None:
    with pytest.raises(ModelFileError, match="a mean and a standard deviation that cannot be"):
        read(tmp_path, with_metadata(model, normalization=normalization))


def test_labels_that_are_the_same_or_swell_are_refused(tmp_path: Path, model: bytes) -> None:
    with pytest.raises(ModelFileError, match="labels are not all different"):
        read(tmp_path, with_metadata(model, labels=["a", "b", "a"]))
    content = with_metadata(model, labels=None)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
        writer.writestr("model_spec.json", bytes(17 << 20))
    assert len(archive.getvalue()) < 100_000
    with pytest.raises(ModelFileError, match=r"more than 16 MB in model_spec\.json"):
        read(tmp_path, content + archive.getvalue())


def test_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.tflite")
    with pytest.raises(ModelFileError, match="Received: a pipe or a device"):
        read_metadata(tmp_path / "model.tflite")
    with pytest.raises(ModelFileError, match="File name too long"):
        read_metadata(tmp_path / ("n" * 300))
