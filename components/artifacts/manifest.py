"""`manifest.json`: what made an artifact, from what, with which options; and its lineage, the tree of manifests.

Or `missing.json`: the artifact stands for something that is not available, with the reason.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from components.artifacts.summary import Summary
from components.storage.files import read_json, write_json

MANIFEST = "manifest.json"
MISSING = "missing.json"


class Reference(TypedDict):
    """What a manifest says of an input: enough to find it and to tell whether it is the same."""

    step: str
    key: str
    digest: str


class File(TypedDict):
    """The size in bytes and the SHA-256 of a file."""

    size: int
    sha256: str


class Origin(TypedDict):
    """What an artifact depends on, as JSON; its digest is the artifact's key.

    Attributes:
        code: digest of the code that the step reaches.
        options: of each section that the step takes, by option.
        source: what the step's `source` function returned: a description of what it reads from outside.
        inputs: in a manifest a `Reference` (or the whole lineage) of each input, in a key its digest alone.
        versions: of Python and the libraries that decide the result.
    """

    code: str
    options: dict[str, dict[str, Any]]
    source: Any
    inputs: dict[str, Any]
    versions: dict[str, str]


class Output(Origin):
    """An `Origin`, and what came out of it.

    Attributes:
        step: name of the step.
        key: digest of the origin.
        created: local time, ISO 8601.
        seconds: that the step took.
        summary: what the step returned.
    """

    step: str
    key: str
    created: str
    seconds: float
    summary: Summary


class Lineage(Output):
    """An `Output` with the digest of its files' content, logs left out."""

    digest: str


class Manifest(Lineage):
    """`manifest.json`: a `Lineage` and its files, by path below the artifact's folder."""

    files: dict[str, File]


class Missing(TypedDict):
    """What is not available, and why."""

    what: str
    reason: str


def read_manifest(artifact_dir: Path) -> Manifest:
    """Read an artifact's manifest."""
    return read_json(artifact_dir / MANIFEST)


def write_manifest(artifact_dir: Path, manifest: Manifest) -> None:
    """Write an artifact's manifest, which makes it complete."""
    write_json(artifact_dir / MANIFEST, manifest)


def read_missing(artifact_dir: Path) -> Missing | None:
    """Read why an artifact is not available; `None` if it is."""
    path = artifact_dir / MISSING
    return read_json(path) if path.exists() else None


def write_missing(out_dir: Path, *, what: str, reason: str) -> None:
    """Write why an artifact is not available."""
    write_json(out_dir / MISSING, Missing(what=what, reason=reason))


def read_fallback(output: Mapping[str, Any]) -> str | None:
    """Return why a step's output holds something else than what was wanted first, by its summary; else `None`."""
    return (output.get("summary") or {}).get("fallback")


def trace(artifact_dir: Path) -> Lineage:
    """Return an artifact's manifest, without its files, with the same of each artifact it was made from under `inputs`.

    Artifacts lie side by side in `<root>/<step>/<key>`. For one that is gone or damaged another with the same digest is
    taken, made again under the same key; where there is none, it is named without its own inputs.
    """
    manifest = read_manifest(artifact_dir)
    root = artifact_dir.parent.parent
    inputs = {p: trace(found) if (found := _find(root, r)) else r for p, r in manifest["inputs"].items()}
    return {**{name: manifest.get(name) for name in Lineage.__annotations__}, "inputs": inputs}  # type: ignore[return-value, typeddict-item]


def _find(root: Path, reference: Reference) -> Path | None:
    """Return the folder of an artifact, or of another with the same digest under its key."""
    named = root / reference["step"] / reference["key"]
    base = reference["key"].partition("-")[0]
    for path in [named, *sorted(p for p in named.parent.glob(f"{base}*") if p.suffix not in (".partial", ".lock"))]:
        try:
            if read_manifest(path)["digest"] == reference["digest"]:
                return path
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None
