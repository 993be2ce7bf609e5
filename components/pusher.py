"""Publish blessed models where a server finds them.

Reads a candidate and its evaluations; writes to the store of models (`storage.models`) and `push.json`. The lineage of
a pushed model travels with it, in `assets.extra/lineage.json`. A version number is used once in a store, whatever the
model's name: `tflite` holds files of all of them.

With a signing key, the last file of a version is its signature (`export/signing.py`), so it is there when the version
becomes visible.

What other runs have pushed meanwhile is looked at under the store's lock. A bucket has no locks: there, two runs that
push within the seconds of an upload may both be published, with the higher number served.
"""

import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts.blessing import find_objection
from components.artifacts.evaluation import read_metrics
from components.artifacts.litert_evaluation import LiteRTFile, read_passed_files
from components.artifacts.manifest import MANIFEST, Lineage, read_manifest, trace
from components.artifacts.parity import read_parity
from components.artifacts.push import Push, write_push
from components.artifacts.summary import Summary
from components.errors import PushError
from components.storage.files import sha256, write_json
from components.storage.models import LINEAGE, LITERT, MARKER, WITHDRAWN, ModelStore
from components.storage.store import Store
from export.spec import SPEC, ModelSpec, read_spec, write_litert_spec

if TYPE_CHECKING:
    from export.signing import Signer

log = logging.getLogger(__name__)

_NEEDED = (MARKER, "variables/variables.index")


@dataclass(frozen=True)
class PusherOptions:
    """What may be pushed.

    Attributes:
        push_withdrawn: push a model again that a rollback took back.
        signing_key: a PEM file with the private key that signs versions (ECDSA); without one they are not signed. Its
            passphrase is read from the environment: PIPELINE_SIGNING_PASSPHRASE.
        signing_certificates: a PEM file with the key's certificate and those that vouch for it, where versions are
            verified with a root certificate instead of the public key.
    """

    push_withdrawn: bool = False
    signing_key: str = ""
    signing_certificates: str = ""

    def __post_init__(self) -> None:
        if "-----" in self.signing_key:
            raise ValueError("signing_key must be the path of a file. Received: a key itself, which is not repeated.")
        if self.signing_certificates and not self.signing_key:
            raise ValueError("signing_certificates need a signing_key, of which they are. Received: none.")


@dataclass(frozen=True, kw_only=True)
class _Candidate:
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


def describe_source(options: PusherOptions) -> dict[str, str]:
    """Describe who signs, before anything runs: the fingerprint of the key or certificate; nothing where nobody does.

    Raises:
        PushError: the key or its certificates cannot be used.
    """
    signer = _open_signer(options)
    return {"signed_by": signer.fingerprint} if signer else {}


def _open_signer(options: PusherOptions) -> "Signer | None":
    if not options.signing_key:
        return None
    from export.signing import read_signer  # most runs do not sign

    certificates = Path(options.signing_certificates) if options.signing_certificates else None
    try:
        return read_signer(Path(options.signing_key), certificates)
    except ValueError as exc:
        raise PushError(f"{exc} The options are pusher.signing_key and pusher.signing_certificates.") from exc


def push(
    *,
    export_dir: Path,
    evaluation_dir: Path,
    infra_validation_dir: Path,
    litert_dir: Path,
    litert_evaluation_dir: Path,
    parity_dir: Path,
    models_dir: Store,
    out_dir: Path,
    options: PusherOptions,
) -> Summary:
    """Publish a model that both validators bless as the next version, once; writes `push.json`.

    With it go the LiteRT files that passed their evaluation. A model is not pushed, which is a result with its reason,
    where it is not blessed, where a rollback took it back, where the newest version is not the one that it was compared
    with, or where it stands on a fallback and the newest version does not. One that already is the newest version stays
    what it is, unless it shall be signed and is not, or with another key: then it is pushed again.

    Raises:
        PushError: the model is blessed but not complete, is not what was evaluated, or cannot be copied or signed.
    """
    objection = find_objection(evaluation_dir) or find_objection(infra_validation_dir) or _find_difference(parity_dir)
    if objection:
        return _refuse(out_dir, f"not blessed: {objection}")
    _check_complete(export_dir)
    candidate = _Candidate(
        name=read_spec(export_dir)["model_name"],
        digest=read_manifest(export_dir)["digest"],
        export_dir=export_dir,
        litert_dir=litert_dir,
        litert_files=read_passed_files(litert_evaluation_dir),
        baseline=baseline["version"] if (baseline := read_metrics(evaluation_dir)["baseline"]) else None,
        origin={
            "model": trace(export_dir),
            "evaluation": trace(evaluation_dir),
            "infra_validation": trace(infra_validation_dir),
            "litert": trace(litert_evaluation_dir),
        },
        signer=_open_signer(options),
    )
    models = ModelStore(models_dir)
    with models.lock():
        version = _find_pushed(models, candidate)
        if version is None:
            reason = _find_reason_against(models, candidate, options)
            if reason:
                return _refuse(out_dir, reason)
            # Before the SavedModel is visible, which is of no use to a device.
            for name, digest in candidate.litert_digests.items():
                _check_file(litert_dir / name, digest, source=litert_dir / name, step="litert")
            version = _publish(models, candidate)
        # Also where an earlier push of the same model was killed before its LiteRT files.
        if candidate.litert_files and version not in models.versions(LITERT):
            _publish_litert(models, candidate, version)
    path = models.path(candidate.name, version)
    result = Push(
        pushed=True,
        version=version,
        path=path,
        litert_path=models.path(LITERT, version) if candidate.litert_files else None,
        litert_files=list(candidate.litert_digests),
        reason="blessed",
    )
    write_push(out_dir, result)
    return {"pushed": True, "path": path}


