"""Publish blessed models where a server finds them, and take one back.

Reads a candidate and what was said of it; writes to the models' place (`storage.models`) and `push.json`. The
lineage of a pushed model travels with it, in `assets.extra/lineage.json`. A version number is never used twice in a
place, whatever the model's name: `tflite` holds files of all of them.
"""

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts import manifest as lineage
from components.errors import PushError
from components.storage.bucket import Bucket
from components.storage.files import read_json, write_json
from components.storage.models import LINEAGE, LITERT, MARKER, WITHDRAWN, ModelBucket, ModelFolder, open_models
from export.spec import LiteRTFile, ModelSpec, read_spec, write_litert_spec

log = logging.getLogger(__name__)

_NEEDED = (MARKER, "variables/variables.index")


@dataclass(frozen=True)
class PusherOptions:
    """What may be pushed.

    Attributes:
        push_withdrawn: push a model again that a rollback took back.
    """

    push_withdrawn: bool = False


def versions(models_dir: Path | Bucket, model_name: str) -> list[int]:
    """Give the pushed versions of a model, the oldest first."""
    return open_models(models_dir).versions(model_name)


def push(
    *,
    export_dir: Path,
    evaluation_dir: Path,
    infra_validation_dir: Path,
    litert_dir: Path,
    litert_evaluation_dir: Path,
    parity_dir: Path,
    models_dir: Path | Bucket,
    out_dir: Path,
    options: PusherOptions,
) -> dict[str, Any]:
    """Publish a model that both validators bless as the next version, once; writes `push.json`.

    With it go the LiteRT files that passed their evaluation. A model that is not blessed, or that a rollback took back,
    is not pushed: that is a result, with its reason. One that already is the newest version stays what it is.

    Raises:
        PushError: the model is blessed but not complete, or cannot be copied.
    """
    models = open_models(models_dir)
    name, digest = _identify(export_dir)
    validations = {"evaluation": evaluation_dir, "infra_validation": infra_validation_dir}
    objections = [found for folder in validations.values() if (found := _find_objection(folder))]
    if not all(way["passed"] for way in read_json(parity_dir / "parity.json")["ways"]):
        objections.append("the same photo gets different answers in different ways")
    evaluated = read_json(litert_evaluation_dir / "evaluation.json")["files"]
    files = {kind: file for kind, file in evaluated.items() if file["passed"]}
    version: int | None = None
    if objections:
        # The second validator has nothing of its own to say of a model that the first one refused.
        reason = f"not blessed: {objections[0]}"
    else:
        for file in _NEEDED:
            if not (export_dir / file).is_file():
                raise PushError(
                    f"A SavedModel must hold {file}. There is none in {export_dir}: run with --force export."
                )
        with models.lock():
            pushed, withdrawn = models.versions(name), f"{WITHDRAWN}/{name}"
            taken_back = [v for v in models.versions(withdrawn) if _digest(models, withdrawn, v) == digest]
            newest = models.lineage(name, pushed[-1]) if pushed else None
            if newest and newest["model"]["digest"] == digest and newest.get("litert_files", {}) == _digests(files):
                version = pushed[-1]
            elif not taken_back or options.push_withdrawn:
                version = models.new_version(name, digest)
                origin = {
                    "version": version,
                    "pushed": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                    "model": lineage.trace(export_dir),
                    **{validation: lineage.trace(folder) for validation, folder in validations.items()},
                    "litert": lineage.trace(litert_evaluation_dir),
                    "litert_files": _digests(files),
                }
                with models.staged(name, version) as staging:
                    _fill_model(staging, export_dir, origin)
            # Also when whoever pushed the model was killed here.
            if version is not None and files and version not in models.versions(LITERT):
                with models.staged(LITERT, version) as staging:
                    _fill_litert(staging, litert_dir, read_spec(export_dir), files)
        if version is None:
            reason = f"withdrawn by a rollback as version {taken_back[-1]}; pusher.push_withdrawn=true pushes it again"
        else:
            reason = "blessed"
    if version is None:
        log.warning("pusher: NOT PUSHED: %s", reason)
    path = models.path(name, version) if version is not None else None
    litert_path = models.path(LITERT, version) if version is not None and files else None
    result = {
        "pushed": version is not None,
        "version": version,
        "path": path,
        "litert_path": litert_path,
        "litert_files": [file["name"] for file in files.values()] if litert_path else [],
        "reason": reason,
    }
    write_json(out_dir / "push.json", result)
    return {"pushed": version is not None, "path": path or "none"}


def rollback(models_dir: Path | Bucket, model_name: str) -> tuple[int, int]:
    """Withdraw the newest version, so that servers go back to the one before it.

    Returns:
        The version withdrawn and the version that is now the newest.

    Raises:
        PushError: there is no earlier version to go back to.
    """
    models = open_models(models_dir)
    with models.lock():
        pushed = models.versions(model_name)
        newest = models.half_withdrawn(model_name)
        if newest is None:
            if len(pushed) < 2:
                raise PushError(
                    f"A rollback needs an earlier version to go back to. {models_dir}/{model_name} holds "
                    f"{f'version {pushed[0]} alone' if pushed else 'no version'}."
                )
            newest = pushed.pop()
        # The SavedModel last: as long as it is there, the same command finishes what was interrupted.
        for name in (LITERT, model_name):
            models.withdraw(name, newest)
    return newest, pushed[-1]


def _identify(export_dir: Path) -> tuple[str, str]:
    """Give the name under which a candidate is served, and the digest of its content."""
    name = read_spec(export_dir)["model_name"]
    return name, lineage.read_manifest(export_dir)["digest"]


def _digest(models: ModelFolder | ModelBucket, name: str, version: int) -> str | None:
    """Give the digest of the candidate that a pushed model was; `None` for one that we did not push."""
    origin = models.lineage(name, version)
    return origin["model"]["digest"] if origin else None


def _find_objection(validation_dir: Path) -> str | None:
    """Say what speaks against a push: the failed checks of a validator, or that there is no blessing of it."""
    path = validation_dir / "blessing.json"
    if not path.is_file():
        return f"there is no {path}"
    blessing = read_json(path)
    if blessing["blessed"]:
        return None
    return "; ".join(check["message"] for check in blessing["checks"] if not check["passed"]) or f"{path} says so"


def _digests(files: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {file["name"]: file["sha256"] for file in files.values()}


def _fill_model(staging: Path, export_dir: Path, origin: dict[str, Any]) -> None:
    shutil.copytree(export_dir, staging, ignore=shutil.ignore_patterns(lineage.MANIFEST), dirs_exist_ok=True)
    write_json(staging / LINEAGE, origin)


def _fill_litert(staging: Path, litert_dir: Path, spec: ModelSpec, files: Mapping[str, Mapping[str, Any]]) -> None:
    for file in files.values():
        shutil.copy2(litert_dir / file["name"], staging)
    described = {
        kind: LiteRTFile(name=file["name"], size_bytes=file["size_bytes"], sha256=file["sha256"])
        for kind, file in files.items()
    }
    write_litert_spec(staging, spec=spec, files=described)
