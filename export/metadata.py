"""What a LiteRT file says of itself: TFLite metadata and the files packed behind the model.

On-device APIs such as MediaPipe Tasks read from it how to feed the model and what its outputs are called. The metadata
is a flatbuffer of its own in one of the model's buffers; labels and `model_spec.json` follow the model as a zip
archive, stored without compression, so `unzip` reads them too.

Fields are numbered as in schema 1.5.0: google-ai-edge/mediapipe, `mediapipe/tasks/metadata/metadata_schema.fbs`.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers.number_types import Float32Flags, UOffsetTFlags
from flatbuffers.table import Table

from export.spec import NAME as SPEC

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


@dataclass(frozen=True)
class Metadata:
    """What `read` finds in a LiteRT file.

    Attributes:
        name: of the model.
        description: of the model, for people.
        version: of the model; empty where it has none.
        class_names: the labels, in the order of the outputs.
        mean: subtracted from pixels 0–255 before they go into a float input; one value, or one for each channel.
        std: what the difference is divided by.
        spec: `model_spec.json`.
    """

    name: str
    description: str
    version: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    spec: dict[str, Any]


def add(
    content: bytes,
    *,
    name: str,
    description: str,
    version: str,
    class_names: Sequence[str],
    spec: Mapping[str, Any],
) -> bytes:
    """Give a LiteRT file with metadata: one that takes RGB images 0–255 as they are and answers probabilities.

    Colour normalization is inside the model, so the normalization that a float input asks for changes nothing:
    mean 0, deviation 1.

    Args:
        content: a LiteRT file with one input and one output.
        name: of the model.
        description: of the model, for people.
        version: of the model; may be empty.
        class_names: the labels, in the order of the outputs.
        spec: packed as `model_spec.json`.

    Raises:
        ValueError: the labels are not one line for each output.
    """
    model = unpack(content)
    num_outputs = int(model.subgraphs[0].tensors[model.subgraphs[0].outputs[0]].shape[-1])
    if len(class_names) != num_outputs or any(not label or len(label.splitlines()) > 1 for label in class_names):
        raise ValueError(f"The labels must be one line for each of {num_outputs} outputs. Received: {class_names}")
    described = _describe(name=name, description=description, version=version)
    model.metadata = [entry for entry in model.metadata or [] if entry.name != _BUFFER_NAME]
    model.metadata.append(schema.MetadataT(name=_BUFFER_NAME, buffer=len(model.buffers)))
    model.buffers.append(schema.BufferT(data=np.frombuffer(described, np.uint8)))
    file = io.BytesIO()
    file.write(pack(model))
    packed = {
        LABELS: "".join(f"{label}\n" for label in class_names),
        SPEC: json.dumps(spec, indent=2, ensure_ascii=False) + "\n",
    }
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        for filename, text in packed.items():
            entry = zipfile.ZipInfo(filename)  # without a date: the same model gives the same file
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text)
    return file.getvalue()


def read(path: Path) -> Metadata:
    """Read the metadata of a LiteRT file.

    Raises:
        ValueError: the file has none, or not all of it.
    """
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = {name: archive.read(name).decode() for name in archive.namelist()}
        table = _find(content)
        graph = _tables(table, _Model.SUBGRAPHS)[0]
        unit = next(
            unit
            for unit in _tables(_tables(graph, _Subgraph.INPUTS)[0], _Tensor.PROCESS_UNITS)
            if _byte(unit, _ProcessUnit.TYPE) == _NORMALIZATION_OPTIONS
        )
        normalization = Table(unit.Bytes, unit.Indirect(unit.Pos + _offset(unit, _ProcessUnit.OPTIONS)))
        labels = next(
            _string(file, _File.NAME)
            for file in _tables(_tables(graph, _Subgraph.OUTPUTS)[0], _Tensor.FILES)
            if _byte(file, _File.TYPE) == _TENSOR_AXIS_LABELS
        )
        return Metadata(
            name=_string(table, _Model.NAME),
            description=_string(table, _Model.DESCRIPTION),
            version=_string(table, _Model.VERSION),
            class_names=tuple(files[labels].splitlines()),
            mean=_floats(normalization, _Normalization.MEAN),
            std=_floats(normalization, _Normalization.STD),
            spec=json.loads(files[SPEC]),
        )
    except (StopIteration, LookupError, zipfile.BadZipFile) as exc:
        raise ValueError(
            f"A LiteRT file must hold metadata with a normalization, labels and {SPEC}. Received: {path}. "
            "Export it again."
        ) from exc


def unpack(content: bytes) -> Any:
    """Read a LiteRT file as the schema's `ModelT`, every buffer inside it.

    LiteRT Quantizer puts large buffers behind the flatbuffer, at offsets from the beginning of the file; older readers
    know nothing of that, and the offsets would not survive `pack`.
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


