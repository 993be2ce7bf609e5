import functools
import threading
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from flatbuffers import flexbuffers
from tensorflow.core.protobuf import meta_graph_pb2

from serving.local_server.errors import Code
from serving.local_server.litert import LiteRTServable
from serving.local_server.litert_signatures import METADATA_NAME
from serving.local_server.loading import load
from serving.local_server.servable import CLASSIFY, PREDICT, Array, LoadOptions
from tests.serving.local_server.conftest import status_error

SIZE_PX = 12


class Signatures(tf.Module):
    """One signature for each shape of model; none of them is the default one."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = tf.Variable(np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def dynamic(self, x: Any) -> Mapping[str, Any]:
        return {"scores": tf.nn.softmax(x @ self.weights), "double": x + x}

    @tf.function(input_signature=[tf.TensorSpec([1, 4], tf.float32, name="x")])
    def fixed(self, x: Any) -> Mapping[str, Any]:
        return {"scores": tf.nn.softmax(x @ self.weights)}

    @tf.function(
        input_signature=[tf.TensorSpec([None, 2], tf.float32, name="a"), tf.TensorSpec([None, 2], tf.float32, name="b")]
    )
    def pair(self, a: Any, b: Any) -> Mapping[str, Any]:
        return {"sum": a + b}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def text(self, text: Any) -> Mapping[str, Any]:
        return {"again": tf.expand_dims(text, 1), "first": text[0]}

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="text")])
    def word(self, text: Any) -> Mapping[str, Any]:
        return {"again": tf.expand_dims(text, 0)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="x")])
    def scalar(self, x: Any) -> Mapping[str, Any]:
        return {"double": x + x}

    @tf.function(input_signature=[tf.TensorSpec([3, 2], tf.float32, name="x")])
    def table(self, x: Any) -> Mapping[str, Any]:
        return {"double": x + x}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def total(self, x: Any) -> Mapping[str, Any]:
        return {"sum": tf.reduce_sum(x, 0)}


def convert(converter: Any) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's, on what it guesses
        return converter.convert()


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with several signatures."""
    folder = tmp_path_factory.mktemp("signed")
    module = Signatures()
    names = ["dynamic", "fixed", "pair", "text", "word", "scalar", "table", "total"]
    tf.saved_model.save(module, str(folder), signatures={name: getattr(module, name) for name in names})
    content = convert(tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=names))
    (folder / "model.tflite").write_bytes(content)
    return folder / "model.tflite"


