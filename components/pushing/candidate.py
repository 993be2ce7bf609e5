"""A model that may be pushed, with the files that passed their evaluation and where all of it comes from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts.litert_evaluation import LiteRTFile
from components.artifacts.manifest import Lineage, read_manifest

if TYPE_CHECKING:
    from export.signing import Signer


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A SavedModel, its LiteRT files that passed their evaluation, and where they come from."""

    name: str
    digest: str
    export_dir: Path
    litert_dir: Path
    litert_files: Mapping[str, LiteRTFile]
    baseline: int | None
    origin: Mapping[str, Lineage]
    signer: "Signer | None"

    @property
    def signed_by(self) -> str | None:
        """Return the fingerprint of the key or certificate that signs; `None` where nobody does."""
        return self.signer.fingerprint if self.signer else None

    @property
    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each file as the export wrote it."""
        return {name: file["sha256"] for name, file in read_manifest(self.export_dir)["files"].items()}

    @property
    def litert_digests(self) -> dict[str, str]:
        return {file["name"]: file["sha256"] for file in self.litert_files.values()}
