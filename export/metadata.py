"""Write the metadata of a LiteRT file: TFLite metadata and the files packed behind the model.

On-device APIs such as MediaPipe Tasks read from it how to feed the model and what its outputs are called; so does the
client (`transports/litert_metadata.py`). The metadata is a flatbuffer of its own in one of the model's buffers; labels
and `model_spec.json` follow the model as a zip archive, stored without compression, so `unzip` reads them too.

Fields are numbered as in schema 1.5.0: google-ai-edge/mediapipe, `mediapipe/tasks/metadata/metadata_schema.fbs`.
"""

import io
import zipfile
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers.number_types import UOffsetTFlags

from client.classifier_client.transports.litert_metadata import parse_labels
from export.spec import NAME as SPEC
from export.spec import ModelSpec, dump

LABELS = "labels.txt"

_MODEL_IDENTIFIER, _METADATA_IDENTIFIER = b"TFL3", b"M001"
_BUFFER_NAME = b"TFLITE_METADATA"
_MIN_PARSER_VERSION = "1.0.0"  # no field below is younger


class _Model(IntEnum):
    NAME, DESCRIPTION, VERSION, SUBGRAPHS, AUTHOR, LICENSE, FILES, MIN_PARSER_VERSION = range(8)


class _Subgraph(IntEnum):
    NAME, DESCRIPTION, INPUTS, OUTPUTS = range(4)


class _Tensor(IntEnum):
    NAME, DESCRIPTION, DIMENSION_NAMES, CONTENT, PROCESS_UNITS, STATS, FILES = range(7)


class _Content(IntEnum):
    TYPE, PROPERTIES = range(2)


class _Image(IntEnum):
    COLOR_SPACE = 0


class _ProcessUnit(IntEnum):
    TYPE, OPTIONS = range(2)


class _Normalization(IntEnum):
    MEAN, STD = range(2)


class _Stats(IntEnum):
    MAX, MIN = range(2)


class _File(IntEnum):
    NAME, DESCRIPTION, TYPE = range(3)


_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = 1, 2  # ContentProperties
_RGB = 1  # ColorSpaceType
_NORMALIZATION_OPTIONS = 1  # ProcessUnitOptions
_DESCRIPTIONS, _TENSOR_AXIS_LABELS = 1, 2  # AssociatedFileType


def add(
    model: Any, *, spec: ModelSpec, description: str, version: str = "", author: str = "", license: str = ""
) -> bytes:
    """Write a LiteRT file with metadata: one that takes RGB images 0–255 as they are and returns probabilities.

    Colour normalization is inside the model, so the normalization that a float input needs changes nothing:
    mean 0, deviation 1.

    Args:
        model: of a LiteRT file, as `unpack` returns it; its first subgraph has one input and one output.
        spec: packed as `model_spec.json`; the model's name and its labels, in the order of the outputs, come from it.
        description: of the model, for people.
        version: of the model; may be empty, as the next two.
        author: of the model.
        license: of the model.

    Raises:
        ValueError: the labels are not one for each output, or the client would not read them back as they are.
    """
    class_names = spec["class_names"]
    num_outputs = int(model.subgraphs[0].tensors[model.subgraphs[0].outputs[0]].shape[-1])
    labels = "".join(f"{label}\n" for label in class_names)
    if len(class_names) != num_outputs or not _are_read_back(class_names, labels):
        raise ValueError(
            f"The labels must be one for each of {num_outputs} outputs, all different, printable and without a "
            f"space at either end. Received: {class_names}. Rename the classes."
        )
    texts: dict[IntEnum, str] = {_Model.VERSION: version, _Model.AUTHOR: author, _Model.LICENSE: license}
    described = _describe(name=spec["model_name"], description=description, texts=texts)
    model.metadata = [entry for entry in model.metadata or [] if entry.name != _BUFFER_NAME]
    model.metadata.append(schema.MetadataT(name=_BUFFER_NAME, buffer=len(model.buffers)))
    model.buffers.append(schema.BufferT(data=np.frombuffer(described, np.uint8)))
    file = io.BytesIO()
    file.write(pack(model))
    packed = {
        LABELS: labels,
        SPEC: dump(spec),
    }
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        for filename, text in packed.items():
            entry = zipfile.ZipInfo(filename)  # without a date: the same model gives the same file
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text)
    return file.getvalue()


