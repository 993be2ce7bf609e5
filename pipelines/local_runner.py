"""Runs a declared pipeline on this machine, one step after another, in one process.

Reads a declaration and a configuration; writes artifacts below `<runs>/artifacts` and a folder for each run beside
them. A step whose code, options and inputs are those of an earlier artifact is not run again. A run that was killed is
started again with the same command: finished steps are cached, the one it was in begins anew or goes on, as declared.
Where the runs are kept at a URL, steps work in a local folder, and what they make is uploaded.
"""

import logging
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts.manifest import Origin
from components.errors import ComponentError, StorageError
from components.storage.files import file_lock, read_json, write_json
from pipelines import fingerprint
from pipelines.artifacts import Artifact, ArtifactStore
from pipelines.config import Config
from pipelines.declaration import Step, load
from pipelines.folders import Folders
from pipelines.step import describe_origin, execute, resolve_options

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
        ComponentError: a step, or the check of its sources, cannot go on, or `--from` finds nothing to go on from.
        OSError: a folder cannot be written.
    """
    selection = selection or Selection()
    selection.check(steps)
    selected = _selected(steps, selection)
    sources = {s.name: load(s.source)(**resolve_options(s, config)) for s in selected if s.source}
    folders.prepare(name for step in selected for name in step.state.values())
    store = folders.store
    artifacts = _reused(steps, selection, folders, store)
    run_dir = _start_run(folders.runs)
    record: dict[str, Any] = {
        "run": run_dir.name,
        "status": "running",
        "process": os.getpid(),
        "host": socket.gethostname(),
        "started": _now(),
        "config": asdict(config),
        "seeds": {f"{n}.seed": o["seed"] for n, o in asdict(config).items() if "seed" in o},
        "versions": fingerprint.versions(),
        "sources": sources,
        "steps": {name: {**a.reference, "reused": True} for name, a in artifacts.items()},
    }
    _keep(record, run_dir, folders)
    started = time.monotonic()
    try:
        for step in selected:
            step_started = time.monotonic()
            inputs = {parameter: artifacts[name] for parameter, name in step.inputs.items()}
            missing = next((i for i in inputs.values() if i.is_missing and not step.accepts_missing), None)
            if missing:
                artifact, reason = missing, f"passed over: {missing.manifest['step']} could not be had"
                log.warning("%s: %s", step.name, reason)
            else:
                artifact, reason = _run_step(
                    step,
                    config,
                    inputs=inputs,
                    source=sources.get(step.name),
                    folders=folders,
                    store=store,
                    forced=step.name in selection.forced,
                    cluster=cluster,
                )
            artifacts[step.name] = artifact
            seconds = round(time.monotonic() - step_started, 2)
            code = artifact.manifest["code"]
            record["steps"][step.name] = {**artifact.reference, "code": code, "seconds": seconds, "reason": reason}
            _keep(record, run_dir, folders)
        _complete_run(run_dir, artifacts, folders)
        _keep({**record, "status": "finished", "seconds": round(time.monotonic() - started, 2)}, run_dir, folders)
    except BaseException as exc:
        seconds = round(time.monotonic() - started, 2)
        failed = {**record, "status": "failed", "error": f"{type(exc).__name__}: {exc}", "seconds": seconds}
        # What went wrong is what counts, also when its record cannot be uploaded.
        with suppress(StorageError):
            _keep(failed, run_dir, folders)
        raise
    return run_dir, artifacts


def _run_step(
    step: Step,
    config: Config,
    *,
    inputs: Mapping[str, Artifact],
    source: Any,
    folders: Folders,
    store: ArtifactStore,
    forced: bool,
    cluster: "Cluster | None",
) -> tuple[Artifact, str]:
    options = resolve_options(step, config)
    digests = {parameter: artifact.digest for parameter, artifact in inputs.items()}
    made_from = describe_origin(step, options, source=source, inputs=digests)
    key = fingerprint.of_value(made_from)
    reusable = not step.state and not forced
    # What was missing may be there by now.
    if reusable and (cached := store.find(step.name, key)) and not cached.is_missing:
        log.info("%s: cached (same code, options and inputs as on %s)", step.name, cached.manifest["created"])
        return cached, "cached"
    with store.lock(step.name, key):
        if reusable and (cached := store.find(step.name, key)) and not cached.is_missing:
            log.info("%s: cached (another run has just made it)", step.name)
            return cached, "cached"
        reason = "forced" if forced else _reason(step, made_from, store.newest(step.name))
        log.info("%s: started (%s)", step.name, reason)
        partial = store.start(step.name, key, keep=step.resumable and not forced)
        with ExitStack() as kept:
            for name in step.state.values():
                kept.enter_context(folders.mirrored(name))
            manifest = execute(
                step,
                options,
                made_from,
                inputs={parameter: store.fetch(artifact).path for parameter, artifact in inputs.items()},
                references={parameter: artifact.reference for parameter, artifact in inputs.items()},
                state={parameter: folders.state(name) for parameter, name in step.state.items()},
                cluster=cluster,
                out_dir=partial,
            )
        artifact = store.publish(partial, manifest)
    return artifact, reason


def _reason(step: Step, made_from: Origin, last: Artifact | None) -> str:
    """Say in words what differs from the newest artifact of a step."""
    if last is None:
        return "never run before"
    if step.state:
        return "looks at what is there"
    if last.is_missing:
        return "could not be had before"
    before: dict[str, Any] = {**last.manifest, "inputs": {p: r["digest"] for p, r in last.manifest["inputs"].items()}}
    changed = [name for name, value in made_from.items() if before.get(name) != value]
    if changed == ["options"]:
        now, then = made_from["options"], before["options"]
        changed = [
            f"{name} {then.get(section, {}).get(name)!r} → {value!r}"
            for section in now
            for name, value in now[section].items()
            if then.get(section, {}).get(name) != value
        ]
    return f"changed: {', '.join(changed)}" if changed else "the earlier output is damaged"


def _selected(steps: Sequence[Step], selection: Selection) -> Sequence[Step]:
    names = [step.name for step in steps]
    first = names.index(selection.first) if selection.first else 0
    last = names.index(selection.last) if selection.last else len(steps) - 1
    return steps[first : last + 1]


def _reused(steps: Sequence[Step], selection: Selection, folders: Folders, store: ArtifactStore) -> dict[str, Artifact]:
    """Take the artifacts of the steps before `--from` as the newest run left them."""
    before = steps[: [s.name for s in steps].index(selection.first)] if selection.first else ()
    if not before:
        return {}
    latest = folders.fetch_latest()
    references = read_json(latest)["steps"] if latest.exists() else {}
    artifacts = {}
    for step in before:
        artifact = store.get(references[step.name]) if step.name in references else None
        if artifact is None:
            raise ComponentError(
                f"--from {selection.first} takes what the newest run made before it, and there is no output of "
                f"{step.name!r} in {latest}. Run once without --from."
            )
        log.info("%s: reused from the newest run", step.name)
        artifacts[step.name] = artifact
    return artifacts


def _start_run(runs: Path) -> Path:
    run_dir = runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    run_dir.mkdir(parents=True)
    return run_dir


def _keep(record: Mapping[str, Any], run_dir: Path, folders: Folders) -> None:
    write_json(run_dir / "run.json", record)
    folders.share(run_dir / "run.json")


def _complete_run(run_dir: Path, artifacts: Mapping[str, Artifact], folders: Folders) -> None:
    """Put what a person looks for into the run's folder and let the link `latest` point to it."""
    links = run_dir / "steps"
    links.mkdir()
    for name, artifact in artifacts.items():
        (links / name).symlink_to(os.path.relpath(artifact.path, links))
    shown = {
        "evaluator": ["metrics.json"],
        "report": ["report.html", "plots"],
        "comparison": ["comparison.html", "comparison.json", "plots"],
    }
    for step in shown.keys() & artifacts.keys():
        artifact = folders.store.fetch(artifacts[step])
        for source in (artifact.path / name for name in shown[step]):
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, run_dir / source.name)
    folders.share(*(path for path in run_dir.rglob("*") if path.is_file()))
    with file_lock(folders.runs / f".{folders.latest}.lock"):
        temporary = folders.runs / f".{folders.latest}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(run_dir.name)
        temporary.replace(folders.runs / folders.latest)
    folders.share_latest(run_dir.name)


def runs(folder: Path) -> Iterator[dict[str, Any]]:
    """Give the record of every run below a folder, the oldest first; one whose process is gone is `killed`."""
    for path in sorted(folder.glob("*-*/run.json")):
        record = read_json(path)
        is_ours = record.get("host", socket.gethostname()) == socket.gethostname()
        if record["status"] == "running" and is_ours and not _is_alive(record["process"]):
            record["status"] = "killed"
        yield record


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
