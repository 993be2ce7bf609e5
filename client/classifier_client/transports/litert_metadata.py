"""Read the standard metadata of a LiteRT (TFLite) file, which every on-device library reads.

The metadata is a flatbuffer inside the model's own; the labels are a text file in a ZIP archive at the end of it all.
Of both flatbuffers a few fields are needed, so they are read by number instead of by thousands of generated lines.
The schemas: tensorflow/lite/schema/schema.fbs and tflite_support/metadata/metadata_schema.fbs.
"""

import hashlib
import io
import json
import lzma
import mmap
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
from flatbuffers.number_types import Float32Flags, Uint8Flags, Uint32Flags, UOffsetTFlags

from ..errors import ModelFileError

SPEC = "model_spec.json"
"""Beside the file, or in its archive: may name the classes, in the output's order, and the version."""

# What flatbuffers, zipfile and json raise for invalid content.
_DAMAGED = (
    *(struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile),
    *(LookupError, TypeError, ValueError, EOFError, RuntimeError, OverflowError),
)
_MAGIC = b"TFL3"
_METADATA_NAME = "TFLITE_METADATA"
_TENSOR_AXIS_LABELS = 2  # AssociatedFileType
_NORMALIZATION = 1  # ProcessUnitOptions
_MAX_ELEMENTS = 1 << 16
_MAX_PACKED_BYTES = 16 << 20
_MAX_NORMALIZATION = 1e6  # Far above any; what it is divided by is above its inverse.


@dataclass(frozen=True)
class Metadata:
    """What a client needs of a file's metadata.

    Attributes:
        class_names: the labels, in the order of the model's output.
        mean: what is taken from each sample of a float model's input, for all channels or for each; empty where
            there is none.
        std: what the rest is divided by.
        model_version: from `model_spec.json`, the metadata or the name of a published file's folder; else empty.
        spec: the `model_spec.json` beside the file, or else the one inside it; empty where there is none.
    """

    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    model_version: str
    spec: Mapping[str, Any] = field(default_factory=dict)


def read_metadata(path: Path, signed: Mapping[str, bytes] | None = None) -> Metadata:
    """Read a file's metadata.

    Args:
        path: of the file.
        signed: contents that a signature vouches for, by name: the file's, and the spec's where it has one beside it.
            They are read instead of the files.

    Raises:
        ModelFileError: there is no such file, it is no LiteRT model, has no metadata or no labels, or `model_spec.json`
            names other classes, or another content of the file beside it.
    """
    try:
        with _open(path) if signed is None else nullcontext(signed[path.name]) as content:
            if content[4:8] != _MAGIC:
                raise _error(path, f"a file that begins with {bytes(content[:8])!r}")
            if signed is None:
                beside = _read_spec(path)
                # A damaged model may end the whole process, where nothing vouches for it.
                _check_content(path, content, beside)
            else:
                beside = _to_spec(signed[SPEC]) if SPEC in signed else {}
            metadata = _find_metadata(content)
            if metadata is None:
                raise _error(path, "a model without metadata")
            mean, std = _read_normalization(metadata)
            version = metadata.text(2)
            archive = path if signed is None else io.BytesIO(content)
            class_names = parse_labels(_read_packed(archive, _find_labels(metadata)).decode())
            spec = beside or _to_spec(_read_packed(archive, SPEC) or b"{}")
    except OSError as exc:
        raise ModelFileError(f"{path} cannot be read ({exc.strerror or exc}). Check the path.") from exc
    except _DAMAGED as exc:
        raise _error(path, f"one with damaged metadata ({exc})") from exc
    if not class_names:
        raise _error(path, "metadata without labels")
    if list(named := spec.get("class_names", class_names)) != list(class_names):
        raise ModelFileError(
            f"A LiteRT file and the {SPEC} beside it must name the same classes. Received: {', '.join(class_names)} "
            f"and {', '.join(named)}. Copy both again from where the model was published."
        )
    # Published models lie in a folder that is named for the version.
    folder = path.absolute().parent.name
    version = spec.get("model_version") or version or (folder if folder.isdecimal() else "")
    return Metadata(class_names, mean, std, str(version), spec)


