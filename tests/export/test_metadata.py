"""The metadata inside a LiteRT file: the client reads what was written, and the model stays what it was."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litert_quantizer import quantizer, recipe

from client.classifier_client import ModelFileError
from client.classifier_client.transports import litert_metadata
from client.classifier_client.transports.litert_metadata import Metadata, read_metadata
from components.artifacts.labels import is_class_name
from export import metadata
from tests.client import litert_files

CLASS_NAMES = ("rose", "wilder Löwenzahn", "zinnia")
SPEC = {"model_name": "garden", "note": "größer", "class_names": list(CLASS_NAMES)}
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


def add(content: bytes, *, version: str = "7", **changed: Any) -> bytes:
    spec: Any = {**SPEC, **changed}
    return metadata.add(metadata.unpack(content), spec=spec, description="Tells flowers apart.", version=version)


@pytest.fixture
def path(tmp_path: Path, content: bytes) -> Path:
    file = tmp_path / "garden.tflite"
    file.write_bytes(add(content))
    return file


def predict(content: bytes) -> Any:
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], IMAGE)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def entries(content: bytes) -> list[bytes]:
    model = schema.Model.GetRootAs(content)
    return [model.Metadata(i).Name() for i in range(model.MetadataLength())]


@pytest.mark.parametrize("version", ["7", ""])
def test_client_reads_what_was_added(path: Path, content: bytes, version: str) -> None:
    path.write_bytes(add(content, version=version))
    assert read_metadata(path) == Metadata(CLASS_NAMES, mean=(0.0,), std=(1.0,), model_version=version, spec=SPEC)
    assert litert_files.read_names(path) == ("garden", "Tells flowers apart.")


def test_model_predicts_as_before(path: Path, content: bytes) -> None:
    np.testing.assert_array_equal(predict(path.read_bytes()), predict(content))
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
    assert litert_files.read_spec(path) == SPEC


def test_same_model_gives_the_same_file(path: Path, content: bytes) -> None:
    assert add(content) == path.read_bytes()


def test_adding_again_replaces_what_was_there(path: Path, content: bytes) -> None:
    once = path.read_bytes()
    twice = add(once, class_names=["a", "b", "c"])
    path.write_bytes(twice)
    assert read_metadata(path).class_names == ("a", "b", "c")
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
    np.testing.assert_array_equal(predict(described), predict(quantized))


@pytest.mark.parametrize(
    "labels",
    [
        *[(), ("a", "b"), ("a", "b", "c", "d"), ("a", "", "c"), ("a", "b\nc", "d"), ("a", "b", "a")],
        *[
            ("a", "b", label)
            for label in (" c", "c ", "c\u00a0", "c\u00a0d", "c\r", "c\rd", "c\0", "c\u2028d", "\ud800")
        ],
    ],
)
def test_labels_that_do_not_fit_the_outputs_are_refused(content: bytes, labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"The labels must be one for each of 3 outputs, .*Received: "):
        add(content, class_names=labels)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=st.lists(st.text(max_size=8), min_size=3, max_size=3))
def test_labels_are_read_back_as_they_were_or_refused(path: Path, content: bytes, labels: list[str]) -> None:
    """What may name a folder of photos may be a label, and nothing else."""
    if all(map(is_class_name, labels)) and len(set(labels)) == len(labels):
        path.write_bytes(add(content, class_names=labels))
        assert read_metadata(path).class_names == tuple(labels)
    else:
        with pytest.raises(ValueError, match="The labels must be"):
            add(content, class_names=labels)


def test_author_and_license_are_written_where_they_are_known(content: bytes) -> None:
    """Fields 4 and 5 of the schema's ModelMetadata."""

    def read(**texts: str) -> list[str]:
        spec: Any = SPEC
        added = metadata.add(metadata.unpack(content), spec=spec, description="", **texts)
        table = litert_metadata._find_metadata(added)
        assert table
        return [table.text(field) for field in (2, 4, 5)]

    assert read(version="7", author="Jane Doe", license="Apache-2.0") == ["7", "Jane Doe", "Apache-2.0"]
    assert read() == ["", "", ""]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_file_that_is_cut_short_is_refused_with_its_name(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelFileError, match=r"A LiteRT file must be a model with metadata, .*garden\.tflite"):
        read_metadata(path)
