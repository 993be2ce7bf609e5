"""What `--from` takes of the newest run: the outputs of the steps before it, as they are, and what changed since."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.artifacts.manifest import Reference
from components.errors import ComponentError
from components.storage.files import read_json
from pipelines.artifact_store import Artifact
from pipelines.config import Config
from pipelines.declaration import Step, load
from pipelines.execution import describe_origin, resolve_inputs, resolve_options, warn_of_fallback
from pipelines.folders import Folders

log = logging.getLogger(__name__)


def reuse(steps: Sequence[Step], first: str | None, config: Config, folders: Folders) -> dict[str, Artifact]:
    """Return the artifacts of the steps before `--from` as the newest run left them.

    Raises:
        ComponentError: one is not there, is damaged, or was made with other options.
    """
    before = steps[: [s.name for s in steps].index(first)] if first else ()
    if not before:
        return {}
    newest = folders.fetch_newest()
    references = _read_references(newest)
    artifacts = {}
    for step in before:
        artifact = folders.store.get(references[step.name]) if step.name in references else None
        if artifact is None:
            raise ComponentError(
                f"--from {first} takes what the newest run made before it, and there is no output of "
                f"{step.name!r} in {newest}. Run once without --from."
            )
        artifacts[step.name] = artifact
    differences = [d for step in before for d in _compare_options(step, config, artifacts[step.name])]
    if differences:
        then = ", ".join(f"{name}={value}" for name, value, _ in differences)
        now = ", ".join(f"{name}={value}" for name, _, value in differences)
        raise ComponentError(
            f"--from {first} reuses what the newest run made with {then}. Received: {now}. "
            "Run without --from, or with the options of that run."
        )
    for step in before:
        changed = _find_changes(step, config, artifacts)
        log.info("%s: reused from the newest run", step.name)
        if changed:
            log.warning("%s: reused, though changed since: %s. Run without --from to follow.", step.name, changed)
        warn_of_fallback(step, artifacts[step.name])
    return artifacts


def _read_references(record: Path) -> dict[str, Reference]:
    """Return the outputs that the record of a run names; none where it is not there or damaged."""
    try:
        return read_json(record)["steps"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _compare_options(step: Step, config: Config, artifact: Artifact) -> Iterator[tuple[str, Any, Any]]:
    """Yield each option that an artifact was made with another value of: `section.name`, the value then and now."""
    if artifact.manifest["step"] != step.name:  # passed over
        return
    now = describe_origin(step, resolve_options(step, config), source=None, inputs={})["options"]
    for parameter, section in step.options.items():
        then = artifact.manifest["options"].get(parameter, {})
        for name in then.keys() & now[parameter].keys():
            if then[name] != now[parameter][name]:
                yield f"{section}.{name}", then[name], now[parameter][name]


def _find_changes(step: Step, config: Config, artifacts: Mapping[str, Artifact]) -> str:
    """Return what a reused output would now be made from otherwise, in words."""
    manifest = artifacts[step.name].manifest
    if manifest["step"] != step.name:
        return ""
    options = resolve_options(step, config)
    try:
        source = load(step.source)(**options) if step.source else None
    except ComponentError as exc:
        log.warning("%s: reused, and its source is not there now: %s", step.name, exc)
        source = manifest["source"]
    inputs = {parameter: artifacts[name].digest for parameter, name in resolve_inputs(step, config).items()}
    now: dict[str, Any] = {**describe_origin(step, options, source=source, inputs=inputs)}
    then: dict[str, Any] = {**manifest, "inputs": {p: r["digest"] for p, r in manifest["inputs"].items()}}
    return ", ".join(name for name in ("code", "source", "inputs", "versions") if now[name] != then.get(name))
