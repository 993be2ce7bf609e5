"""What is known of a model: from its predictions, and from its `model_spec.json`."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TypedDict, cast

SPEC = "model_spec.json"

_SYNTHETIC = "synthetic"


class Origin(TypedDict, total=False):
    """Where data or weights come from: as configured, as resolved, and why something else took its place."""

    source: str
    resolved: str
    fallback: str | None


class SpecFile(TypedDict):
    """A LiteRT file of a version."""

    name: str
    sha256: str


class Spec(TypedDict, total=False):
    """As much of `model_spec.json` as the page reads. Any key may be missing."""

    model_name: str
    class_names: list[str]
    image_size_px: int
    backbone: str
    data: Origin | str
    weights: Origin | str
    files: dict[str, SpecFile]


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model.

    Attributes:
        name: of the model.
        origin: a file, or a server.
        version: empty where it is not known.
        class_names: empty where a server has not responded yet.
        spec: its `model_spec.json`; empty where there is none.
    """

    name: str
    origin: str
    version: str = ""
    class_names: tuple[str, ...] = ()
    spec: Spec = field(default_factory=Spec)

    @property
    def is_synthetic(self) -> bool:
        """Return whether it was trained on drawn flowers."""
        data = self.spec.get("data")
        return (data.get("resolved") if isinstance(data, Mapping) else data) == _SYNTHETIC

    @property
    def sha256(self) -> str:
        """Return the checksum that the spec has of the LiteRT file in use; empty where it has none."""
        files = self.spec.get("files")
        name = PurePath(self.origin).name
        entries = files.values() if isinstance(files, Mapping) else ()
        return next((entry["sha256"] for entry in entries if entry["name"] == name), "")


def read_spec_of(path: Path) -> Spec:
    """Read the spec beside a LiteRT file, or inside it; empty where there is none."""
    if spec := read_spec(path.with_name(SPEC)):
        return spec
    if not zipfile.is_zipfile(path):
        return Spec()
    with zipfile.ZipFile(path) as archive:
        return _parse_spec(archive.read(SPEC)) if SPEC in archive.namelist() else Spec()


def read_spec(path: Path) -> Spec:
    """Read a spec; empty where there is none, or it is malformed."""
    try:
        return _parse_spec(path.read_bytes())
    except OSError:
        return Spec()


def _parse_spec(content: bytes) -> Spec:
    try:
        spec = json.loads(content)
    except ValueError:
        return Spec()
    return cast(Spec, spec) if isinstance(spec, dict) else Spec()