# --- writing: a table is a mapping of its fields


def _describe(*, name: str, description: str, version: str) -> bytes:
    images = {
        _Tensor.NAME: "images",
        _Tensor.DESCRIPTION: "The whole picture, upright, resized to a square: RGB, 0–255.",
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
            _Model.VERSION: version,
            _Model.SUBGRAPHS: [{_Subgraph.INPUTS: [images], _Subgraph.OUTPUTS: [probabilities]}],
            _Model.FILES: [spec],
            _Model.MIN_PARSER_VERSION: _MIN_PARSER_VERSION,
        },
    )
    builder.Finish(root, _METADATA_IDENTIFIER)
    return bytes(builder.Output())


def _write_table(builder: Any, fields: Mapping[IntEnum, Any]) -> int:
    """Write a table and give its place. Its numbers are all bytes; all else is written before it and referred to."""
    places = {field: _write(builder, value) for field, value in fields.items() if not isinstance(value, int)}
    builder.StartObject(max(fields, default=-1) + 1)
    for field, value in fields.items():
        if isinstance(value, int):
            builder.PrependUint8Slot(field, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(field, places[field], 0)
    return builder.EndObject()


def _write(builder: Any, value: str | Mapping[IntEnum, Any] | list[Any]) -> int:
    """Write what is not a number, and give its place."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, Mapping):
        return _write_table(builder, value)
    if isinstance(value[0], float):
        return builder.CreateNumpyVector(np.asarray(value, np.float32))
    places = [_write_table(builder, fields) for fields in value]
    builder.StartVector(UOffsetTFlags.bytewidth, len(places), UOffsetTFlags.bytewidth)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return builder.EndVector()


# --- reading


def _find(content: bytes) -> Any:
    """Give the root table of the metadata."""
    if not schema.Model.ModelBufferHasIdentifier(content, 0):
        raise LookupError("not a LiteRT file")
    model = schema.Model.GetRootAs(content)
    entry = next(e for e in map(model.Metadata, range(model.MetadataLength())) if e.Name() == _BUFFER_NAME)
    described = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
    return Table(described, flatbuffers.encode.Get(flatbuffers.packer.uoffset, described, 0))


def _offset(table: Any, field: IntEnum) -> int:
    """Give a field's place in its table, 0 where it is missing (flatbuffers internals, "Tables")."""
    return table.Offset(4 + 2 * field)


def _byte(table: Any, field: IntEnum) -> int:
    offset = _offset(table, field)
    return table.Bytes[table.Pos + offset] if offset else 0


def _string(table: Any, field: IntEnum) -> str:
    offset = _offset(table, field)
    return table.String(table.Pos + offset).decode() if offset else ""


def _floats(table: Any, field: IntEnum) -> tuple[float, ...]:
    offset = _offset(table, field)
    return tuple(table.GetVectorAsNumpy(Float32Flags, offset).tolist()) if offset else ()


def _tables(table: Any, field: IntEnum) -> list[Any]:
    offset = _offset(table, field)
    if not offset:
        return []
    first = table.Vector(offset)
    places = range(first, first + table.VectorLen(offset) * UOffsetTFlags.bytewidth, UOffsetTFlags.bytewidth)
    return [Table(table.Bytes, table.Indirect(place)) for place in places]