@pytest.fixture(scope="module")
def unsigned(tmp_path_factory: pytest.TempPathFactory, signed: Path) -> Path:
    """A model of the kind that has no signatures: tensors by their own names."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    content = convert(tf.lite.TFLiteConverter.from_keras_model(_make_keras()))
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    model.signatureDefs = []
    path = tmp_path_factory.mktemp("unsigned") / "model.tflite"
    path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    return path


class Raw(bytes):
    """Bytes that pass for text: the builder of FlexBuffers writes them as they are."""

    def encode(self, encoding: str) -> bytes:
        return self


Describe = Callable[..., Path]


@pytest.fixture
def describe(tmp_path: Path, unsigned: Path) -> Describe:
    """Return the function that writes signatures, or anything else, into a copy of a file's metadata."""
    from ai_edge_litert import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    def describe(content: bytes | None = None, **signatures: Any) -> Path:
        builder = flexbuffers.Builder()
        with builder.Map():
            for name, signature in signatures.items():
                builder.Key(name)
                builder.String(Raw(signature.SerializeToString()))
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(unsigned.read_bytes(), 0))
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = bytes(builder.Finish()) if content is None else content
        entry.name, entry.buffer = METADATA_NAME.decode(), len(model.buffers)
        model.buffers.append(buffer)
        model.metadata = [*(model.metadata or []), entry]
        path = tmp_path / "model.tflite"
        path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
        return path

    return describe


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes and gives bytes, all of it int8 inside."""
    rng = np.random.default_rng(2)
    converter = tf.lite.TFLiteConverter.from_keras_model(_make_keras())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [rng.random((1, SIZE_PX, SIZE_PX, 3), dtype=np.float32)] for _ in range(8)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    path = tmp_path_factory.mktemp("quantized") / "model.tflite"
    path.write_bytes(convert(converter))
    return path


def _make_keras() -> Any:
    import keras

    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((SIZE_PX, SIZE_PX, 3), name="pixels"),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )


@pytest.fixture(scope="module")
def serve() -> Any:
    """Return the function that loads a model once for all tests."""
    with ExitStack() as stack:

        @functools.cache
        def serve(path: Path) -> LiteRTServable:
            servable = LiteRTServable(path)
            stack.callback(servable.close)
            return servable

        yield serve


Serve = Callable[[Path], LiteRTServable]


def run_plain(path: Path, x: Array) -> Array:
    """Run the rows of the only input through the interpreter itself, one by one."""
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    [taken], [given] = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for row in x:
        interpreter.set_tensor(taken["index"], row[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(given["index"]))
    return np.concatenate(found)


def names(servable: LiteRTServable, signature: str = "serving_default") -> tuple[str, str]:
    """Return the names of the only input and the only output tensor."""
    described = servable.signatures[signature]
    [taken], [given] = described.inputs.values(), described.outputs.values()
    return taken.name, given.name


def images(num_rows: int, dtype: Any, seed: int = 0) -> Array:
    pixels = np.random.default_rng(seed).random((num_rows, SIZE_PX, SIZE_PX, 3), dtype=np.float32)
    return (pixels * 255).astype(dtype) if dtype == np.uint8 else pixels


@pytest.mark.parametrize("num_rows", [1, 3, 17])
@pytest.mark.parametrize(("kind", "dtype"), [("unsigned", np.float32), ("quantized", np.uint8)])
def test_rows_have_the_interpreters_outputs_and_their_order(
    request: pytest.FixtureRequest, serve: Serve, kind: str, dtype: Any, num_rows: int
) -> None:
    path = request.getfixturevalue(kind)
    servable, x = serve(path), images(num_rows, dtype, seed=num_rows)
    taken, given = names(servable)
    [y] = servable.run({taken: x}, [given])
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, run_plain(path, x))
    assert num_rows == 1 or len(np.unique(y, axis=0)) > 1


@pytest.mark.parametrize("num_rows", [1, 3, 17])
@pytest.mark.parametrize("signature", ["dynamic", "fixed"])
def test_signatures_run_by_name(signed: Path, serve: Serve, signature: str, num_rows: int) -> None:
    servable = serve(signed)
    x = np.random.default_rng(num_rows).normal(size=(num_rows, 4)).astype(np.float32)
    [scores] = servable.run({f"{signature}/x": x}, [f"{signature}/scores"])
    expected = tf.nn.softmax(x @ Signatures().weights).numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-6)  # float32, summed in another order
    if signature == "dynamic":
        double, again = servable.run({"dynamic/x": x}, ["dynamic/double", "dynamic/scores"])
        np.testing.assert_array_equal(double, x + x)
        np.testing.assert_array_equal(again, scores)


def test_several_signatures_run_in_one_call(signed: Path, serve: Serve) -> None:
    ones = np.ones((2, 4), np.float32)
    feeds = {"dynamic/x": ones, "fixed/x": -ones}
    scores, double, other = serve(signed).run(feeds, ["fixed/scores", "dynamic/double", "dynamic/scores"])
    np.testing.assert_array_equal(double, ones * 2)
    for found, x in ((scores, -ones), (other, ones)):
        np.testing.assert_allclose(found, tf.nn.softmax(x @ Signatures().weights).numpy(), atol=1e-6)  # float32


def test_tensors_need_not_be_numbers_or_have_rows(signed: Path, serve: Serve) -> None:
    servable = serve(signed)
    text = np.array([b"a", b"\xff\0b\0", b""], object)
    again, first = servable.run({"text/text": text}, ["text/again", "text/first"])
    assert again.tolist() == [[b"a"], [b"\xff\0b\0"], [b""]]
    assert (first.shape, first.tolist()) == ((), b"a")
    [first] = servable.run({"text/text": text[1:]}, ["text/first"])
    assert first.tolist() == b"\xff\0b\0"
    assert servable.run({"word/text": np.array(b"a\0b\0", object)}, ["word/again"])[0].tolist() == [b"a\0b\0"]
    [double] = servable.run({"scalar/x": np.array(3, np.float32)}, ["scalar/double"])
    assert (double.shape, double.tolist()) == ((), 6)
    ones = np.ones((3, 2), np.float32)
    assert servable.run({"table/x": ones}, ["table/double"])[0].tolist() == (ones * 2).tolist()
    assert servable.run({"total/x": np.ones((5, 2), np.float32)}, ["total/sum"])[0].tolist() == [5, 5]
    a, b = np.arange(16, dtype=np.float32).reshape(2, 4, 2)
    assert servable.run({"pair/a": a, "pair/b": b}, ["pair/sum"])[0].tolist() == (a + b).tolist()


@pytest.mark.parametrize(
    ("signature", "alias", "shape"),
    [
        ("dynamic", "x", (None, 4)),
        ("fixed", "x", (None, 4)),  # its rows are run one by one
        ("pair", "b", (None, 2)),
        ("text", "text", (None,)),
        ("scalar", "x", ()),
        ("table", "x", (3, 2)),  # its first axis is no batch
        ("total", "x", (None, 2)),
    ],
)
def test_shapes_say_what_an_input_may_be(
    signed: Path, serve: Serve, signature: str, alias: str, shape: tuple[int | None, ...]
) -> None:
    servable = serve(signed)
    assert servable.shape(f"{signature}/{alias}") == shape
    info = servable.signatures[signature].inputs[alias]
    assert tuple(None if dim.size == -1 else dim.size for dim in info.tensor_shape.dim) == shape


def test_signatures_are_described_as_those_of_a_saved_model(signed: Path, serve: Serve) -> None:
    signatures = serve(signed).signatures
    assert {signature.method_name for signature in signatures.values()} == {PREDICT}
    assert tf.dtypes.as_dtype(signatures["text"].outputs["again"].dtype) == tf.string
    assert [dim.size for dim in signatures["fixed"].outputs["scores"].tensor_shape.dim] == [-1, 3]
    assert signatures["scalar"].inputs["x"].HasField("tensor_shape")


def test_signatures_in_the_metadata_give_aliases_to_tensors(serve: Serve, unsigned: Path, describe: Describe) -> None:
    taken, given = (name.removeprefix("serving_default/") for name in names(serve(unsigned)))
    one, two = (
        meta_graph_pb2.SignatureDef(
            method_name=method, inputs={"x": {"name": taken}}, outputs={"y": {"name": f"{given}:0"}}
        )
        for method in (PREDICT, CLASSIFY)
    )
    servable = LiteRTServable(describe(one=one, two=two))
    try:
        assert {name: found.method_name for name, found in servable.signatures.items()} == {
            "one": PREDICT,
            "two": CLASSIFY,
        }
        info = servable.signatures["one"].inputs["x"]
        assert [dim.size for dim in info.tensor_shape.dim] == [-1, SIZE_PX, SIZE_PX, 3]
        x = images(3, np.float32)
        [y] = servable.run({info.name: x}, [servable.signatures["one"].outputs["y"].name])
        np.testing.assert_array_equal(y, run_plain(unsigned, x))
    finally:
        servable.close()


def test_signatures_in_the_metadata_that_cannot_be_read_are_refused(describe: Describe) -> None:
    for content in (b"", b"\0", b"noise", bytes(range(256)), flexbuffers.Dumps({"a": 1})):
        with status_error(Code.INVALID_ARGUMENT, "Invalid SignatureDefs found in TfLite model: "):
            LiteRTServable(describe(bytes(content)))
    signature = meta_graph_pb2.SignatureDef(inputs={"x": {"name": "nowhere"}})
    with status_error(Code.INVALID_ARGUMENT, "Signature input x references an unknown tensor: 'nowhere'"):
        LiteRTServable(describe(serving_default=signature))


@pytest.mark.parametrize(("signature", "shape"), [("fixed", [0, 3]), ("dynamic", [0, 3])])
def test_no_rows_have_no_rows_of_outputs(signed: Path, serve: Serve, signature: str, shape: list[int]) -> None:
    [scores] = serve(signed).run({f"{signature}/x": np.zeros((0, 4), np.float32)}, [f"{signature}/scores"])
    assert (list(scores.shape), scores.dtype) == (shape, np.float32)


BAD = [
    pytest.param(np.ones((1, 5), np.float32), id="size"),
    pytest.param(np.ones((2, 7), np.float32), id="size of rows"),
    pytest.param(np.ones((4,), np.float32), id="rank"),
    pytest.param(np.ones((1, 4), np.float64), id="precision"),
    pytest.param(np.ones((3, 4), np.int32), id="type"),
    pytest.param(np.array([[b"a"] * 4], object), id="text"),
]


@pytest.mark.parametrize("x", BAD)
@pytest.mark.parametrize("kind", ["signed", "unsigned", "quantized"])
def test_a_wrong_input_is_refused_and_the_model_works_afterwards(
    request: pytest.FixtureRequest, serve: Serve, kind: str, x: Array
) -> None:
    servable = serve(request.getfixturevalue(kind))
    taken, given = ("fixed/x", "fixed/scores") if kind == "signed" else names(servable)
    good = (
        np.ones((1, 4), np.float32) if kind == "signed" else images(1, np.uint8 if kind == "quantized" else np.float32)
    )
    [before] = servable.run({taken: good}, [given])
    with status_error(Code.INVALID_ARGUMENT, "the LiteRT model refuses its input"):
        servable.run({taken: x}, [given])
    for rows in (good, np.concatenate([good] * 3)):
        [after] = servable.run({taken: rows}, [given])
        np.testing.assert_array_equal(after, np.concatenate([before] * len(rows)))


@pytest.mark.parametrize("kind", ["signed", "unsigned"])
def test_threads_share_a_model_and_each_gets_its_own_outputs(
    request: pytest.FixtureRequest, serve: Serve, kind: str
) -> None:
    servable = serve(request.getfixturevalue(kind))
    taken, given = ("fixed/x", "fixed/scores") if kind == "signed" else names(servable)
    rng = np.random.default_rng(5)
    shape = (4,) if kind == "signed" else (SIZE_PX, SIZE_PX, 3)
    inputs = [rng.random((1 + i % 4, *shape), dtype=np.float32) for i in range(40)]
    expected = [servable.run({taken: x}, [given])[0] for x in inputs]
    start = threading.Barrier(8)

    def work(worker: int) -> list[tuple[int, Array]]:
        start.wait()
        return [(i, servable.run({taken: inputs[i]}, [given])[0]) for i in range(worker % 3, len(inputs), 3)]

    with ThreadPoolExecutor(8) as threads:
        for found in threads.map(work, range(8)):
            for i, y in found:
                # One thread or several: sums in another order.
                np.testing.assert_allclose(y, expected[i], atol=1e-6)


@pytest.mark.parametrize("num_rows", [1, 3])
def test_outputs_keep_their_values_when_the_model_runs_again(signed: Path, serve: Serve, num_rows: int) -> None:
    servable = serve(signed)
    ones = np.ones((num_rows, 4), np.float32)
    [first] = servable.run({"dynamic/x": ones}, ["dynamic/double"])
    for i in range(10):
        servable.run({"dynamic/x": ones * i}, ["dynamic/double"])
    assert (first == 2).all()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_half_a_model_is_refused(tmp_path: Path, signed: Path, share: float) -> None:
    content = signed.read_bytes()
    path = tmp_path / "model.tflite"
    path.write_bytes(content[: int(len(content) * share)])
    with status_error(Code.FAILED_PRECONDITION, rf"A version must hold a whole LiteRT model\. {path} is not one"):
        LiteRTServable(path)


def test_a_closed_model_lets_its_threads_go(quantized: Path) -> None:
    before = threading.active_count()
    servable = load(quantized.parent, LoadOptions(prefer_litert=True))
    assert isinstance(servable, LiteRTServable)
    taken, given = names(servable)
    servable.run({taken: images(4, np.uint8)}, [given])
    servable.close()
    assert threading.active_count() == before