def unpack(content: bytes) -> Any:
    """Read a LiteRT file as the schema's `ModelT`, every buffer inside it.

    LiteRT Quantizer puts large buffers behind the flatbuffer, at offsets from the beginning of the file; older readers
    do not know that, and the offsets would not survive `pack`.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    for buffer in model.buffers:
        if buffer.offset > 1:  # 1 is a placeholder
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def pack(model: Any) -> bytes:
    """Write a `ModelT` as a LiteRT file."""
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), _MODEL_IDENTIFIER)
    return bytes(builder.Output())


def _are_read_back(class_names: list[str], labels: str) -> bool:
    try:
        return parse_labels(labels) == tuple(class_names)
    except ValueError:
        return False


def _describe(*, name: str, description: str, texts: Mapping[IntEnum, str]) -> bytes:
    images = {
        _Tensor.NAME: "images",
        _Tensor.DESCRIPTION: "The whole image, upright, resized to a square: RGB, 0–255.",
        _Tensor.CONTENT: {_Content.TYPE: _IMAGE_PROPERTIES, _Content.PROPERTIES: {_Image.COLOR_SPACE: _RGB}},
        _Tensor.PROCESS_UNITS: [
            {
                _ProcessUnit.TYPE: _NORMALIZATION_OPTIONS,
                _ProcessUnit.OPTIONS: {_Normalization.MEAN: [0.0], _Normalization.STD: [1.0]},
            }
        ],
        _Tensor.STATS: {_Stats.MAX: [255.0], _Stats.MIN: [0.0]},
    }
    labels = {
        _File.NAME: LABELS,
        _File.DESCRIPTION: "The class of each output, a line each.",
        _File.TYPE: _TENSOR_AXIS_LABELS,
    }
    probabilities = {
        _Tensor.NAME: "probabilities",
        _Tensor.DESCRIPTION: "The probability of each class.",
        _Tensor.CONTENT: {_Content.TYPE: _FEATURE_PROPERTIES, _Content.PROPERTIES: {}},
        _Tensor.STATS: {_Stats.MAX: [1.0], _Stats.MIN: [0.0]},
        _Tensor.FILES: [labels],
    }
    spec = {_File.NAME: SPEC, _File.DESCRIPTION: "What a client has to know.", _File.TYPE: _DESCRIPTIONS}
    builder = flatbuffers.Builder()
    root = _write_table(
        builder,
        {
            _Model.NAME: name,
            _Model.DESCRIPTION: description,
            **{field: text for field, text in texts.items() if text},
            _Model.SUBGRAPHS: [{_Subgraph.INPUTS: [images], _Subgraph.OUTPUTS: [probabilities]}],
            _Model.FILES: [spec],
            _Model.MIN_PARSER_VERSION: _MIN_PARSER_VERSION,
        },
    )
    builder.Finish(root, _METADATA_IDENTIFIER)
    return bytes(builder.Output())


def _write_table(builder: Any, fields: Mapping[IntEnum, Any]) -> int:
    """Write a table, a mapping of its fields, and return its position.

    Its numbers are all bytes. All else is written before it, and the table holds its position.
    """
    positions = {field: _write(builder, value) for field, value in fields.items() if not isinstance(value, int)}
    builder.StartObject(max(fields, default=-1) + 1)
    for field, value in fields.items():
        if isinstance(value, int):
            builder.PrependUint8Slot(field, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(field, positions[field], 0)
    return builder.EndObject()


def _write(builder: Any, value: str | Mapping[IntEnum, Any] | list[Any]) -> int:
    """Write what is not a number, and return its position."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, Mapping):
        return _write_table(builder, value)
    if isinstance(value[0], float):
        return builder.CreateNumpyVector(np.asarray(value, np.float32))
    positions = [_write_table(builder, fields) for fields in value]
    builder.StartVector(UOffsetTFlags.bytewidth, len(positions), UOffsetTFlags.bytewidth)
    for position in reversed(positions):
        builder.PrependUOffsetTRelative(position)
    return builder.EndVector()
