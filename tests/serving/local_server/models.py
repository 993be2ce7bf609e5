"""Tiny models for the local server's tests, most of them as TensorFlow 1 wrote them, and a call that builds all.

`half_plus_two` has the tensors, signatures and metadata of the model that TensorFlow Serving's own tests use
(servables/tensorflow/testdata/saved_model_half_plus_two.py): its clients' tests run here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1
signatures = tf1.saved_model

FIELDS = {
    "float16": "half_val",
    "bfloat16": "half_val",
    "float32": "float_val",
    "float64": "double_val",
    "int8": "int_val",
    "int16": "int_val",
    "int32": "int_val",
    "int64": "int64_val",
    "uint8": "int_val",
    "uint16": "int_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "string": "string_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
}
"""The types of tensors, each with the field of a `TensorProto` that holds its values."""


def build(folder: Path) -> None:
    """Write every model under `<folder>/<name>/<version>`."""
    half_plus(folder / "half_plus_two" / "00000123", 2.0)
    half_plus(folder / "half_plus_three" / "00000123", 3.0)
    half_plus(folder / "two_versions" / "1", 2.0)
    half_plus(folder / "two_versions" / "2", 3.0)
    echo(folder / "echo" / "1")
    judge(folder / "judge" / "1")
    block(folder / "block" / "1")
    endless(folder / "endless" / "1")
    heavy(folder / "heavy" / "1")
    tagged(folder / "tagged" / "1")
    refused(folder / "refused" / "1")
    exported(folder / "exported" / "1")
    module(folder / "module" / "1")
    examples(folder / "examples" / "1")


def half_plus(path: Path, number: float) -> None:
    """y = x / 2 + `number`, for tensors and for serialized `tf.Example`s; what is fed as `x` is no placeholder."""
    with tf.Graph().as_default(), tf1.Session() as session:
        half = tf1.get_variable("a", initializer=0.5)
        added = tf1.get_variable("b", initializer=number)
        three = tf1.get_variable("c", initializer=3.0)
        examples = tf1.placeholder(tf.string, [None], name="tf_example")
        features = tf1.parse_example(
            examples,
            {"x": tf.io.FixedLenFeature([1], tf.float32), "x2": tf.io.FixedLenFeature([1], tf.float32, [0.0])},
        )
        x, x2 = (tf.identity(features[name], name) for name in ("x", "x2"))
        y = tf.identity(half * x + added, "y")
        y2 = tf.identity(half * x + three, "y2")
        y3 = tf.identity(half * x2 + three, "y3")
        asset = path.with_name(f"{path.name}.foo.txt")
        asset.parent.mkdir(parents=True, exist_ok=True)
        asset.write_text("asset-file-contents")
        tf1.add_to_collection(tf1.GraphKeys.ASSET_FILEPATHS, tf.constant(str(asset)))
        found = {
            "serving_default": signature({"x": x}, {"y": y}),
            "classify_x_to_y": signature({"inputs": examples}, {"scores": y}, "classify"),
            "regress_x_to_y": signature({"inputs": examples}, {"outputs": y}, "regress"),
            "regress_x_to_y2": signature({"inputs": examples}, {"outputs": y2}, "regress"),
            "regress_x2_to_y3": signature({"inputs": x2}, {"outputs": y3}, "regress"),
        }
        for name in ("classify_x_to_y", "regress_x_to_y", "regress_x_to_y2"):
            found[name].inputs["inputs"].tensor_shape.Clear()
            found[name].inputs["inputs"].tensor_shape.unknown_rank = True
        assets = tf1.get_collection(tf1.GraphKeys.ASSET_FILEPATHS)
        _save(session, path, found, assets_collection=assets)
        asset.unlink()


def echo(path: Path) -> None:
    """`y` = `x`, of any shape: one signature for each type, named after it, and no default one."""
    with tf.Graph().as_default(), tf1.Session() as session:
        found = {}
        for dtype in FIELDS:
            x = tf1.placeholder(dtype)
            found[dtype] = signature({"x": x}, {"y": tf.identity(x)})
        x = tf1.placeholder(tf.string)
        found["bytes"] = signature({"image_bytes": x}, {"image_bytes": tf.identity(x)})
        found["placeholder"] = signature({"x": x}, {"x": x, "length": tf.strings.length(x)})
        found["no_rows"] = signature({"x": x}, {"y": tf.zeros([0, 2])})
        found["uneven"] = signature({"x": x}, {"y": tf.zeros([2]), "z": tf.zeros([3])})
        found["defaults"] = signature({"x": x, "z": (z := tf1.placeholder(tf.string))}, {"y": tf.strings.join([x, z])})
        found["defaults"].defaults["z"].CopyFrom(tf.make_tensor_proto([b"!"]))
        _save(session, path, found)


def judge(path: Path) -> None:
    """Classify and regress with a `tf.Example`'s `x` and `query`, rightly and in many wrong ways."""
    with tf.Graph().as_default(), tf1.Session() as session:
        inputs = tf1.placeholder(tf.string, [None])
        features = tf1.parse_example(
            inputs,
            {
                "x": tf.io.FixedLenFeature([], tf.float32, -1.0),
                "n": tf.io.FixedLenFeature([], tf.int64, -1),
                "query": tf.io.FixedLenFeature([], tf.string, "none"),
            },
        )
        scores = tf.stack([features["x"], tf.cast(features["n"], tf.float32)], axis=1)
        classes = tf.stack([features["query"], tf.strings.upper(features["query"])], axis=1)
        other = tf1.placeholder(tf.string, [None])
        found = {}
        for name, outputs in {
            "serving_default": {"classes": classes, "scores": scores},
            "classes": {"classes": classes},
            "flat": {"scores": features["x"]},
            "long": {"scores": tf.concat([scores, scores], 0)},
            "doubles": {"scores": tf.cast(scores, tf.float64)},
            "numbers": {"classes": tf.cast(scores, tf.int32)},
            "uneven": {"classes": classes, "scores": scores[:, :1]},
            "unnamed": {"labels": classes},
            "three": {"classes": classes, "scores": scores, "more": scores},
        }.items():
            found[name] = signature({"inputs": inputs}, outputs, "classify")
        found["no_inputs"] = signature({"examples": inputs}, {"scores": scores}, "classify")
        found["two_inputs"] = signature({"inputs": inputs, "other": other}, {"scores": scores}, "classify")
        for name, output in {
            "regress": features["x"],
            "wide": scores,
            "long_regress": tf.concat([features["x"], features["x"]], 0),
            "double_regress": tf.cast(features["x"], tf.float64),
        }.items():
            found[name] = signature({"inputs": inputs}, {"outputs": output}, "regress")
        found["unnamed_regress"] = signature({"inputs": inputs}, {"y": features["x"]}, "regress")
        found["other_inputs"] = signature({"inputs": other}, {"outputs": tf.strings.to_number(other)}, "regress")
        # As TensorFlow 2 saves every signature: TensorFlow Serving classifies and regresses with these, too.
        found["native_classify"] = signature({"inputs": inputs}, {"classes": classes, "scores": scores}, "predict")
        found["native_regress"] = signature({"inputs": inputs}, {"outputs": features["x"]}, "predict")
        found["no_method"] = signatures.build_signature_def(_infos({"x": other}), _infos({"y": tf.identity(other)}), "")
        _save(session, path, found)