def _refuse(out_dir: Path, reason: str) -> Summary:
    log.warning("pusher: NOT PUSHED: %s", reason)
    refusal = Push(pushed=False, version=None, path=None, litert_path=None, litert_files=[], reason=reason)
    write_push(out_dir, refusal)
    return {"pushed": False, "path": "none"}


def _find_difference(parity_dir: Path) -> str | None:
    """Return that a form of the model differs from the reference, if one does."""
    passed = all(form["passed"] for form in read_parity(parity_dir)["forms"])
    return None if passed else "the same photo gets different predictions from different forms of the model"


def _check_complete(export_dir: Path) -> None:
    for file in _NEEDED:
        if not (export_dir / file).is_file():
            raise PushError(f"A SavedModel must hold {file}. There is none in {export_dir}: run with --force export.")


def _find_pushed(models: ModelStore, candidate: _Candidate) -> int | None:
    """Return the newest version if it is the candidate, has the same LiteRT files and is signed as it shall be."""
    pushed = models.versions(candidate.name)
    newest = models.lineage(candidate.name, pushed[-1]) if pushed else None
    if newest is None or newest["model"]["digest"] != candidate.digest:
        return None
    if newest.get("litert_files", {}) != candidate.litert_digests:
        return None
    signed_by = newest.get("signed_by")
    if candidate.signed_by not in (None, signed_by):
        how = f"signed by another one, {signed_by}" if signed_by else "not signed"
        log.warning("pusher: version %d is the same model, and %s: it is pushed again, signed", pushed[-1], how)
        return None
    return pushed[-1]


def _find_reason_against(models: ModelStore, candidate: _Candidate, options: PusherOptions) -> str | None:
    """Return why a blessed candidate may not become the newest version, if it may not."""
    withdrawn = _find_withdrawn(models, candidate)
    if withdrawn and not options.push_withdrawn:
        return f"withdrawn by a rollback as version {withdrawn}; pusher.push_withdrawn=true pushes it again"
    newest = models.newest_other(candidate.name, candidate.digest)
    if newest != candidate.baseline:
        if newest is None or newest < (candidate.baseline or 0):
            meanwhile = f"version {candidate.baseline}, with which it was compared, was withdrawn meanwhile"
        else:
            meanwhile = f"version {newest} was pushed meanwhile"
        newest_name = "what is the newest now" if newest is None else f"version {newest}"
        return f"{meanwhile}; run again, without --from, to compare it with {newest_name}"
    return _find_fallback(models, candidate, newest)


def _find_fallback(models: ModelStore, candidate: _Candidate, newest: int | None) -> str | None:
    """Return on which fallback a candidate stands that the newest version does not stand on."""
    spec = read_spec(candidate.export_dir)
    content = None if newest is None else models.read(candidate.name, newest, SPEC)
    pushed: ModelSpec | None = None if content is None else json.loads(content)
    for part, option, origin, pushed_origin in (
        ("photos", "examples.source", spec["data"], pushed and pushed.get("data")),
        ("weights", "model.weights", spec["weights"], pushed and pushed.get("weights")),
    ):
        if not origin["fallback"]:
            continue
        # What is not known of a pushed model may be real.
        if newest is not None and not (pushed_origin and pushed_origin["fallback"]):
            return (
                f"its {part} are a fallback ({origin['fallback'].rstrip('.')}), and those of version {newest} are not; "
                f"run again when they can be had, or name others with {option}"
            )
        log.warning("pusher: the model stands on a fallback: its %s: %s", part, origin["fallback"])
    return None


def _find_withdrawn(models: ModelStore, candidate: _Candidate) -> int | None:
    """Return the last version as which a rollback took the candidate back."""
    name = f"{WITHDRAWN}/{candidate.name}"
    return next((v for v in reversed(models.versions(name)) if models.digest(name, v) == candidate.digest), None)


def _publish(models: ModelStore, candidate: _Candidate) -> int:
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


def _publish_litert(models: ModelStore, candidate: _Candidate, version: int) -> None:
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


def _sign(staging: Path, candidate: _Candidate, name: str) -> None:
    """Sign the files that are to be a version, where somebody signs."""
    if candidate.signer:
        candidate.signer.sign(staging, name)
        log.info("pusher: %s is signed by %s", name, candidate.signer.fingerprint)


def _check_copies(staging: Path, digests: Mapping[str, str], *, source: Path, step: str) -> None:
    """Raise `PushError` unless a folder holds the files of these SHA-256 digests and no others."""
    copies = {path.relative_to(staging).as_posix() for path in staging.rglob("*") if path.is_file()}
    for name in sorted({*copies, *digests}):
        _check_file(staging / name, digests.get(name), source=source / name, step=step)


def _check_file(path: Path, digest: str | None, *, source: Path, step: str) -> None:
    """Raise `PushError` unless a file has that SHA-256; `source` is what the message names."""
    if not path.is_file() or sha256(path) != digest:
        raise PushError(
            f"What is pushed must be what was evaluated, and {source} is not as the step {step} wrote it: its content "
            f"has changed. Run with --force {step}."
        )
