"""Runs a declared pipeline on this machine, one step after another, in one process.

Reads a declaration and a configuration; writes artifacts below `<runs>/artifacts` and a folder for each run beside
them. A step whose code, options and inputs are those of an earlier artifact is not run again. A run that was killed is
started again with the same command: finished steps are cached, the one it was in starts again or goes on, as declared.
Where the runs are kept at a URL, steps work in a local folder, and what they make is uploaded.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts.manifest import Origin
from components.errors import ComponentError
from components.storage.files import read_json
from pipelines import fingerprint
from pipelines.artifact_store import Artifact, ArtifactStore
from pipelines.config import Config
from pipelines.declaration import Step, load
from pipelines.execution import describe_origin, execute, resolve_options
from pipelines.folders import Folders, open_state
from pipelines.runs import Run

if TYPE_CHECKING:
    from components.training.cluster import Cluster

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which of the steps run: `first` to `last`; `forced` ones even when they are cached."""

    first: str | None = None
    last: str | None = None
    forced: Sequence[str] = ()

    def check(self, steps: Sequence[Step]) -> None:
        """Raise `ValueError` for a step that the pipeline does not have, or an empty range."""
        names = [step.name for step in steps]
        for name in filter(None, (self.first, self.last, *self.forced)):
            if name not in names:
                raise ValueError(f"The pipeline has no step {name!r}. Its steps: {', '.join(names)}.")
        if self.first and self.last and names.index(self.first) > names.index(self.last):
            raise ValueError(f"--from must not come after --to. Received: --from {self.first} --to {self.last}")


def run(
    steps: Sequence[Step],
    config: Config,
    *,
    folders: Folders,
    selection: Selection | None = None,
    cluster: "Cluster | None" = None,
) -> tuple[Path, dict[str, Artifact]]:
    """Run the selected steps of a pipeline.

    Returns:
        The run's folder and the artifact of each step.

    Raises:
        ValueError: the selection does not fit the pipeline.
        ComponentError: a step, or the check of its sources, cannot go on, or `--from` finds no earlier output.
        OSError: a folder cannot be written.
    """
    selection = selection or Selection()
    selection.check(steps)
    selected = _select(steps, selection)
    sources = {s.name: load(s.source)(**resolve_options(s, config)) for s in selected if s.source}
    folders.prepare(name for step in selected for name in step.state.values())
    artifacts = _reuse(steps, selection, folders)
    run = Run(folders, config, sources=sources, reused=artifacts)
    try:
        for step in selected:
            started = time.monotonic()
            artifact, reason = _run_step(
                step,
                config,
                inputs={parameter: artifacts[name] for parameter, name in step.inputs.items()},
                source=sources.get(step.name),
                folders=folders,
                is_forced=step.name in selection.forced,
                cluster=cluster,
            )
            artifacts[step.name] = artifact
            run.add(step.name, artifact, reason=reason, seconds=round(time.monotonic() - started, 2))
        run.finish(artifacts)
    except BaseException as exc:
        run.fail(exc)
        raise
    return run.path, artifacts


def _run_step(
    step: Step,
    config: Config,
    *,
    inputs: Mapping[str, Artifact],
    source: Any,
    folders: Folders,
    is_forced: bool,
    cluster: "Cluster | None",
) -> tuple[Artifact, str]:
    """Return the output of a step, from the store or made now, and the reason."""
    missing = next((i for i in inputs.values() if i.is_missing and not step.accepts_missing), None)
    if missing:
        reason = f"passed over: {missing.manifest['step']} could not be had"
        log.warning("%s: %s", step.name, reason)
        return missing, reason
    store = folders.store
    options = resolve_options(step, config)
    digests = {parameter: artifact.digest for parameter, artifact in inputs.items()}
    origin = describe_origin(step, options, source=source, inputs=digests)
    key = fingerprint.of_value(origin)
    is_reusable = not step.state and not is_forced
    if is_reusable and (cached := _find_cached(store, step, key)):
        log.info("%s: cached (same code, options and inputs as on %s)", step.name, cached.manifest["created"])
        return cached, "cached"
    with store.lock(step.name, key):
        if is_reusable and (cached := _find_cached(store, step, key)):
            log.info("%s: cached (another run has just made it)", step.name)
            return cached, "cached"
        reason = "forced" if is_forced else _find_reason(step, origin, store.newest(step.name))
        log.info("%s: started (%s)", step.name, reason)
        partial = store.start(step.name, key, keep=step.resumable and not is_forced)
        with open_state(step, {name: folders.state(name) for name in step.state.values()}) as state:
            output = execute(
                step,
                options,
                origin,
                inputs={parameter: store.fetch(artifact).path for parameter, artifact in inputs.items()},
                references={parameter: artifact.reference for parameter, artifact in inputs.items()},
                state=state,
                cluster=cluster,
                out_dir=partial,
            )
        return store.publish(partial, output), reason


def _find_cached(store: ArtifactStore, step: Step, key: str) -> Artifact | None:
    """Return the artifact of a key; what was missing when it was made may be available by now."""
    cached = store.find(step.name, key)
    return None if cached is None or cached.is_missing else cached


def _find_reason(step: Step, origin: Origin, last: Artifact | None) -> str:
    """Return in words what differs from the newest artifact of a step."""
    if last is None:
        return "never run before"
    if step.state:
        return "looks at what is there"
    if last.is_missing:
        return "could not be had before"
    before: dict[str, Any] = {**last.manifest, "inputs": {p: r["digest"] for p, r in last.manifest["inputs"].items()}}
    changed = [name for name, value in origin.items() if before.get(name) != value]
    if changed == ["options"]:
        now, then = origin["options"], before["options"]
        changed = [
            f"{name} {then.get(section, {}).get(name)!r} → {value!r}"
            for section in now
            for name, value in now[section].items()
            if then.get(section, {}).get(name) != value
        ]
    return f"changed: {', '.join(changed)}" if changed else "the earlier output is damaged"


def _select(steps: Sequence[Step], selection: Selection) -> Sequence[Step]:
    names = [step.name for step in steps]
    first = names.index(selection.first) if selection.first else 0
    last = names.index(selection.last) if selection.last else len(steps) - 1
    return steps[first : last + 1]


def _reuse(steps: Sequence[Step], selection: Selection, folders: Folders) -> dict[str, Artifact]:
    """Return the artifacts of the steps before `--from` as the newest run left them."""
    before = steps[: [s.name for s in steps].index(selection.first)] if selection.first else ()
    if not before:
        return {}
    latest = folders.fetch_latest()
    references = read_json(latest)["steps"] if latest.exists() else {}
    artifacts = {}
    for step in before:
        artifact = folders.store.get(references[step.name]) if step.name in references else None
        if artifact is None:
            raise ComponentError(
                f"--from {selection.first} takes what the newest run made before it, and there is no output of "
                f"{step.name!r} in {latest}. Run once without --from."
            )
        log.info("%s: reused from the newest run", step.name)
        artifacts[step.name] = artifact
    return artifacts
