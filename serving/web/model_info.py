"""What is known of a model: from its predictions, and from its `model_spec.json`."""

import json
import logging
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypedDict, cast

if TYPE_CHECKING:
    from client.classifier_client.signing import SignedFolder

log = logging.getLogger(__name__)

SPEC = "model_spec.json"

_MAX_SPEC_BYTES = 10_000_000

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


class SpecLimits(TypedDict):
    """How the model tells which photos look like none of its classes, and how sure its sets of labels are."""

    score: str
    num_examples: int
    refused_share: float
    coverage: float
    min_probability: float


class Spec(TypedDict, total=False):
    """As much of `model_spec.json` as the page reads. Any key may be missing."""

    model_name: str
    class_names: list[str]
    image_size_px: int
    backbone: str
    data: Origin | str
    weights: Origin | str
    files: dict[str, SpecFile]
    limits: SpecLimits


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
        name = PurePath(self.origin).name
        entries = self.spec.get("files", {}).values()
        return next((entry["sha256"] for entry in entries if entry["name"] == name), "")


def read_spec_of(path: Path, signed: "SignedFolder | None" = None) -> Spec:
    """Read the spec beside a LiteRT file, or inside it; empty where there is none.

    Args:
        path: of the file.
        signed: its folder, where that is verified; then the spec inside the file is not looked for.

    Raises:
        SignatureError: the spec is not what was signed.
    """
    if signed:
        return _parse_spec(signed.read(SPEC), path) if SPEC in signed else Spec()
    if spec := read_spec(path.with_name(SPEC)):
        return spec
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(SPEC).file_size <= _MAX_SPEC_BYTES:
                return _parse_spec(archive.read(SPEC), path)
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError):
        pass  # No archive, or a damaged one: whether the model itself is sound is for others to say.
    return Spec()


def read_spec(path: Path) -> Spec:
    """Read a spec; empty where there is none, or it is malformed. A key whose value is malformed is left out."""
    try:
        return _parse_spec(path.read_bytes(), path)
    except OSError:
        return Spec()


def _parse_spec(content: bytes, path: Path) -> Spec:
    try:
        spec = json.loads(content)
    except (ValueError, RecursionError):
        spec = None
    if not isinstance(spec, dict):
        log.warning("the %s of %s is ignored: it must be a JSON object", SPEC, path)
        return Spec()
    wrong = [key for key, is_sound in _CHECKS.items() if key in spec and not is_sound(spec[key])]
    if wrong:
        log.warning("of the %s of %s %s is ignored: not what it must be", SPEC, path, ", ".join(wrong))
    return cast(Spec, {key: spec[key] for key in _CHECKS if key in spec and key not in wrong})


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0


def _are_class_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value)) and len(set(value)) == len(value)


def _is_origin(value: Any) -> bool:
    if not isinstance(value, dict):
        return _is_text(value)
    return all(value.get(key) is None or isinstance(value[key], str) for key in Origin.__annotations__)


def _are_files(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(file, dict) and all(_is_text(file.get(key)) for key in SpecFile.__annotations__)
        for file in value.values()
    )


_SHARES = ("refused_share", "coverage", "min_probability")


def _are_limits(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_text(value.get("score"))
        and _is_size(value.get("num_examples"))
        and all(type(value.get(key)) in (int, float) and 0 <= value[key] <= 1 for key in _SHARES)
    )


_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "model_name": _is_text,
    "class_names": _are_class_names,
    "image_size_px": _is_size,
    "backbone": _is_text,
    "data": _is_origin,
    "weights": _is_origin,
    "files": _are_files,
    "limits": _are_limits,
}
"""What the page reads, and whether a value is what it must be: a spec is another program's file."""
