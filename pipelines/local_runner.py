"""Runs a declared pipeline on this machine, one step after another, in one process; some beside those that follow.

Reads a declaration and a configuration; writes artifacts below `<runs>/artifacts` and a folder for each run beside
them. A step whose code, options and inputs are those of an earlier artifact is not run again. A run that was killed is
started again with the same command: finished steps are cached, the one it was in starts again or goes on, as declared.
An output that stands on a fallback is never reused unasked, and one that is damaged is made again before it is read.
Where the runs are kept at a URL, steps work in a local folder, and what they make is uploaded.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from components.artifacts.manifest import Origin, read_fallback
from components.errors import ComponentError, StorageError
from pipelines import fingerprint
from pipelines.artifact_store import Artifact, ArtifactStore
from pipelines.config import Config
from pipelines.declaration import Step, load
from pipelines.earlier_run import reuse
from pipelines.execution import (
    describe_origin,
    digest_code,
    execute,
    resolve_inputs,
    resolve_options,
    warn_of_fallback,
)
from pipelines.folders import Folders, open_state
from pipelines.heartbeat import heartbeat
from pipelines.runs import SHOWN, Run

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
    for step in selected:
        digest_code(step)  # kept for later: Python's parser fails at times where several threads use it
    sources = {s.name: load(s.source)(**resolve_options(s, config)) for s in selected if s.source}
    folders.prepare(name for step in selected for name in step.state.values())
    with folders.in_use():
        reused = reuse(steps, selection.first, config, folders)
        record = Run(folders, config, sources=sources, reused=reused)
        try:
            runner = _Runner(steps, config, folders, selection.forced, sources, cluster, reused, record)
            with runner.background():
                for step in _put_needed_first(selected, config):
                    runner.start_step(step)
            runner.mend(SHOWN.keys() & runner.artifacts.keys())
            record.finish(runner.artifacts, has_report=steps[-1].name in runner.artifacts)
        except BaseException as exc:
            record.fail(exc)
            raise
    return record.path, runner.artifacts


@dataclass
class _Runner:
    """A run that is going on, and the output of each step so far."""

    steps: Sequence[Step]
    config: Config
    folders: Folders
    forced: Sequence[str]
    sources: Mapping[str, Any]
    cluster: "Cluster | None"
    reused: Mapping[str, Artifact]
    record: Run
    artifacts: dict[str, Artifact] = field(init=False)
    remade: set[str] = field(default_factory=set)
    lock: Any = field(default_factory=RLock)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "background"))
    running: dict[str, Future[Artifact]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.artifacts = dict(self.reused)

    @contextmanager
    def background(self) -> Iterator[None]:
        """Wait at the end for the steps that are running in the background, also where another one fails."""
        try:
            yield
            for future in self.running.values():
                future.result()
        finally:
            if names := [name for name, step in self.running.items() if not step.done()]:
                log.info("waiting for what is running in the background: %s", ", ".join(names))
            self.pool.shutdown(cancel_futures=True)

    def start_step(self, step: Step) -> None:
        """Run a step, or let it run in the background, once what it needs is there."""
        inputs = [self.running[name] for name in resolve_inputs(step, self.config).values() if name in self.running]
        if step.is_background:
            self.running[step.name] = self.pool.submit(self._run_after, inputs, step)
        else:
            self._run_after(self.running.values() if step.is_timed else inputs, step)

    def _run_after(self, running: Iterable["Future[Artifact]"], step: Step) -> Artifact:
        for future in running:
            future.result()
        return self.run_step(step)

    def run_step(self, step: Step) -> Artifact:
        """Take the output of a step from the store or make it, and record it."""
        started = time.monotonic()
        artifact, reason = self._find_or_make(step)
        self.artifacts[step.name] = artifact
        warn_of_fallback(step, artifact)
        with self.lock:
            self.record.add(step.name, artifact, reason=reason, seconds=round(time.monotonic() - started, 2))
        return artifact

    def mend(self, names: Iterable[str]) -> bool:
        """Make the outputs of these steps again that are damaged, and return whether there were any.

        Raises:
            ComponentError: the step is not one of this run.
            StorageError: the new output is damaged, too.
        """
        with self.lock:
            return self._mend(names)

    def _mend(self, names: Iterable[str]) -> bool:
        used = {artifact.path: artifact for artifact in map(self.artifacts.__getitem__, names)}
        damaged = [artifact for artifact in used.values() if not self.folders.store.verify(artifact)]
        for artifact in damaged:
            name = artifact.manifest["step"]
            if name in self.reused:
                raise ComponentError(
                    f"--from takes the output of {name!r} as it is, and it is damaged: {artifact.path}. "
                    "Run without --from, which makes it again."
                )
            if name in self.remade:
                raise StorageError(
                    f"The output of {name!r} is damaged just after it was made: {artifact.path}. Check the disk, or "
                    "choose another folder: --runs-dir."
                )
            self.remade.add(name)
            again = self.run_step(next(step for step in self.steps if step.name == name))
            # Steps that were passed over share the output of the one that could not be had.
            self.artifacts.update({n: again for n, a in self.artifacts.items() if a.path == artifact.path})
        return bool(damaged)

    def _find_or_make(self, step: Step) -> tuple[Artifact, str]:
        """Return the output of a step and the reason why it was made, or was not."""
        names = resolve_inputs(step, self.config)
        inputs = {parameter: self.artifacts[name] for parameter, name in names.items()}
        missing = next((i for i in inputs.values() if i.is_missing and not step.accepts_missing), None)
        if missing:
            reason = f"passed over: {missing.manifest['step']} could not be had"
            log.warning("%s: %s", step.name, reason)
            return missing, reason
        store = self.folders.store
        options = resolve_options(step, self.config)
        digests = {parameter: artifact.digest for parameter, artifact in inputs.items()}
        origin = describe_origin(step, options, source=self.sources.get(step.name), inputs=digests)
        key = fingerprint.of_value(origin)
        is_forced = step.name in self.forced
        is_reusable = not step.state and not is_forced
        if is_reusable and (cached := _find_cached(store, step, key)):
            log.info("%s: cached (same code, options and inputs as on %s)", step.name, cached.manifest["created"])
            return cached, "cached"
        if self.mend(names.values()):
            return self._find_or_make(step)
        with store.lock(step.name, key):
            if is_reusable and (cached := _find_cached(store, step, key)):
                log.info("%s: cached (another run has just made it)", step.name)
                return cached, "cached"
            before = store.find(step.name, key) if is_reusable else None
            if before and before.fallback and step.fallback_probe and load(step.fallback_probe)(**options):
                log.info("%s: cached (tried again, and only the fallback can be had)", step.name)
                return before, "cached: the fallback still stands"
            reason = "forced" if is_forced else _find_reason(step, origin, before or store.newest(step.name))
            log.info("%s: started (%s)", step.name, reason)
            partial = store.start(step.name, key, keep=step.resumable and not is_forced)
            varying = step.incremental
            earlier = store.find_similar(step.name, origin, varying=varying) if varying and not is_forced else None
            states = {name: self.folders.state(name) for name in step.state.values()}
            with open_state(step, states) as state, heartbeat(step.name):
                output = execute(
                    step,
                    options,
                    origin,
                    inputs={parameter: store.fetch(artifact).path for parameter, artifact in inputs.items()},
                    references={parameter: artifact.reference for parameter, artifact in inputs.items()},
                    state=state,
                    cluster=self.cluster,
                    out_dir=partial,
                    earlier_dir=earlier.path if earlier else None,
                )
            if before and before.fallback and read_fallback(output) and store.verify(before):
                # The same fallback, though the failure may be worded in another way: what follows stays cached.
                store.discard(partial)
                return before, reason
            return store.publish(partial, output), reason


def _find_cached(store: ArtifactStore, step: Step, key: str) -> Artifact | None:
    """Return the artifact of a key; what was missing, or a fallback, when it was made may be available by now."""
    cached = store.find(step.name, key)
    return None if cached is None or cached.is_missing or cached.fallback else cached


def _find_reason(step: Step, origin: Origin, last: Artifact | None) -> str:
    """Return in words what differs from the newest artifact of a step."""
    if last is None:
        return "never run before"
    if step.state:
        return "looks at what is there"
    if last.is_missing:
        return "could not be had before"
    if last.fallback and last.manifest["key"] == fingerprint.of_value(origin):
        return "stood on a fallback before"
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


def _put_needed_first(steps: Sequence[Step], config: Config) -> Sequence[Step]:
    """Return steps with what changes a state kept between runs, and all that it needs, before what only describes it.

    So a model is pushed before, for instance, its training labels are doubted for the report.
    """
    needed: set[str] = set()
    for step in reversed(steps):
        if step.state or step.name in needed:
            needed |= {step.name, *resolve_inputs(step, config).values()}
    return sorted(steps, key=lambda step: step.name not in needed)
