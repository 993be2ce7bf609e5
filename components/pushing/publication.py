"""A version on its way into the store: copied, checked against what was evaluated, signed, then visible at once."""

import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from components.artifacts.manifest import MANIFEST
from components.errors import PushError
from components.pushing.candidate import Candidate
from components.storage.files import sha256, write_json
from components.storage.models import LINEAGE, LITERT, ModelStore
from export.spec import read_spec, write_litert_spec

log = logging.getLogger(__name__)


def publish(models: ModelStore, candidate: Candidate) -> int:
    """Publish the SavedModel and return its version."""
    version = models.new_version(candidate.name, candidate.digest)
    pushed = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    with models.staged(candidate.name, version) as staging:
        shutil.copytree(candidate.export_dir, staging, ignore=shutil.ignore_patterns(MANIFEST), dirs_exist_ok=True)
        _check_copies(staging, candidate.digests, source=candidate.export_dir, step="export")
        origin = {
            "version": version,
            "pushed": pushed,
            **candidate.origin,
            "files": candidate.digests,
            "litert_files": candidate.litert_digests,
            "signed_by": candidate.signed_by,
        }
        write_json(staging / LINEAGE, origin)
        _sign(staging, candidate, f"{candidate.name}/{version}")
    return version


def publish_litert(models: ModelStore, candidate: Candidate, version: int) -> None:
    """Publish the LiteRT files beside the SavedModel of that version."""
    files = candidate.litert_files
    with models.staged(LITERT, version) as staging:
        for file in files.values():
            shutil.copy2(candidate.litert_dir / file["name"], staging)
        _check_copies(staging, candidate.litert_digests, source=candidate.litert_dir, step="litert")
        write_litert_spec(
            staging,
            spec=read_spec(candidate.export_dir),
            version=version,
            files={
                kind: {"name": file["name"], "size_bytes": file["size_bytes"], "sha256": file["sha256"]}
                for kind, file in files.items()
            },
        )
        _sign(staging, candidate, f"{LITERT}/{version}")


def _sign(staging: Path, candidate: Candidate, name: str) -> None:
    """Sign the files that are to be a version, where somebody signs."""
    if candidate.signer:
        candidate.signer.sign(staging, name)
        log.info("pusher: %s is signed by %s", name, candidate.signer.fingerprint)


def _check_copies(staging: Path, digests: Mapping[str, str], *, source: Path, step: str) -> None:
    """Raise `PushError` unless a folder holds the files of these SHA-256 digests and no others."""
    copies = {path.relative_to(staging).as_posix() for path in staging.rglob("*") if path.is_file()}
    for name in sorted({*copies, *digests}):
        check_file(staging / name, digests.get(name), source=source / name, step=step)


def check_file(path: Path, digest: str | None, *, source: Path, step: str) -> None:
    """Raise `PushError` unless a file has that SHA-256; `source` is what the message names."""
    if not path.is_file() or sha256(path) != digest:
        raise PushError(
            f"What is pushed must be what was evaluated, and {source} is not as the step {step} wrote it: its content "
            f"has changed. Run with --force {step}."
        )
