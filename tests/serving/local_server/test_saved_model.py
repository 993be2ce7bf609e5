"""Any valid SavedModel is served, whichever API wrote it; those over the wire are in the protocols' tests."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

from serving.local_server.errors import Code, StatusError
from serving.local_server.loading import load
from serving.local_server.servable import LoadOptions, Servable
from tests.serving.local_server import models
from tests.serving.local_server.conftest import linux, status_error

Load = Callable[..., Servable]


@pytest.fixture
def load_model() -> Iterator[Load]:
    """Return the function that loads a version folder; what it loads is closed in the end."""
    with ExitStack() as stack:

        def load_model(path: Path, **options: Any) -> Servable:
            servable = load(path, LoadOptions(**options))
            stack.callback(servable.close)
            return servable

        yield load_model


def run(servable: Servable, signature: str = "serving_default", **inputs: Any) -> Mapping[str, Any]:
    """Run a signature's inputs, by alias, and return its outputs, by alias."""
    found = servable.signatures[signature]
    feeds = {found.inputs[alias].name: value for alias, value in inputs.items()}
    outputs = servable.run(feeds, [info.name for info in found.outputs.values()])
    return dict(zip(found.outputs, outputs, strict=True))


def test_a_model_that_tensorflow_2_refuses_is_served(load_model, models_dir):
    path = models_dir / "refused" / "1"
    with pytest.raises(Exception, match="needs an input for each placeholder"):
        tf.saved_model.load(str(path))
    servable = load_model(path)
    assert run(servable, x=np.float32([1, 2]))["y"].tolist() == [3.0, 5.0]
    with status_error(Code.INVALID_ARGUMENT, "You must feed a value for placeholder tensor 'z'"):
        run(servable, "incomplete", x=np.float32([1]))


def test_an_inner_tensor_may_be_fed_with_any_shape(load_model, models_dir):
    servable = load_model(models_dir / "half_plus_two" / "00000123")
    for shape in ((1,), (2, 1), (), (2, 3, 4)):
        assert run(servable, x=np.full(shape, 2, np.float32))["y"].tolist() == np.full(shape, 3.0).tolist()


def test_a_keras_model_is_served(load_model, models_dir):
    servable = load_model(models_dir / "exported" / "1")
    (output,) = run(servable, x=np.float32([[1, 2, 3], [0, 0, 1]])).values()
    assert output.tolist() == [[6.0, 6.0], [1.0, 1.0]]


def test_a_shape_is_for_the_session_to_take_or_to_refuse(load_model, models_dir):
    """A signature's shape does not bind: what counts is whether the operations can use what is fed."""
    outputs = run(load_model(models_dir / "module" / "1"), "scalar", x=np.float32([1.5, 2]))
    assert outputs["double"].tolist() == [3.0, 4.0]
    with status_error(Code.INVALID_ARGUMENT, r"Matrix size-incompatible: In\[0\]: \[2,4\], In\[1\]: \[3,2\]"):
        run(load_model(models_dir / "exported" / "1"), x=np.zeros((2, 4), np.float32))


def test_inputs_may_be_of_many_types(load_model, models_dir):
    outputs = run(
        load_model(models_dir / "module" / "1"),
        ids=np.int64([1]),
        text=np.array(["grün".encode()], object),
        flags=np.array([True]),
        halves=np.float16([[0.5, 0.25]]),
    )
    assert outputs["shout"].tolist() == ["GRüN".encode()]
    assert (outputs["line"].tolist(), outputs["not"].tolist()) == ([-1], [False])
    assert (outputs["sum"].tolist(), outputs["sum"].dtype) == ([0.75], np.float16)


def test_a_model_without_a_default_signature_is_served(load_model, models_dir):
    servable = load_model(models_dir / "echo" / "1")
    assert "serving_default" not in servable.signatures
    zero_ended = np.array(b"a\x00", object)
    assert run(servable, "string", x=zero_ended)["y"].item() == b"a\x00"
    outputs = run(servable, "placeholder", x=np.array([b"ab"], object))
    assert {name: array.tolist() for name, array in outputs.items()} == {"x": [b"ab"], "length": [2]}


def test_tags_choose_the_graph(load_model, models_dir):
    path = models_dir / "tagged" / "1"
    assert run(load_model(path), x=np.float32([1]))["y"].tolist() == [2.0]
    assert run(load_model(path, tags=("serve", "gpu")), x=np.float32([1]))["y"].tolist() == [3.0]
    with status_error(Code.FAILED_PRECONDITION, "could not be found in SavedModel"):
        load_model(path, tags=("tpu",))


def test_a_model_in_text_format_is_served(load_model, models_dir, tmp_path):
    for source in (models_dir / "echo" / "1").rglob("*"):
        if source.is_dir():
            (tmp_path / source.name).mkdir()
    binary = (models_dir / "echo" / "1" / "saved_model.pb").read_bytes()
    text = text_format.MessageToString(saved_model_pb2.SavedModel.FromString(binary))
    (tmp_path / "saved_model.pbtxt").write_text(text)
    assert run(load_model(tmp_path), "int32", x=np.int32([7]))["y"].tolist() == [7]


def test_a_sparse_or_ragged_input_has_no_tensor(load_model, models_dir):
    servable = load_model(models_dir / "refused" / "1")
    for name in ("sparse", "ragged"):
        with pytest.raises(StatusError, match="names a tensor that the graph does not have"):
            run(servable, name, x=np.float32([1]))


def test_an_empty_folder_and_half_a_model_are_refused(load_model, models_dir, tmp_path):
    with status_error(Code.NOT_FOUND, "Could not find SavedModel"):
        load_model(tmp_path)
    source = models_dir / "half_plus_two" / "00000123" / "saved_model.pb"
    for content in (source.read_bytes(), source.read_bytes()[:500], b"", b"no model"):
        (tmp_path / "saved_model.pb").write_bytes(content)
        with pytest.raises(StatusError):
            load_model(tmp_path)


@linux
def test_a_large_model_is_read_once(load_model, tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32)
        y = x + tf.range(1 << 20, dtype=tf.float32).eval()
        models._save(session, tmp_path / "1", {"serving_default": models.signature({"x": x}, {"y": y})})
    before = num_bytes_read()
    load_model(tmp_path / "1")
    assert num_bytes_read() - before < 1.5 * (4 << 20)


def num_bytes_read() -> int:
    """Return how much this process has read from files so far."""
    return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])
