"""Write LiteRT files with and without metadata: a model that tells colours apart, as float32 or as uint8."""

import io
import itertools
import json
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from client.classifier_client.transports import litert_metadata
from export import metadata
from export.metadata import _File, _Model, _Normalization, _ProcessUnit, _Subgraph, _Tensor

CLASS_NAMES = ("red", "green", "blue")
SPEC = "model_spec.json"
P_VALUE_OF_GREY, REFUSED_SHARE, MIN_PROBABILITY = 1 / 277, 0.03, 0.2


def convert(shape: Sequence[int], *, num_inputs: int = 1, representative: Any = None, activation: Any = None) -> bytes:
    """Return a model whose probabilities say how red, green and blue an image of -1 to 1 is.

    Args:
        shape: `[height, width, channels]` of the image.
        num_inputs: images that it takes; their sum counts.
        representative: images `float32 [1, height, width, channels]` to quantize with, for uint8 in and out.
        activation: what makes the outputs; a softmax where there is none.
    """
    import tensorflow as tf

    def classify(*images: Any) -> Any:
        return (activation or tf.nn.softmax)(4.0 * tf.reduce_mean(tf.add_n(images), [1, 2]))

    graph = tf.function(classify).get_concrete_function(*[tf.TensorSpec([1, *shape])] * num_inputs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph], tf.Module())
    if representative is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image] for image in representative)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The converter warns of what has no consequence here.
        content: bytes = converter.convert()
    return content


def convert_with_limits(shape: Sequence[int], **outputs: Any) -> bytes:
    """Return that model with limits: it knows colours and refuses greys.

    Args:
        shape: `[height, width, channels]` of the image.
        outputs: what makes others of the limits of the probabilities `float32 [1, 3]`; `None` takes one away.
    """
    import tensorflow as tf

    from export.litert_limits import hide_limits

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([1, *shape])], autograph=False)
        def images(self, images: Any) -> Any:
            probabilities = tf.nn.softmax(4.0 * tf.reduce_mean(images, [1, 2]))
            best = tf.reduce_max(probabilities, axis=1)
            p_value = tf.maximum((3.0 * best - 1.0) / 2.0, P_VALUE_OF_GREY)
            made = {
                "p_value": p_value,
                "is_known": p_value > REFUSED_SHARE,
                "prediction_set": (probabilities >= MIN_PROBABILITY) | (probabilities >= best[:, tf.newaxis]),
            }
            made |= {name: make and make(probabilities) for name, make in outputs.items()}
            # By an operator that XNNPACK does not run, which keeps to itself what it makes.
            first = tf.cast(images[:, 0, 0, 0] < -2, tf.int32)
            kept = {name: tf.gather(value, first) for name, value in made.items() if value is not None}
            return {"probabilities": probabilities, **kept}

    model = Model()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The converter warns of what has no consequence here.
        tf.saved_model.save(model, folder, signatures={"images": model.images})
        content = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["images"]).convert()
    unpacked = metadata.unpack(content)
    hide_limits(unpacked)
    return metadata.pack(unpacked)


def corners(shape: Sequence[int]) -> list[Any]:
    """Return one image of each of the eight purest colours, to quantize with."""
    return [np.broadcast_to(np.float32(corner), (1, *shape)) for corner in itertools.product((-1, 1), repeat=3)]


def with_metadata(
    content: bytes,
    *,
    labels: Sequence[str] | None = CLASS_NAMES,
    normalization: tuple[Sequence[float], Sequence[float]] | None = ((127.5,), (127.5,)),
    version: str = "",
    spec: dict[str, Any] | None = None,
) -> bytes:
    """Add the standard metadata to a model, as other writers do: not all fields are there."""
    inputs: dict[Any, Any] = {}
    outputs: dict[Any, Any] = {}
    files: dict[str, str] = {}
    if normalization:
        options = dict(zip(_Normalization, normalization, strict=True))
        unit = {_ProcessUnit.TYPE: metadata._NORMALIZATION_OPTIONS, _ProcessUnit.OPTIONS: options}
        inputs[_Tensor.PROCESS_UNITS] = [unit]
    if labels is not None:
        outputs[_Tensor.FILES] = [{_File.NAME: "labels.txt", _File.TYPE: metadata._TENSOR_AXIS_LABELS}]
        files["labels.txt"] = "\n".join(labels) + "\n"
    if spec is not None:
        files[SPEC] = json.dumps(spec)
    subgraph = {_Subgraph.INPUTS: [inputs], _Subgraph.OUTPUTS: [outputs]}
    builder = flatbuffers.Builder(0)
    root = metadata._write_table(
        builder, {_Model.NAME: "colours", _Model.VERSION: version, _Model.SUBGRAPHS: [subgraph]}
    )
    builder.Finish(root, b"M001")
    model = metadata.unpack(content)
    model.metadata = [
        *(model.metadata or []),
        schema.MetadataT(name="TFLITE_METADATA", buffer=len(model.buffers)),
    ]
    model.buffers.append(schema.BufferT(data=np.frombuffer(builder.Output(), np.uint8)))
    archive = io.BytesIO()
    if files:
        with zipfile.ZipFile(archive, "w") as writer:
            for name, text in files.items():
                writer.writestr(name, text)
    return metadata.pack(model) + archive.getvalue()


def read_names(path: Path) -> tuple[str, str]:
    """Return the name and the description in a file's metadata, which the client does not read."""
    table = litert_metadata._find_metadata(path.read_bytes())
    assert table
    return table.text(0), table.text(1)


def read_spec(path: Path) -> Any:
    """Return the `model_spec.json` that is packed with a file."""
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(SPEC))
