"""The store of artifacts: a folder for each output of a step, complete from the moment it can be seen.

    <root>/<step>/<key>/            the files of the artifact and its manifest.json
    <root>/<step>/<key>.partial/    being written, by the one process that holds <key>.lock

The key says what the output was made from, the manifest's digest what came out. A step that is run again and makes the
same files does not make its followers run. An artifact is never changed or replaced: a forced step adds another one
under the same key. Files under `logs/` are kept but are not content: they may hold clock times. A search compares sizes
alone; before a step reads an artifact, `verify` compares digests, and removes a file that is damaged.

The store may be mirrored at a URL: <url>/<step>/<key>-<digest of all files>/, its manifest.json written last. What is
made here is uploaded; what others made is found by its manifest, and its files are downloaded when a step needs them.
"""

import json
import logging
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from components.artifacts.manifest import (
    MANIFEST,
    MISSING,
    File,
    Manifest,
    Origin,
    Output,
    Reference,
    read_fallback,
    read_manifest,
    write_manifest,
)
from components.errors import StorageError
from components.storage.bucket import Bucket
from components.storage.files import TEMPORARY_FILES, file_lock, write_json
from pipelines import fingerprint

log = logging.getLogger(__name__)

_ALWAYS_THERE = {"step", "key", "created", "digest", "files"}
"""What the store itself reads of a manifest."""


@dataclass(frozen=True)
class Artifact:
    """A complete output folder and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        return self.manifest["digest"]

    @property
    def is_missing(self) -> bool:
        """Whether it only says why something is not available."""
        return MISSING in self.manifest["files"]

    @property
    def fallback(self) -> str | None:
        """Why it holds something else than what was wanted first, if it does."""
        return read_fallback(self.manifest)

    @property
    def reference(self) -> Reference:
        """What a manifest says of its inputs: enough to find this artifact and to tell whether it is the same."""
        return {"step": self.manifest["step"], "key": self.path.name, "digest": self.digest}


class ArtifactStore:
    """Finds, locks and publishes artifacts below `root`, mirrored in `bucket` where there is one."""

    def __init__(self, root: Path, bucket: Bucket | None = None) -> None:
        self.root = root
        self._bucket = bucket

    def find(self, step: str, key: str) -> Artifact | None:
        """Return the newest intact artifact of a key: its manifest reads and every file has its size."""
        self._learn(step, key)
        return next((a for a in self._newest_first(step) if a.manifest["key"] == key and self._is_kept(a)), None)

    def newest(self, step: str) -> Artifact | None:
        """Return the newest artifact of a step."""
        return next(iter(self._newest_first(step)), None)

    def find_similar(self, step: str, origin: Origin, *, varying: Collection[str]) -> Artifact | None:
        """Return the newest intact artifact on this machine that was made from an origin but for what varies.

        Args:
            step: that made it.
            origin: with the digest of each input.
            varying: parameters of inputs, or keys of the origin, in which it may differ.
        """

        def describe(inputs: Mapping[str, Any], of: Mapping[str, Any]) -> dict[str, Any]:
            whole = {**{name: of.get(name) for name in Origin.__annotations__ if name != "inputs"}, **inputs}
            return {name: value for name, value in whole.items() if name not in varying}

        wanted = describe(origin["inputs"], origin)
        for artifact in self._newest_first(step):
            manifest = artifact.manifest
            inputs = {parameter: reference["digest"] for parameter, reference in manifest["inputs"].items()}
            if not artifact.is_missing and describe(inputs, manifest) == wanted and self._remove_damaged(artifact):
                return artifact
        return None

    def get(self, reference: Reference) -> Artifact | None:
        """Return the artifact that a manifest refers to, if it is intact."""
        self._learn(reference["step"], reference["key"])
        artifact = read_artifact(self.root / reference["step"] / reference["key"])
        return artifact if artifact and self._is_kept(artifact) else None

    def fetch(self, artifact: Artifact) -> Artifact:
        """Return an artifact with its files here: those that are only at the URL are downloaded.

        Raises:
            StorageError: they are not available.
        """
        if self._bucket and not _is_intact(artifact):
            log.info("%s: fetching its output from %s", artifact.manifest["step"], self._bucket)
            mirror = _mirror(self._bucket, artifact)
            mirror.download(artifact.manifest["files"], artifact.path)
            if not self._remove_damaged(artifact):
                step = artifact.manifest["step"]
                raise StorageError(f"Files at {mirror} are not as they were written. Run with --force {step}.")
        return artifact

    def verify(self, artifact: Artifact) -> bool:
        """Return whether an artifact is available with the files as they were written, by their digests.

        A damaged file is removed. So the artifact is no longer found, or the file is fetched from the URL again.
        """
        self._remove_damaged(artifact)
        return self._is_kept(artifact)

    def discard(self, partial: Path) -> None:
        """Remove what a step has written, unpublished."""
        shutil.rmtree(partial)

    @contextmanager
    def lock(self, step: str, key: str) -> Iterator[None]:
        """Lock the key of a step: one process builds it, another that wants the same waits for it."""
        with file_lock(self.root / step / f"{key}.lock"):
            yield

    def start(self, step: str, key: str, *, keep: bool) -> Path:
        """Make the folder that a step writes to, with what a killed attempt left there if `keep`, else empty."""
        partial = self.root / step / f"{key}.partial"
        if not keep:
            shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True, exist_ok=True)
        for leftover in partial.rglob(TEMPORARY_FILES):
            leftover.unlink()
        return partial

    def publish(self, partial: Path, output: Output) -> Artifact:
        """Complete the manifest with the files' digests and make the folder visible by a rename.

        An artifact that is there already is returned where it has the same content.
        """
        manifest = complete(partial, output)
        existing = self.find(manifest["step"], manifest["key"])
        if existing and existing.digest == manifest["digest"] and self.verify(existing):
            with suppress(StorageError):  # lost at the URL: this one stands beside it
                existing = self.fetch(existing)
                shutil.rmtree(partial)
                return existing
        write_manifest(partial, manifest)
        # Two machines may make the same step at once: under one name only the very same files may meet, logs and all.
        suffix = f"-{fingerprint.of_value(manifest['files'])}" if self._bucket else ""
        name = f"{manifest['key']}{suffix}"
        path = partial.with_name(name)
        generation = 1
        while path.exists():
            generation += 1
            path = partial.with_name(f"{name}-{generation}")
        partial.rename(path)
        artifact = Artifact(path, read_manifest(path))
        if self._bucket:
            _mirror(self._bucket, artifact).upload(path, marker=MANIFEST)
        return artifact

    def _learn(self, step: str, key: str) -> None:
        """Write the manifests of a key's artifacts that are complete at the URL to this machine."""
        if self._bucket is None:
            return
        for name in self._bucket.names(step):
            path = self.root / step / name / MANIFEST
            if name.startswith(key) and not path.exists():
                content = self._bucket.read(f"{step}/{name}/{MANIFEST}")
                if content is not None:
                    write_json(path, json.loads(content))

    def _is_kept(self, artifact: Artifact) -> bool:
        """Return whether an artifact is available; one whose upload was interrupted is uploaded."""
        is_here = _is_intact(artifact)
        if self._bucket is None:
            return is_here
        mirror = _mirror(self._bucket, artifact)
        is_there = mirror.find(MANIFEST) is not None
        if is_here and not is_there:
            mirror.upload(artifact.path, marker=MANIFEST)
        return is_here or is_there

    def _remove_damaged(self, artifact: Artifact) -> bool:
        """Remove the damaged files of an artifact that are here, and return whether all its files are here, intact."""
        for name, file in artifact.manifest["files"].items():
            path = artifact.path / name
            if path.exists() and not _is_as_written(path, file):
                log.warning("%s: its output is damaged: %s", artifact.manifest["step"], path)
                path.unlink()
        return _is_intact(artifact)

    def _newest_first(self, step: str) -> list[Artifact]:
        found = [
            read_artifact(p.parent) for p in (self.root / step).glob(f"*/{MANIFEST}") if p.parent.suffix != ".partial"
        ]
        return sorted((a for a in found if a), key=lambda a: (a.manifest["created"], a.path.name), reverse=True)


