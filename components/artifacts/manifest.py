"""Where an artifact comes from: the tree of manifests, followed from its inputs back to the data."""

from pathlib import Path
from typing import Any

from components.storage.files import read_json

MANIFEST = "manifest.json"
MISSING = "missing.json"
"""In an artifact that stands for something that cannot be had: `what` it is and the `reason`."""
_SHOWN = ("step", "key", "digest", "created", "seconds", "code", "options", "source", "versions", "summary")


def read_manifest(artifact_dir: Path) -> dict[str, Any]:
    return read_json(artifact_dir / MANIFEST)


def trace(artifact_dir: Path) -> dict[str, Any]:
    """Give an artifact's manifest with, under `inputs`, the same of each artifact it was made from.

    Artifacts lie side by side in `<root>/<step>/<key>`. One that is gone is named without its own inputs.
    """
    manifest = read_manifest(artifact_dir)
    root = artifact_dir.parent.parent
    inputs = {
        parameter: trace(path) if (path := root / r["step"] / r["key"]).joinpath(MANIFEST).exists() else r
        for parameter, r in manifest["inputs"].items()
    }
    return {**{name: manifest.get(name) for name in _SHOWN}, "inputs": inputs}
