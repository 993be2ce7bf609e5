"""Removes artifacts that nobody needs: `python -m pipelines prune`.

Kept is what a kept run or a pushed model stands on, with everything it was made from. Kept runs are the newest ones and
those that links point to. The folders of runs stay, with their records and reports: they are small. What a killed step
has left goes on being useful as long as it is younger than the oldest kept run.
"""

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import ComponentError
from components.storage.files import size_bytes
from components.storage.models import LINEAGE, open_models
from components.storage.store import open_store
from pipelines.artifact_store import read_artifact
from pipelines.folders import Folders
from pipelines.runs import list_runs

KEEP = 5
"""The newest runs whose artifacts stay by default."""


@dataclass(frozen=True)
class Removal:
    """A folder below the artifacts that is removed, or would be, and its size."""

    path: Path
    size_bytes: int


def prune(folders: Folders, *, keep: int = KEEP, is_dry: bool = False) -> list[Removal]:
    """Remove the artifacts that no kept run and no pushed model stands on.

    Args:
        folders: runs and artifacts on this machine; models there or at a URL.
        keep: how many of the newest runs count.
        is_dry: remove nothing.

    Returns:
        What was removed, or would be.

    Raises:
        ComponentError: a run is going on, or a record cannot be read.
        StorageError: the models at a URL cannot be read.
    """
    if not folders.runs.is_dir():
        return []
    try:
        with folders.unused():
            removals = [Removal(path, size_bytes(path)) for path in _find_unneeded(folders, keep)]
            if not is_dry:
                for removal in removals:
                    # Without its manifest it is no artifact, so a half-removed one is never found.
                    (removal.path / "manifest.json").unlink(missing_ok=True)
                    shutil.rmtree(removal.path)
    except BlockingIOError as exc:
        raise ComponentError(f"A run is going on in {folders.runs}. Prune when it has ended.") from exc
    return removals


def _find_unneeded(folders: Folders, keep: int) -> Iterator[Path]:
    # Runs and comparisons are interleaved, and each kind has its links.
    linked = {link.resolve().name for link in folders.runs.iterdir() if link.is_symlink()}
    records = [record for record in list_runs(folders.runs) if record["status"] != "damaged"]
    newest = {record["run"] for record in records[-keep:]} if keep else set()
    kept = [record for record in records if record["run"] in linked | newest]
    needed = {_identity(output) for record in kept for output in record["steps"].values()}
    needed |= set(_pushed(folders))
    found = {path: read_artifact(path) for path in sorted(folders.artifacts.glob("*/*")) if path.is_dir()}
    by_identity = {_identity(a.manifest): a for a in found.values() if a}
    waiting = list(needed)
    while waiting:
        artifact = by_identity.get(waiting.pop())
        inputs = set(map(_identity, artifact.manifest["inputs"].values())) if artifact else set()
        waiting += inputs - needed
        needed |= inputs
    oldest_s = min((_started_s(record["run"]) for record in kept), default=float("inf"))
    for path, artifact in found.items():
        if path.suffix == ".partial":
            if path.stat().st_mtime < oldest_s:
                yield path
        elif artifact is None or _identity(artifact.manifest) not in needed:
            yield path


def _identity(artifact: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return what a reference and a manifest have in common: the name of a folder is its key, and maybe a suffix."""
    return artifact["step"], artifact["key"].partition("-")[0], artifact["digest"]


def _pushed(folders: Folders) -> Iterator[tuple[str, str, str]]:
    """Yield the identity of every artifact in the lineage of a pushed model."""
    models = open_models(folders.models)
    for name in open_store(folders.models).names():
        for version in models.versions(name):
            try:
                origin = models.lineage(name, version) or {}
            except ValueError as exc:
                raise ComponentError(
                    f"The lineage of {models.path(name, version)} cannot be read ({exc}), so that nobody knows what it "
                    f"stands on, and nothing is removed. Restore or remove {LINEAGE.as_posix()} there."
                ) from exc
            waiting = [node for node in origin.values() if isinstance(node, dict) and "step" in node]
            while waiting:
                node = waiting.pop()
                yield _identity(node)
                waiting += node.get("inputs", {}).values()


def _started_s(run: str) -> float:
    return time.mktime(time.strptime(run[:15], "%Y%m%d-%H%M%S"))
