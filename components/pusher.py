"""Publish blessed models where a server finds them, and take one back.

    <models>/<name>/<version>/                complete, blessed SavedModels, nothing else: versions only grow
    <models>/tflite/<version>/                its LiteRT files that passed their evaluation, and `model_spec.json`
    <models>/.withdrawn/{<name>,tflite}/<version>/   what a rollback took back
    <models>/.staging/                        being copied; the rename out of it publishes

The lineage of a pushed model travels with it, in `assets.extra/lineage.json`. A version number is never used twice in a
models folder, whatever the model's name: `tflite` holds files of all of them.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components import lineage
from components.errors import PushError
from components.files import exclusive, read_json, write_json
from export.spec import read_spec, write_litert_spec

log = logging.getLogger(__name__)

LINEAGE = Path("assets.extra") / "lineage.json"
LITERT = "tflite"
_WITHDRAWN = ".withdrawn"
_NEEDED = ("saved_model.pb", "variables/variables.index")
_LOCK = ".lock"


@dataclass(frozen=True)
class PusherOptions:
    """What may be pushed.

    Attributes:
        push_withdrawn: push a model again that a rollback took back.
    """

    push_withdrawn: bool = False


def versions(models_dir: Path, model_name: str) -> list[int]:
    """Give the pushed versions of a model, the oldest first."""
    return sorted(int(p.name) for p in (models_dir / model_name).glob("*") if p.name.isdecimal())


def find_baseline(*, export_dir: Path, models_dir: Path, out_dir: Path) -> dict[str, Any]:
    """Find the model a candidate must not be worse than: the newest pushed one that is not the candidate itself.

    Writes `baseline.json` with its `version` and `path`, null where there is none.
    """
    name, digest = _identify(export_dir)
    others = [v for v in versions(models_dir, name) if _digest(models_dir / name / str(v)) != digest]
    version = others[-1] if others else None
    baseline = {"version": version, "path": str((models_dir / name / str(version)).absolute()) if others else None}
    write_json(out_dir / "baseline.json", baseline)
    return {"version": version if others else "none"}


def push(
    *,
    export_dir: Path,
    evaluation_dir: Path,
    infra_validation_dir: Path,
    litert_dir: Path,
    litert_evaluation_dir: Path,
    parity_dir: Path,
    models_dir: Path,
    out_dir: Path,
    options: PusherOptions,
) -> dict[str, Any]:
    """Publish a model that both validators bless as the next version, once; writes `push.json`.

    With it go the LiteRT files that passed their evaluation. A model that is not blessed, or that a rollback took back,
    is not pushed: that is a result, with its reason. One that already is the newest version stays what it is.

    Raises:
        PushError: the model is blessed but not complete, or cannot be copied.
    """
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
        with exclusive(models_dir / _LOCK):
            pushed, withdrawn = versions(models_dir, name), versions(models_dir / _WITHDRAWN, name)
            taken_back = [v for v in withdrawn if _digest(models_dir / _WITHDRAWN / name / str(v)) == digest]
            newest = models_dir / name / str(pushed[-1]) if pushed else None
            if newest and _digest(newest) == digest and _litert_digests(newest) == _digests(files):
                version = pushed[-1]
            elif not taken_back or options.push_withdrawn:
                version = _next_version(models_dir)
                origin = {
                    "version": version,
                    "pushed": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                    "model": lineage.trace(export_dir),
                    **{validation: lineage.trace(folder) for validation, folder in validations.items()},
                    "litert": lineage.trace(litert_evaluation_dir),
                    "litert_files": _digests(files),
                }
                _publish_model(export_dir, models_dir, models_dir / name / str(version), origin)
            # Also when whoever pushed the model was killed here.
            if version is not None and files and not (litert := models_dir / LITERT / str(version)).exists():
                _publish_litert(litert_dir, models_dir, litert, read_spec(export_dir), files)
        if version is None:
            reason = f"withdrawn by a rollback as version {taken_back[-1]}; pusher.push_withdrawn=true pushes it again"
        else:
            reason = "blessed"
    if version is None:
        log.warning("pusher: NOT PUSHED: %s", reason)
    path = str(models_dir / name / str(version)) if version is not None else None
    litert_path = str(models_dir / LITERT / str(version)) if version is not None and files else None
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


def rollback(models_dir: Path, model_name: str) -> tuple[int, int]:
    """Withdraw the newest version, so that servers go back to the one before it.

    Returns:
        The version withdrawn and the version that is now the newest.

    Raises:
        PushError: there is no earlier version to go back to.
    """
    with exclusive(models_dir / _LOCK):
        pushed = versions(models_dir, model_name)
        if len(pushed) < 2:
            raise PushError(
                f"A rollback needs an earlier version to go back to. {models_dir / model_name} holds "
                f"{f'version {pushed[0]} alone' if pushed else 'no version'}."
            )
        newest, previous = pushed[-1], pushed[-2]
        # The SavedModel last: as long as it is there, the same command finishes what was interrupted.
        for folder in (LITERT, model_name):
            if (models_dir / folder / str(newest)).exists():
                place = models_dir / _WITHDRAWN / folder
                place.mkdir(parents=True, exist_ok=True)
                (models_dir / folder / str(newest)).rename(place / str(newest))
    return newest, previous


def _identify(export_dir: Path) -> tuple[str, str]:
    """Give the name under which a candidate is served, and the digest of its content."""
    name = read_spec(export_dir)["model_name"]
    return name, lineage.read_manifest(export_dir)["digest"]


def _digest(pushed_dir: Path) -> str | None:
    """Give the digest of the candidate that a pushed model was; `None` for one that we did not push."""
    path = pushed_dir / LINEAGE
    return read_json(path)["model"]["digest"] if path.is_file() else None


def _find_objection(validation_dir: Path) -> str | None:
    """Say what speaks against a push: the failed checks of a validator, or that there is no blessing of it."""
    path = validation_dir / "blessing.json"
    if not path.is_file():
        return f"there is no {path}"
    blessing = read_json(path)
    if blessing["blessed"]:
        return None
    return "; ".join(check["message"] for check in blessing["checks"] if not check["passed"]) or f"{path} says so"


def _litert_digests(pushed_dir: Path) -> dict[str, str]:
    return read_json(pushed_dir / LINEAGE).get("litert_files", {})


def _digests(files: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {file["name"]: file["sha256"] for file in files.values()}


def _next_version(models_dir: Path) -> int:
    used = [path.name for root in (models_dir, models_dir / _WITHDRAWN) for path in root.glob("*/*")]
    return 1 + max((int(name) for name in used if name.isdecimal()), default=0)


def _publish_model(export_dir: Path, models_dir: Path, target: Path, origin: dict[str, Any]) -> None:
    with _staged(models_dir, target) as staging:
        shutil.copytree(export_dir, staging, ignore=shutil.ignore_patterns(lineage.MANIFEST), dirs_exist_ok=True)
        write_json(staging / LINEAGE, origin)


def _publish_litert(
    litert_dir: Path, models_dir: Path, target: Path, spec: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]
) -> None:
    with _staged(models_dir, target) as staging:
        for file in files.values():
            shutil.copy2(litert_dir / file["name"], staging)
        described = {
            kind: {name: file[name] for name in ("name", "size_bytes", "sha256")} for kind, file in files.items()
        }
        write_litert_spec(staging, spec=spec, files=described)


@contextmanager
def _staged(models_dir: Path, target: Path) -> Iterator[Path]:
    """Give a folder to fill that is `target` after the block: whole or not at all."""
    root = models_dir / ".staging"
    # The lock is ours: whatever lies here was left by a process that was killed.
    shutil.rmtree(root, ignore_errors=True)
    staging = root / f"{target.parent.name}-{target.name}"
    try:
        staging.mkdir(parents=True)
        yield staging
        for path in staging.rglob("*"):
            _flush_to_disk(path)
        target.parent.mkdir(exist_ok=True)
        staging.rename(target)
        _flush_to_disk(target.parent)
    except OSError as exc:
        # shutil.Error holds source, target and reason of every file that could not be copied.
        is_many = isinstance(exc, shutil.Error)
        place, reason = exc.args[0][0][1:] if is_many else (exc.filename or target, exc.strerror)
        raise PushError(
            f"A model is pushed whole or not at all, and {place} cannot be written: {reason}. "
            f"Free some space in {models_dir}; the same command goes on from here."
        ) from exc
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
