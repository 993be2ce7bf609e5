"""The metadata inside a LiteRT file: what goes in comes out, and the model stays what it was."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from litert_quantizer import quantizer, recipe

from export import metadata

CLASS_NAMES = ("rose", "wilder Löwenzahn", "zinnia")
SPEC = {"model_name": "garden", "note": "größer"}
IMAGE = np.random.default_rng(0).uniform(0, 255, (1, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def content() -> bytes:
    """A model with 400,000 weights."""
    rng = np.random.default_rng(1)
    hidden, last = (tf.constant(rng.normal(size=shape), tf.float32) for shape in ((192, 2048), (2048, 3)))

    def classify(images: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(tf.nn.relu(tf.reshape(images, [1, 192]) @ hidden) @ last * 1e-5)

    traced = tf.function(classify, [tf.TensorSpec([1, 8, 8, 3])]).get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert()


def add(content: bytes, **changed: Any) -> bytes:
    given = {"name": "garden", "description": "Tells flowers apart.", "version": "7", "class_names": CLASS_NAMES}
    return metadata.add(content, **{**given, "spec": SPEC, **changed})


@pytest.fixture
def path(tmp_path: Path, content: bytes) -> Path:
    file = tmp_path / "garden.tflite"
    file.write_bytes(add(content))
    return file


def answer(content: bytes) -> Any:
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], IMAGE)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def entries(content: bytes) -> list[bytes]:
    model = schema.Model.GetRootAs(content)
    return [model.Metadata(i).Name() for i in range(model.MetadataLength())]


def test_what_was_added_is_read_back(path: Path) -> None:
    assert metadata.read(path) == metadata.Metadata(
        name="garden",
        description="Tells flowers apart.",
        version="7",
        class_names=CLASS_NAMES,
        mean=(0.0,),
        std=(1.0,),
        spec=SPEC,
    )


def test_version_may_be_missing(path: Path, content: bytes) -> None:
    path.write_bytes(add(content, version=""))
    assert metadata.read(path).version == ""


def test_model_answers_as_before(path: Path, content: bytes) -> None:
    np.testing.assert_array_equal(answer(path.read_bytes()), answer(content))
    assert set(entries(path.read_bytes())) == {*entries(content), b"TFLITE_METADATA"}


def test_metadata_carry_the_identifier_of_their_schema(path: Path) -> None:
    model = schema.Model.GetRootAs(path.read_bytes())
    entry = model.Metadata(entries(path.read_bytes()).index(b"TFLITE_METADATA"))
    assert model.Buffers(entry.Buffer()).DataAsNumpy()[4:8].tobytes() == b"M001"


def test_labels_and_spec_are_read_as_a_zip_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert [info.filename for info in archive.infolist()] == ["labels.txt", "model_spec.json"]
        # Readers on devices take the bytes as they lie in the file.
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {info.external_attr >> 16 for info in archive.infolist()} == {0o644}
        assert archive.read("labels.txt").decode() == "rose\nwilder Löwenzahn\nzinnia\n"
        assert json.loads(archive.read("model_spec.json")) == SPEC


def test_same_model_gives_the_same_file(path: Path, content: bytes) -> None:
    assert add(content) == path.read_bytes()


def test_adding_again_replaces_what_was_there(path: Path, content: bytes) -> None:
    once = path.read_bytes()
    twice = add(once, class_names=("a", "b", "c"))
    path.write_bytes(twice)
    assert metadata.read(path).class_names == ("a", "b", "c")
    assert sorted(entries(twice)) == sorted(entries(once))
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["labels.txt", "model_spec.json"]


def test_buffers_behind_the_flatbuffer_come_inside(content: bytes) -> None:
    """LiteRT Quantizer writes them there once a model is large enough."""
    quantized = bytes(quantizer.Quantizer(content, recipe.dynamic_wi8_afp32()).quantize().quantized_model)

    def offsets(of: bytes) -> list[int]:
        model = schema.Model.GetRootAs(of)
        return [model.Buffers(i).Offset() for i in range(model.BuffersLength())]

    assert max(offsets(quantized)) > 1
    described = add(quantized)
    assert max(offsets(described)) == 0
    np.testing.assert_array_equal(answer(described), answer(quantized))


@pytest.mark.parametrize("labels", [(), ("a", "b"), ("a", "b", "c", "d"), ("a", "", "c"), ("a", "b\nc", "d")])
def test_labels_that_do_not_fit_the_outputs_are_refused(content: bytes, labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"The labels must be one line for each of 3 outputs\. Received: "):
        add(content, class_names=labels)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_file_that_is_cut_short_is_refused_with_its_name(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"A LiteRT file must hold metadata .*garden\.tflite"):
        metadata.read(path)


def test_file_without_metadata_is_refused_with_its_name(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"A LiteRT file must hold metadata .*garden\.tflite"):
        metadata.read(path)


def test_archive_that_is_no_model_is_refused(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("labels.txt", "rose\n")
    with pytest.raises(ValueError, match=r"A LiteRT file must hold metadata .*garden\.tflite"):
        metadata.read(path)
