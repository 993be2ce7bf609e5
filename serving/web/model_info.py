"""What is known of a model: what it said itself, and what its `model_spec.json` says."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

SPEC = "model_spec.json"

_SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model.

    Attributes:
        name: of the model.
        origin: where it answers: a file, or a server.
        version: empty where nothing says.
        class_names: none where a server has not answered yet.
        spec: its `model_spec.json`; empty where there is none.
    """

    name: str
    origin: str
    version: str = ""
    class_names: tuple[str, ...] = ()
    spec: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_synthetic(self) -> bool:
        """Tell whether it was trained on drawn flowers."""
        data = self.spec.get("data")
        return (data.get("resolved") if isinstance(data, Mapping) else data) == _SYNTHETIC

    @property
    def sha256(self) -> str:
        """Give the digest that the spec has for the LiteRT file that answers; empty where it has none."""
        files = self.spec.get("files")
        name = PurePath(self.origin).name
        entries = files.values() if isinstance(files, Mapping) else ()
        return next((entry["sha256"] for entry in entries if entry["name"] == name), "")


def read_spec_of(path: Path) -> dict[str, Any]:
    """Read the spec beside a LiteRT file, or inside it; empty where there is none."""
    if spec := read_spec(path.with_name(SPEC)):
        return spec
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        return _parse_spec(archive.read(SPEC)) if SPEC in archive.namelist() else {}


def read_spec(path: Path) -> dict[str, Any]:
    """Read a spec; empty where there is none, or it makes no sense."""
    try:
        return _parse_spec(path.read_bytes())
    except OSError:
        return {}


def _parse_spec(content: bytes) -> dict[str, Any]:
    try:
        spec = json.loads(content)
    except ValueError:
        return {}
    return spec if isinstance(spec, dict) else {}