def block(path: Path) -> None:
    """The default signature waits until `release` was called once for it: a slow model without a clock."""
    with tf.Graph().as_default(), tf1.Session() as session:
        queue = tf1.FIFOQueue(64, [tf.float32], [[]])
        x = tf1.placeholder(tf.float32, [None])
        with tf.control_dependencies([queue.dequeue()]):
            waited = tf.identity(x)
        with tf.control_dependencies([queue.enqueue(0.0)]):
            released = tf.identity(x)
        _save(
            session,
            path,
            {"serving_default": signature({"x": x}, {"y": waited}), "release": signature({"x": x}, {"y": released})},
        )


def endless(path: Path) -> None:
    """Multiply matrices on and on: only a deadline ends it."""
    with tf.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder(tf.float32, [None])
        matrix = tf.zeros([64, 64]) + tf.reduce_sum(x)
        # NaN equals nothing, so the loop goes on; TensorFlow does not find out.
        last = tf.while_loop(lambda m: tf.not_equal(m[0, 0], float("nan")), lambda m: tf.matmul(m, m), [matrix])
        _save(session, path, {"serving_default": signature({"x": x}, {"y": tf.reduce_sum(last, 1)})})


def heavy(path: Path) -> None:
    """A variable of 20 MB, and as much in the graph, as its initial value."""
    with tf.Graph().as_default(), tf1.Session() as session:
        numbers = tf1.get_variable("numbers", initializer=np.arange(5e6, dtype=np.float32))
        x = tf1.placeholder(tf.float32, [None])
        _save(session, path, {"serving_default": signature({"x": x}, {"y": x + numbers[0]})})


