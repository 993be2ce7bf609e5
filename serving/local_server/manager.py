"""The models in memory and their versions: found on disk, loaded, served, replaced and unloaded.

A new version is loaded before the old one is unloaded, and a broken one never takes the old one down: its error stands
in its status. Everything here runs on the event loop; loading, warming up and unloading happen in threads.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Container, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from serving.local_server.errors import Code, StatusError, failed_precondition, invalid_argument, not_found
from serving.local_server.model_config import ModelConfig
from serving.local_server.servable import Servable
from serving.local_server.versions import AVAILABLE, END, LOADING, UNLOADING, Version, find_versions, fingerprint

log = logging.getLogger(__name__)

_MAX_REMOVED = 100


@dataclass(eq=False)
class Model:
    """A configured model and every version of it that has been seen."""

    config: ModelConfig
    versions: dict[Path, Version] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    complaint: str = ""

    def matches(self, config: ModelConfig) -> bool:
        """Return whether a configuration wants the versions that are wanted already."""
        return replace(self.config, labels={}, logging=None) == replace(config, labels={}, logging=None)

    def available(self) -> dict[int, Version]:
        """Return the versions that serve requests, by number."""
        return {v.number: v for v in self.versions.values() if v.state == AVAILABLE}


@dataclass(frozen=True)
class ManagerOptions:
    """How versions are found and loaded.

    Attributes:
        poll_wait_s: between two looks at the folders; 0 looks once.
        max_num_load_retries: for a version that cannot be loaded and whose files do not change.
        load_retry_interval_s: between them; below 0 they follow at once, 0 leaves them to the next look. When its files
            change, a version is tried again with the next look.
        num_load_threads: versions loaded at the same time.
        allow_labels_for_unavailable: a new label may name a version that is not available (yet).
        force_labels_for_unavailable: so may a label that is in use.
    """

    poll_wait_s: float = 1.0
    max_num_load_retries: int = 5
    load_retry_interval_s: float = 60.0
    num_load_threads: int = 2
    allow_labels_for_unavailable: bool = False
    force_labels_for_unavailable: bool = False


class ModelManager:
    """Keep the configured models served.

    Args:
        load: makes a servable of a model's name and version folder, warmed up; it runs in a thread.
        options: how versions are found.
        on_configured: called with each configuration that is taken.
    """

    def __init__(
        self,
        load: Callable[[str, Path], Servable],
        options: ManagerOptions,
        *,
        on_configured: Callable[[Sequence[ModelConfig]], None] = lambda configs: None,
    ) -> None:
        self._load = load
        self._options = options
        self._on_configured = on_configured
        self._models: dict[str, Model] = {}
        self._removed: dict[str, Model] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._threads = ThreadPoolExecutor(options.num_load_threads, thread_name_prefix="load")
        self._background: set[asyncio.Task[None]] = set()
        self._configuring = asyncio.Lock()

    async def configure(self, configs: Sequence[ModelConfig]) -> None:
        """Serve these models and no others; return when each of their versions is available or has failed.

        Raises:
            StatusError: a label names a version that is not available, and nothing changes; or a model that is new or
                configured in another way has no version to serve, and the others are served all the same.
        """
        # It goes on when the caller hangs up: nothing is left half done.
        await asyncio.shield(self._in_background(self._configure(configs)))

    async def watch(self) -> None:
        """Look for new versions until cancelled."""
        while self._options.poll_wait_s > 0:
            await asyncio.sleep(self._options.poll_wait_s)
            for model in list(self._models.values()):
                if not model.lock.locked():
                    self._in_background(self._refresh(model))

    def get(self, spec: Any) -> Version:
        """Return the version that a `ModelSpec` names.

        Raises:
            StatusError: it is not there, in TensorFlow Serving's words.
        """
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        number = self.resolve(spec)
        model = self._models.get(spec.name)
        available = model.available() if model else {}
        if number is None:
            if not available:
                raise not_found(f"Servable not found for request: Latest({spec.name})")
            number = max(available)
        if number not in available:
            raise not_found(f"Servable not found for request: Specific({spec.name}, {number})")
        return available[number]

    def resolve(self, spec: Any) -> int | None:
        """Return the version number that a `ModelSpec` names, by number or label, or `None` for the latest."""
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            number = self._labels.get(spec.name, {}).get(spec.version_label)
            if number is None:
                raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
            return number
        return spec.version.value if choice == "version" else None

    def status(self, spec: Any) -> list[Version]:
        """Return one version, or all that were seen of a model, the newest first.

        As in TensorFlow Serving, only a number picks one and a label does not, and the versions of a model that is no
        longer configured stay in sight, with the state END in the end.

        Raises:
            StatusError: there is none.
        """
        number = spec.version.value if spec.HasField("version") else None
        model, removed = self._models.get(spec.name), self._removed.get(spec.name)
        versions = list(model.versions.values()) if model else []
        if removed:
            present = {version.number for version in versions}
            versions += [version for version in removed.versions.values() if version.number not in present]
        versions = [version for version in versions if number in (None, version.number)]
        if not versions:
            which = "any versions" if number is None else f"version {number}"
            raise not_found(f"Could not find {which} of model {spec.name}")
        return sorted(versions, key=lambda version: version.number, reverse=True)

    def knows(self, name: str) -> bool:
        """Return whether a model is configured."""
        return name in self._models

    def describe(self) -> str:
        """Name each model with its available versions, for people."""
        return ", ".join(
            f"{name}: {' '.join(map(str, sorted(model.available()))) or 'no version'}"
            for name, model in self._models.items()
        )

    async def close(self) -> None:
        """Stop what runs in the background, loading included."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _configure(self, configs: Sequence[ModelConfig]) -> None:
        async with self._configuring:
            self._set_labels(configs)
            for name in set(self._models) - {config.name for config in configs}:
                self._remove(name)
            changed = []
            for config in configs:
                known = self._models.get(config.name)
                model = known or self._models.setdefault(config.name, Model(config))
                if known is None or not model.matches(config):
                    changed.append(model)
                model.config = config
            self._on_configured(configs)
            await asyncio.gather(*(self._refresh(model) for model in list(self._models.values())))
            if unserved := [_explain(model) for model in changed if not model.available()]:
                raise StatusError(
                    Code.UNKNOWN, f"{len(unserved)} model(s) did not become available: {{{', '.join(unserved)}}}"
                )

    def _remove(self, name: str) -> None:
        log.info("model %s: no longer configured", name)
        model = self._models.pop(name)
        self._unload_all(model)
        self._removed.pop(name, None)
        self._removed[name] = model
        while len(self._removed) > _MAX_REMOVED:  # the one removed first
            del self._removed[next(iter(self._removed))]

    def _set_labels(self, configs: Sequence[ModelConfig]) -> None:
        for config in configs:
            known = self._models.get(config.name)
            available = known.available() if known else {}
            for label, number in config.labels.items():
                present = self._labels.get(config.name, {}).get(label)
                allowed = self._options.force_labels_for_unavailable or (
                    self._options.allow_labels_for_unavailable and present in (None, number)
                )
                if number not in available and not allowed:
                    raise failed_precondition(
                        f"Request to assign label to version {number} of model {config.name}, which is not currently "
                        "available for inference"
                    )
        self._labels = {config.name: dict(config.labels) for config in configs}

    async def _refresh(self, model: Model) -> None:
        """Bring one model in line with its folder: load what is missing, then unload what is not wanted."""
        loop = asyncio.get_running_loop()
        async with model.lock:
            config = model.config
            found = await loop.run_in_executor(None, find_versions, config.base_path)
            self._complain(model, found)
            if found is None:
                return
            wanted = {found[number] for number in config.choose(found)}
            await asyncio.gather(*(self._load_version(model, path) for path in wanted))
            if self._models.get(config.name) is not model:  # the configuration dropped it meanwhile
                self._unload_all(model)
            elif not wanted or any(model.versions[path].state == AVAILABLE for path in wanted):
                self._unload_all(model, but=wanted)
            # Versions of a former base path are of no interest once they have ended.
            for path, version in list(model.versions.items()):
                if version.state == END and path.parent != config.base_path:
                    del model.versions[path]

    def _complain(self, model: Model, found: Mapping[int, Path] | None) -> None:
        """Log once what is wrong with a model's folder."""
        config = model.config
        if found is None:
            verb = "read" if os.access(config.base_path, os.F_OK) else "find"
            complaint = f"Could not {verb} base path {config.base_path} for servable {config.name}"
        elif not found:
            complaint = (
                f"No versions of servable {config.name} found under base path {config.base_path}. A version is a "
                "folder with a number for a name, such as '/1/'"
            )
        elif missing := sorted(set(config.specific) - set(found)):
            complaint = f"Versions {missing} of servable {config.name} are configured and not in {config.base_path}"
        else:
            complaint = ""
        if complaint and complaint != model.complaint:
            log.warning("%s; still looking", complaint)
        model.complaint = complaint

    async def _load_version(self, model: Model, path: Path) -> None:
        while await self._fails_to_load(model, path):
            if self._options.load_retry_interval_s >= 0 or self._models.get(model.config.name) is not model:
                return

    async def _fails_to_load(self, model: Model, path: Path) -> bool:
        """Load a version, unless it is loaded or to be left alone; return whether it was tried in vain."""
        known = model.versions.get(path)
        if known is not None and known.state in (LOADING, AVAILABLE):
            return False
        loop = asyncio.get_running_loop()
        version = Version(model.config.name, int(path.name), path, LOADING)
        version.fingerprint = await loop.run_in_executor(None, fingerprint, path)
        if known is not None and known.error is not None and known.fingerprint == version.fingerprint:
            if known.num_attempts > self._options.max_num_load_retries or time.monotonic() < known.retry_at_s:
                return False
            version.num_attempts = known.num_attempts
        version.num_attempts += 1
        model.versions[path] = version
        start = time.monotonic()
        log.info("loading %s version %d from %s", version.model_name, version.number, path)
        try:
            version.servable = await loop.run_in_executor(self._threads, self._load, version.model_name, path)
        except StatusError as exc:
            self._fail(version, exc.code, exc.message)
        except Exception as exc:
            # Whatever a loader stumbles over, the other versions are served on.
            self._fail(version, Code.INTERNAL, f"{path} cannot be loaded: {type(exc).__name__}: {exc}")
            log.exception("the loader failed")
        else:
            version.state = AVAILABLE
            duration_s = time.monotonic() - start
            log.info("%s version %d is available after %.1f s", version.model_name, version.number, duration_s)
        return version.state == END

    def _fail(self, version: Version, code: Code, message: str) -> None:
        # A new error: the one caught refers to all that was loaded.
        version.state, version.error = END, StatusError(code, message)
        version.retry_at_s = time.monotonic() + self._options.load_retry_interval_s
        log.error("%s version %d cannot be served: %s", version.model_name, version.number, version.error)

    def _unload_all(self, model: Model, *, but: Container[Path] = ()) -> None:
        for version in model.versions.values():
            if version.state == AVAILABLE and version.path not in but:
                version.state = UNLOADING
                self._in_background(self._finish_unloading(version))

    async def _finish_unloading(self, version: Version) -> None:
        while version.num_in_flight:
            version.drained.clear()
            await version.drained.wait()
        servable, version.servable = version.servable, None
        try:
            if servable is not None:
                await asyncio.get_running_loop().run_in_executor(self._threads, servable.close)
        finally:
            version.state = END
        log.info("%s version %d is unloaded", version.model_name, version.number)


def _explain(model: Model) -> str:
    """Return why a model is not served, in TensorFlow Serving's words."""
    name = model.config.name
    failed = [version for version in model.versions.values() if version.error]
    if not failed:
        return f"{{{{name: {name}}} due to error: {model.complaint or 'no version of it is to be served'}}}"
    newest = max(failed, key=lambda version: version.number)
    return f"{{{{name: {name} version: {newest.number}}} due to error: {newest.error}}}"
