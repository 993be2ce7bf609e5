"""Write LiteRT files with and without metadata: a model that tells colours apart, as float32 or as uint8."""

import io
import json
import warnings
import zipfile
from collections.abc import Sequence
from typing import Any

import flatbuffers

CLASS_NAMES = ("red", "green", "blue")


def convert(shape: Sequence[int], *, num_inputs: int = 1, representative: Any = None) -> bytes:
    """Give a model whose probabilities say how red, green and blue a picture of -1 to 1 is.

    Args:
        shape: `[height, width, channels]` of the picture.
        num_inputs: pictures that it takes; their sum counts.
        representative: pictures `float32 [1, height, width, channels]` to quantize with, for uint8 in and out.
    """
    import tensorflow as tf

    def classify(*pictures: Any) -> Any:
        return tf.nn.softmax(4.0 * tf.reduce_mean(tf.add_n(pictures), [1, 2]))

    graph = tf.function(classify).get_concrete_function(*[tf.TensorSpec([1, *shape])] * num_inputs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph], tf.Module())
    if representative is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([picture] for picture in representative)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The converter warns of what has no consequence here.
        content: bytes = converter.convert()
    return content


def with_metadata(
    content: bytes,
    *,
    labels: Sequence[str] | None = CLASS_NAMES,
    normalization: tuple[Sequence[float], Sequence[float]] | None = ((127.5,), (127.5,)),
    version: str = "",
    spec: dict[str, Any] | None = None,
) -> bytes:
    """Add the standard metadata to a model, as metadata writers do: a flatbuffer inside, a ZIP archive behind."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = _write_metadata(labels is not None, normalization, version)
    entry.name, entry.buffer = b"TFLITE_METADATA", len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    files = {} if labels is None else {"labels.txt": "\n".join(labels) + "\n"}
    files |= {} if spec is None else {"model_spec.json": json.dumps(spec)}
    archive = io.BytesIO()
    if files:
        with zipfile.ZipFile(archive, "w") as writer:
            for name, text in files.items():
                writer.writestr(name, text)
    return bytes(builder.Output()) + archive.getvalue()


def _write_metadata(
    has_labels: bool, normalization: tuple[Sequence[float], Sequence[float]] | None, version: str
) -> list[int]:
    """Write a ModelMetadata; the numbers of the fields are those of metadata_schema.fbs."""
    builder = flatbuffers.Builder(0)
    inputs = _table(
        builder, 7, {4: _vector(builder, [_normalization(builder, *normalization)])} if normalization else {}
    )
    outputs = _table(builder, 7, {6: _vector(builder, [_labels_file(builder)])} if has_labels else {})
    subgraph = _table(builder, 10, {2: _vector(builder, [inputs]), 3: _vector(builder, [outputs])})
    texts = {0: builder.CreateString("colours"), 2: builder.CreateString(version)}
    root = _table(builder, 8, {**texts, 3: _vector(builder, [subgraph])})
    builder.Finish(root, b"M001")
    return list(builder.Output())


def _normalization(builder: flatbuffers.Builder, mean: Sequence[float], std: Sequence[float]) -> int:
    import numpy as np

    options = _table(builder, 2, {i: builder.CreateNumpyVector(np.float32(v)) for i, v in enumerate((mean, std))})
    builder.StartObject(2)
    builder.PrependUint8Slot(0, 1, 0)
    builder.PrependUOffsetTRelativeSlot(1, options, 0)
    return builder.EndObject()


def _labels_file(builder: flatbuffers.Builder) -> int:
    name = builder.CreateString("labels.txt")
    builder.StartObject(5)
    builder.PrependUOffsetTRelativeSlot(0, name, 0)
    builder.PrependInt8Slot(2, 2, 0)
    return builder.EndObject()


def _table(builder: flatbuffers.Builder, num_fields: int, fields: dict[int, int]) -> int:
    builder.StartObject(num_fields)
    for field, offset in fields.items():
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    return builder.EndObject()


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()
