"""The store of artifacts: a folder for each output of a step, complete from the moment it can be seen.

    <root>/<step>/<key>/            the files of the artifact and its manifest.json
    <root>/<step>/<key>.partial/    being written, by the one process that holds <key>.lock

The key says what the output was made from, the manifest's digest what came out. A step that is run again and makes the
same files does not make its followers run. An artifact is never changed or replaced: a forced step adds another one
under the same key. Files under `logs/` are kept but are not content: they may hold clock times.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.files import TORN, exclusive, read_json, write_json
from components.lineage import MANIFEST, MISSING
from pipelines import fingerprint


@dataclass(frozen=True)
class Artifact:
    """A complete output folder and its manifest."""

    path: Path
    manifest: dict[str, Any]

    @property
    def digest(self) -> str:
        return self.manifest["digest"]

    @property
    def is_missing(self) -> bool:
        """Whether it only says why something cannot be had."""
        return MISSING in self.manifest["files"]

    @property
    def reference(self) -> dict[str, str]:
        """What another manifest says of this artifact: enough to find it and to tell whether it is the same."""
        return {"step": self.manifest["step"], "key": self.path.name, "digest": self.digest}


class ArtifactStore:
    """Finds, locks and publishes artifacts below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, step: str, key: str) -> Artifact | None:
        """Give the newest intact artifact of a key: its manifest reads and every file has its size."""
        return next((a for a in self._newest_first(step) if a.manifest["key"] == key and _is_intact(a)), None)

    def newest(self, step: str) -> Artifact | None:
        return next(iter(self._newest_first(step)), None)

    def get(self, reference: dict[str, str]) -> Artifact | None:
        artifact = _read(self.root / reference["step"] / reference["key"])
        return artifact if artifact and _is_intact(artifact) else None

    @contextmanager
    def lock(self, step: str, key: str) -> Iterator[None]:
        """Hold the key of a step: one process builds it, another that wants the same waits for it."""
        with exclusive(self.root / step / f"{key}.lock"):
            yield

    def start(self, step: str, key: str, *, keep: bool) -> Path:
        """Make the folder a step writes to; `keep` what a killed attempt left there, or begin anew."""
        partial = self.root / step / f"{key}.partial"
        if not keep:
            shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True, exist_ok=True)
        for torn in partial.rglob(TORN):
            torn.unlink()
        return partial

    def publish(self, partial: Path, manifest: dict[str, Any]) -> Artifact:
        """Complete the manifest with the files' digests and make the folder visible by a rename.

        The artifact that is there already is given back where it has the very same content.
        """
        manifest = sealed(partial, manifest)
        existing = self.find(manifest["step"], manifest["key"])
        if existing and existing.digest == manifest["digest"]:
            shutil.rmtree(partial)
            return existing
        write_json(partial / MANIFEST, manifest)
        place = partial.with_suffix("")
        generation = 1
        while place.exists():
            generation += 1
            place = partial.with_name(f"{manifest['key']}-{generation}")
        partial.rename(place)
        return Artifact(place, read_json(place / MANIFEST))

    def _newest_first(self, step: str) -> list[Artifact]:
        found = [_read(p.parent) for p in (self.root / step).glob(f"*/{MANIFEST}") if p.parent.suffix != ".partial"]
        return sorted((a for a in found if a), key=lambda a: (a.manifest["created"], a.path.name), reverse=True)


def sealed(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Complete a manifest with the files of a folder, their digests and the digest of all of them."""
    (folder / MANIFEST).unlink(missing_ok=True)
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    files = {
        p.relative_to(folder).as_posix(): {"size": p.stat().st_size, "sha256": fingerprint.of_file(p)} for p in paths
    }
    digest = fingerprint.of_value({name: f["sha256"] for name, f in files.items() if not name.startswith("logs/")})
    return {**manifest, "digest": digest, "files": files}


def _read(path: Path) -> Artifact | None:
    try:
        return Artifact(path, read_json(path / MANIFEST))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _is_intact(artifact: Artifact) -> bool:
    try:
        return all((artifact.path / n).stat().st_size == f["size"] for n, f in artifact.manifest["files"].items())
    except FileNotFoundError:
        return False
