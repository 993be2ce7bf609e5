"""Read the standard metadata of a LiteRT (TFLite) file, which every on-device library reads.

The metadata is a flatbuffer inside the model's own; the labels are a text file in a ZIP archive at the end of it all.
Of both flatbuffers a few fields are needed, so they are read by number instead of by thousands of generated lines.
The schemas: tensorflow/lite/schema/schema.fbs and tflite_support/metadata/metadata_schema.fbs.
"""

import json
import mmap
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
from flatbuffers.number_types import Float32Flags, Uint8Flags, Uint32Flags, UOffsetTFlags

from ..errors import ModelFileError

SPEC = "model_spec.json"
"""Beside the file, or in its archive: may name the classes, in the output's order, and the version."""

# What flatbuffers, zipfile and json raise for invalid content.
_DAMAGED = (struct.error, zlib.error, zipfile.BadZipFile, LookupError, TypeError, ValueError, EOFError, RuntimeError)
_MAGIC = b"TFL3"
_METADATA_NAME = "TFLITE_METADATA"
_TENSOR_AXIS_LABELS = 2  # AssociatedFileType
_NORMALIZATION = 1  # ProcessUnitOptions


@dataclass(frozen=True)
class Metadata:
    """What a client needs of a file's metadata.

    Attributes:
        class_names: the labels, in the order of the model's output.
        mean: what is taken from each sample of a float model's input, for all channels or for each; empty where
            there is none.
        std: what the rest is divided by.
        model_version: from `model_spec.json`, the metadata or the name of a published file's folder; else empty.
    """

    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    model_version: str


def read_metadata(path: Path) -> Metadata:
    """Read a file's metadata.

    Raises:
        ModelFileError: there is no such file, it is no LiteRT model, has no metadata or no labels, or `model_spec.json`
            names other classes.
    """
    try:
        with _open(path) as content:
            if content[4:8] != _MAGIC:
                raise _error(path, f"a file that begins with {bytes(content[:8])!r}")
            metadata = _find_metadata(content)
            if metadata is None:
                raise _error(path, "a model without metadata")
            mean, std = _read_normalization(metadata)
            version = metadata.text(2)
            files = _read_archive(path)
            labels = files.get(_find_labels(metadata), b"").decode()
            spec = json.loads(_read_spec(path, files))
    except OSError as exc:
        raise ModelFileError(f"{path} cannot be read ({exc.strerror}). Check the path.") from exc
    except _DAMAGED as exc:
        raise _error(path, f"one with damaged metadata ({exc})") from exc
    class_names = tuple(label.strip() for label in labels.splitlines() if label.strip())
    if not class_names:
        raise _error(path, "metadata without labels")
    if tuple(spec.get("class_names", class_names)) != class_names:
        raise ModelFileError(
            f"A LiteRT file and the {SPEC} beside it must name the same classes. Received: {', '.join(class_names)} "
            f"and {', '.join(spec['class_names'])}. Copy both again from where the model was published."
        )
    # Published models lie in a folder that is named for the version.
    folder = path.absolute().parent.name
    version = spec.get("model_version") or version or (folder if folder.isdecimal() else "")
    return Metadata(class_names, mean, std, str(version))


def _error(path: Path, received: str) -> ModelFileError:
    return ModelFileError(
        "A LiteRT file must be a model with metadata, which holds its labels and how its input is normalized. "
        f"Received: {received}, {path}. Export the model with this project, or add metadata to it."
    )


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Return a file's content without reading it all: a model may take a hundred megabytes."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise _error(path, "an empty file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content


class _Table:
    """A table of a flatbuffer, whose fields are numbered as the schema has them."""

    def __init__(self, content: Any, position: int) -> None:
        self._table = flatbuffers.table.Table(content, position)

    @classmethod
    def root(cls, content: Any) -> "_Table":
        return cls(content, flatbuffers.encode.Get(flatbuffers.packer.uoffset, content, 0))

    def number(self, field: int, kind: Any) -> int:
        return int(self._table.GetSlot(4 + 2 * field, 0, kind))

    def text(self, field: int) -> str:
        offset = self._offset(field)
        return str(self._table.String(offset + self._table.Pos).decode()) if offset else ""

    def table(self, field: int) -> "_Table":
        return _Table(self._table.Bytes, self._table.Indirect(self._offset(field) + self._table.Pos))

    def tables(self, field: int) -> list["_Table"]:
        elements = self._elements(field, UOffsetTFlags)
        return [_Table(self._table.Bytes, self._table.Indirect(position)) for position in elements]

    def floats(self, field: int) -> tuple[float, ...]:
        return tuple(self._table.Get(Float32Flags, position) for position in self._elements(field, Float32Flags))

    def bytes(self, field: int) -> bytes:
        elements = self._elements(field, Uint8Flags)
        return bytes(self._table.Bytes[elements.start : elements.stop])

    def _offset(self, field: int) -> int:
        return int(self._table.Offset(4 + 2 * field))

    def _elements(self, field: int, kind: Any) -> range:
        """Return the positions of a vector's elements."""
        offset = self._offset(field)
        if not offset:
            return range(0)
        start, size = self._table.Vector(offset), kind.bytewidth
        return range(start, start + self._table.VectorLen(offset) * size, size)


def _find_metadata(content: Any) -> _Table | None:
    """Return the ModelMetadata inside a model: the buffer that an entry of its `metadata` names."""
    model = _Table.root(content)
    for entry in model.tables(6):
        if entry.text(0) == _METADATA_NAME:
            buffer = model.tables(4)[entry.number(1, Uint32Flags)]
            return _Table.root(buffer.bytes(0))
    return None


def _read_normalization(metadata: _Table) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the input's mean and standard deviation."""
    for unit in metadata.tables(3)[0].tables(2)[0].tables(4):
        if unit.number(0, Uint8Flags) == _NORMALIZATION:
            options = unit.table(1)
            return options.floats(0), options.floats(1)
    return (), ()


def _find_labels(metadata: _Table) -> str:
    """Return the name of the output's file of labels."""
    for file in metadata.tables(3)[0].tables(3)[0].tables(6):
        if file.number(2, Uint8Flags) == _TENSOR_AXIS_LABELS:
            return file.text(0)
    return ""


def _read_archive(path: Path) -> dict[str, bytes]:
    """Return the files that are packed with the model."""
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _read_spec(path: Path, files: dict[str, bytes]) -> bytes:
    beside = path.with_name(SPEC)
    return beside.read_bytes() if beside.is_file() else files.get(SPEC, b"{}")
