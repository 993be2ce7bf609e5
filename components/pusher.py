"""Publish blessed models where a server finds them.

Reads a candidate and its evaluations; writes to the store of models (`storage.models`) and `push.json`. The lineage of
a pushed model travels with it, in `assets.extra/lineage.json`. A version number is used once in a store, whatever the
model's name: `tflite` holds files of all of them.

What is pushed is what was judged, byte by byte, and it was judged beside the model that it replaces. The pusher makes
sure of both under the lock of the store. A bucket has no locks: of two pushes within the same seconds both may appear,
the higher number last.
"""

import logging
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from components.artifacts.baseline import read_baseline
from components.artifacts.blessing import find_objection
from components.artifacts.litert_evaluation import LiteRTFile, read_passed_files
from components.artifacts.manifest import Lineage, read_manifest, trace
from components.artifacts.parity import read_parity
from components.artifacts.push import Push, write_push
from components.artifacts.summary import Summary
from components.errors import PushError
from components.storage.files import sha256, write_json
from components.storage.models import LINEAGE, LITERT, MARKER, WITHDRAWN, ModelStore
from components.storage.store import Store
from export.spec import ModelSpec, read_spec, write_litert_spec

log = logging.getLogger(__name__)

_NEEDED = (MARKER, "variables/variables.index")


@dataclass(frozen=True)
class PusherOptions:
    """What may be pushed.

    Attributes:
        push_withdrawn: push a model again that a rollback took back.
    """

    push_withdrawn: bool = False


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A SavedModel, its LiteRT files that passed their evaluation, their origin, and what it was compared with."""

    spec: ModelSpec
    digest: str
    baseline: int | None
    export_dir: Path
    litert_dir: Path
    litert_files: Mapping[str, LiteRTFile]
    origin: Mapping[str, Lineage]

    @property
    def name(self) -> str:
        return self.spec["model_name"]

    @property
    def litert_digests(self) -> dict[str, str]:
        return {file["name"]: file["sha256"] for file in self.litert_files.values()}


def push(
    *,
    export_dir: Path,
    baseline_dir: Path,
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
    where it is not blessed, was taken back by a rollback, stands on a fallback while the pushed one does not, or was
    not compared with the version that is the newest by now. One that already is the newest version stays what it is.

    Raises:
        PushError: the model is blessed but not complete, is not what was judged, or cannot be copied.
    """
    objection = find_objection(evaluation_dir) or find_objection(infra_validation_dir) or _find_difference(parity_dir)
    if objection:
        return _refuse(out_dir, f"not blessed: {objection}")
    _check_complete(export_dir)
    candidate = _Candidate(
        spec=read_spec(export_dir),
        digest=read_manifest(export_dir)["digest"],
        baseline=read_baseline(baseline_dir)["version"],
        export_dir=export_dir,
        litert_dir=litert_dir,
        litert_files=read_passed_files(litert_evaluation_dir),
        origin={
            "model": trace(export_dir),
            "evaluation": trace(evaluation_dir),
            "infra_validation": trace(infra_validation_dir),
            "litert": trace(litert_evaluation_dir),
        },
    )
    models = ModelStore(models_dir)
    with models.lock():
        version = _find_pushed(models, candidate)
        if version is None:
            if reason := _find_reason_against(models, candidate, options):
                return _refuse(out_dir, reason)
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
    """Return the newest version if it is the candidate, with the same LiteRT files."""
    pushed = models.versions(candidate.name)
    newest = models.lineage(candidate.name, pushed[-1]) if pushed else None
    if newest is None or newest["model"]["digest"] != candidate.digest:
        return None
    return pushed[-1] if newest.get("litert_files", {}) == candidate.litert_digests else None


def _find_reason_against(models: ModelStore, candidate: _Candidate, options: PusherOptions) -> str | None:
    """Return what in the store speaks against a push of the candidate; `None` if nothing does."""
    withdrawn = _find_withdrawn(models, candidate)
    if withdrawn and not options.push_withdrawn:
        return f"withdrawn by a rollback as version {withdrawn}; pusher.push_withdrawn=true pushes it again"
    newest = models.baseline(candidate.name, candidate.digest)
    if newest != candidate.baseline:
        now = "there is no other version" if newest is None else f"version {newest} is the newest"
        then = "none" if candidate.baseline is None else f"version {candidate.baseline}"
        return f"by now {now}, and the model was compared with {then}; run again to compare it"
    if newest is not None and (fallback := _find_fallback(candidate.spec)):
        pushed = models.spec(candidate.name, newest)
        if pushed is None or not _find_fallback(pushed):
            return (
                f"it stands on a fallback, and version {newest} does not, which a fallback never replaces: {fallback} "
                "Run again when the real one can be had; or name what you want (DATA=synthetic, WEIGHTS=none), or push "
                "it under a name of its own, export.model_name"
            )
    return None


def _find_fallback(spec: ModelSpec) -> str | None:
    """Return why the data or the weights of a model are not what `auto` hoped for; `None` where they are."""
    return spec["data"]["fallback"] or spec["weights"]["fallback"]


def _find_withdrawn(models: ModelStore, candidate: _Candidate) -> int | None:
    """Return the last version as which a rollback took the candidate back."""
    name = f"{WITHDRAWN}/{candidate.name}"
    return next((v for v in reversed(models.versions(name)) if models.digest(name, v) == candidate.digest), None)


def _publish(models: ModelStore, candidate: _Candidate) -> int:
    """Publish the SavedModel and return its version."""
    version = models.new_version(candidate.name, candidate.digest)
    pushed = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    with models.staged(candidate.name, version) as staging:
        files = read_manifest(candidate.export_dir)["files"]
        _copy(candidate.export_dir, ((name, file["sha256"]) for name, file in files.items()), staging, step="export")
        origin = {"version": version, "pushed": pushed, **candidate.origin, "litert_files": candidate.litert_digests}
        write_json(staging / LINEAGE, origin)
    return version


def _publish_litert(models: ModelStore, candidate: _Candidate, version: int) -> None:
    """Publish the LiteRT files beside the SavedModel of that version."""
    files = candidate.litert_files
    with models.staged(LITERT, version) as staging:
        _copy(candidate.litert_dir, candidate.litert_digests.items(), staging, step="litert")
        write_litert_spec(
            staging,
            spec=read_spec(candidate.export_dir),
            files={
                kind: {"name": file["name"], "size_bytes": file["size_bytes"], "sha256": file["sha256"]}
                for kind, file in files.items()
            },
        )


def _copy(source: Path, files: Iterable[tuple[str, str]], target: Path, *, step: str) -> None:
    """Copy files, and make sure that the copies are what was judged, by their SHA-256.

    Raises:
        PushError: one is missing, or is not what it was.
    """
    for name, digest in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copy2(source / name, target / name)
        except FileNotFoundError as exc:
            raise PushError(f"{source / name} is missing. Make it again with --force {step}.") from exc
        if sha256(target / name) != digest:
            raise PushError(
                f"What is pushed is what was judged. {source / name} has been damaged since then. Make it again with "
                f"--force {step}."
            )