def parse_labels(text: str) -> tuple[str, ...]:
    """Return the labels in a text that has one a line; spaces around a label and empty lines are none.

    The exporter writes what this reads back as it was.

    Raises:
        ValueError: a label is not printable, such as one with a control character, or two are the same.
    """
    labels = tuple(label.strip() for label in text.split("\n") if label.strip())
    for label in labels:
        if not label.isprintable():
            raise ValueError(f"the label {label!r} is not printable")
    if len(set(labels)) < len(labels):
        raise ValueError("labels are not all different")
    return labels


def _error(path: Path, received: str) -> ModelFileError:
    return ModelFileError(
        "A LiteRT file must be a model with metadata, which holds its labels and how its input is normalized. "
        f"Received: {received}, {path}. Export the model with this project, or add metadata to it."
    )


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Return a file's content without reading it all: a model may take a hundred megabytes."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # To open a pipe may wait for ever.
        raise _error(path, "a pipe or a device")
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
        start, size, length = self._table.Vector(offset), kind.bytewidth, self._table.VectorLen(offset)
        if start + length * size > len(self._table.Bytes) or (size > 1 and length > _MAX_ELEMENTS):
            raise ValueError(f"a list of {length} elements")
        return range(start, start + length * size, size)


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
            mean, std = options.floats(0), options.floats(1)
            limit = _MAX_NORMALIZATION
            if not (
                {len(mean), len(std)} <= {0, 1, 3}
                and all(abs(value) <= limit for value in mean)
                and all(1 / limit <= value <= limit for value in std)
            ):
                raise ValueError("a mean and a standard deviation that cannot be")
            return mean, std
    return (), ()


def _find_labels(metadata: _Table) -> str:
    """Return the name of the output's file of labels."""
    for file in metadata.tables(3)[0].tables(3)[0].tables(6):
        if file.number(2, Uint8Flags) == _TENSOR_AXIS_LABELS:
            return file.text(0)
    return ""


def _read_packed(model: Path | io.BytesIO, name: str) -> bytes:
    """Return a file that is packed with the model; empty where there is none."""
    if not zipfile.is_zipfile(model):
        return b""
    with zipfile.ZipFile(model) as archive:
        if name not in archive.namelist():
            return b""
        with archive.open(name) as file:
            content = file.read(_MAX_PACKED_BYTES + 1)
    if len(content) > _MAX_PACKED_BYTES:
        raise ValueError(f"more than {_MAX_PACKED_BYTES >> 20} MB in {name}")
    return content


def _read_spec(path: Path) -> dict[str, Any]:
    """Return the spec beside the file; empty where there is none."""
    beside = path.with_name(SPEC)
    return _to_spec(beside.read_bytes()) if beside.is_file() else {}


def _to_spec(content: bytes) -> dict[str, Any]:
    """Return a spec whose fields are what they should be.

    Raises:
        ValueError: it is no such spec.
    """
    spec = json.loads(content)
    if not isinstance(spec, dict):
        raise ValueError(f"a {SPEC} that is a {type(spec).__name__}")
    names, version, files = spec.get("class_names", []), spec.get("model_version", ""), spec.get("files", {})
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"a {SPEC} whose class_names is no list of texts")
    if type(version) not in (str, int):
        raise ValueError(f"a {SPEC} whose model_version is neither a text nor a number")
    if not isinstance(files, dict) or not all(isinstance(file, dict) for file in files.values()):
        raise ValueError(f"a {SPEC} whose files are no objects")
    return spec


def _check_content(path: Path, content: Any, spec: dict[str, Any]) -> None:
    """Check that a file is what the spec beside it describes, if it does."""
    digests = [file.get("sha256") for file in spec.get("files", {}).values() if file.get("name") == path.name]
    if digests and hashlib.sha256(content).hexdigest() not in digests:
        raise ModelFileError(
            f"A LiteRT file must be the one whose sha256 the {SPEC} beside it has. {path} is damaged, or another one. "
            "Copy both again from where the model was published."
        )