def tagged(path: Path) -> None:
    """Two graphs over the same variable: x + 1 with the tag `serve`, x + 2 with the tags `serve` and `gpu`."""
    builder = tf1.saved_model.Builder(str(path))
    for tags, number in ((["serve"], 1.0), (["serve", "gpu"], 2.0)):
        with tf.Graph().as_default(), tf1.Session() as session:
            one = tf1.get_variable("one", initializer=1.0)
            x = tf1.placeholder(tf.float32, [None])
            found = {"serving_default": signature({"x": x}, {"y": x + one * number})}
            session.run(tf1.global_variables_initializer())
            if tags == ["serve"]:
                builder.add_meta_graph_and_variables(session, tags, found)
            else:
                builder.add_meta_graph(tags, found)
    builder.save()


def exported(path: Path) -> None:
    """A Keras 3 model with a fixed kernel: y = [x0 + x1 + x2, same]."""
    model = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2, kernel_initializer="ones")])
    model.export(path, verbose=False)


class _Module(tf.Module):
    """Several named inputs of different types, a table whose keys lie in a file, and scalars."""

    def __init__(self, vocabulary: Path) -> None:
        super().__init__()
        keys = tf.lookup.TextFileInitializer(
            str(vocabulary),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self.table = tf.lookup.StaticHashTable(keys, -1)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int64, "ids"),
            tf.TensorSpec([None], tf.string, "text"),
            tf.TensorSpec([None], tf.bool, "flags"),
            tf.TensorSpec([None, 2], tf.float16, "halves"),
        ]
    )
    def __call__(self, ids: Any, text: Any, flags: Any, halves: Any) -> Mapping[str, Any]:
        return {
            "next": ids + 1,
            "shout": tf.strings.upper(text),
            "shout_bytes": tf.strings.upper(text),
            "not": tf.logical_not(flags),
            "sum": tf.reduce_sum(halves, axis=1),
            "line": self.table.lookup(text),
        }

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, "x")])
    def scalar(self, x: Any) -> Mapping[str, Any]:
        return {"double": 2 * x, "name": tf.strings.as_string(x)}


def module(path: Path) -> None:
    """A `tf.Module` with a signature of several inputs and outputs, and one of scalars."""
    vocabulary = path.parent / "vocabulary.txt"
    vocabulary.parent.mkdir()
    vocabulary.write_text("a\nb\n")
    model = _Module(vocabulary)
    tf.saved_model.save(model, str(path), signatures={"serving_default": model.__call__, "scalar": model.scalar})
    vocabulary.unlink()


class _Examples(tf.Module):
    """Two signatures for serialized `tf.Example`s, each with a placeholder of its own, as TensorFlow 2 exports them."""

    def _read(self, inputs: Any) -> Any:
        return tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([1], tf.float32)})["x"]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def classify(self, inputs: Any) -> Mapping[str, Any]:
        return {"scores": self._read(inputs)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def regress(self, inputs: Any) -> Mapping[str, Any]:
        return {"outputs": 2 * self._read(inputs)}


def examples(path: Path) -> None:
    """x of a `tf.Example` as a score, and twice as much as a regression."""
    model = _Examples()
    tf.saved_model.save(model, str(path), signatures={"classify": model.classify, "regress": model.regress})


def refused(path: Path) -> None:
    """A valid model that `tf.saved_model.load` refuses, since one of its signatures lacks an input."""
    with tf.Graph().as_default(), tf1.Session() as session:
        x, z = tf1.placeholder(tf.float32, [None], "x"), tf1.placeholder(tf.float32, [None], "z")
        sparse, ragged = tf1.sparse_placeholder(tf.float32), tf1.ragged.placeholder(tf.float32, 1)
        doubled = tf.identity(2 * x, "doubled")
        _save(
            session,
            path,
            {
                "serving_default": signature({"x": x}, {"y": doubled + 1}),
                "inner": signature({"doubled": doubled}, {"y": doubled + 1}),
                "incomplete": signature({"x": x}, {"y": x + z}),
                "sparse": signature({"x": sparse}, {"y": tf.sparse.to_dense(sparse)}),
                "ragged": signature({"x": ragged}, {"y": ragged.to_tensor()}),
                "sparse_inputs": signature({"inputs": sparse}, {"scores": tf.sparse.to_dense(sparse)}, "classify"),
            },
        )


def signature(inputs: Mapping[str, Any], outputs: Mapping[str, Any], method: str = "predict") -> Any:
    """Describe a signature of tensors by alias."""
    return signatures.build_signature_def(_infos(inputs), _infos(outputs), f"tensorflow/serving/{method}")


def _infos(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {alias: signatures.build_tensor_info(tensor) for alias, tensor in tensors.items()}


def _save(session: Any, path: Path, signature_defs: Mapping[str, Any], **options: Any) -> None:
    session.run(tf1.global_variables_initializer())
    builder = tf1.saved_model.Builder(str(path))
    builder.add_meta_graph_and_variables(session, ["serve"], signature_defs, **options)
    builder.save()