def complete(folder: Path, output: Output) -> Manifest:
    """Return a step's output with the files of a folder, their digests and the digest of all of them."""
    (folder / MANIFEST).unlink(missing_ok=True)
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    files: dict[str, File] = {
        p.relative_to(folder).as_posix(): {"size": p.stat().st_size, "sha256": fingerprint.of_file(p)} for p in paths
    }
    digest = fingerprint.of_value({name: f["sha256"] for name, f in files.items() if not name.startswith("logs/")})
    return {**output, "digest": digest, "files": files}


def _mirror(bucket: Bucket, artifact: Artifact) -> Bucket:
    return bucket / f"{artifact.manifest['step']}/{artifact.path.name}"


def read_artifact(path: Path) -> Artifact | None:
    """Return the artifact in a folder, unless its manifest cannot be read or is not complete."""
    try:
        manifest = read_manifest(path)
        return Artifact(path, manifest) if manifest.keys() >= _ALWAYS_THERE else None
    except (OSError, ValueError, AttributeError):
        return None


def _is_as_written(path: Path, file: File) -> bool:
    try:
        status = path.stat()
        return status.st_size == file["size"] and _sha256(path, status.st_size, status.st_ctime_ns) == file["sha256"]
    except OSError:
        return False


@cache
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    """Digest a file, once in a process as long as nothing changes its inode: several steps read the same artifact."""
    return fingerprint.of_file(path)


def _is_intact(artifact: Artifact) -> bool:
    try:
        return all((artifact.path / n).stat().st_size == f["size"] for n, f in artifact.manifest["files"].items())
    except OSError:
        return False
