"""The models in memory and their versions: found on disk, loaded, served, replaced and let go.

A new version is loaded before the old one is unloaded, and a broken one never takes the old one down: its error stands
in its status. Everything here runs on the event loop; loading, warming up and unloading happen in threads.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus

from serving.local_server.errors import Code, StatusError, failed_precondition, invalid_argument, not_found
from serving.local_server.model_config import ModelConfig
from serving.local_server.servable import Servable

log = logging.getLogger(__name__)

START, LOADING, AVAILABLE, UNLOADING, END = (
    ModelVersionStatus.START,
    ModelVersionStatus.LOADING,
    ModelVersionStatus.AVAILABLE,
    ModelVersionStatus.UNLOADING,
    ModelVersionStatus.END,
)

Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(eq=False)
class Version:
    """One version of a model: its state, and what it was loaded from."""

    model_name: str
    number: int
    path: Path
    state: int = START
    error: StatusError | None = None
    servable: Servable | None = None
    fingerprint: Fingerprint = ()
    num_attempts: int = 0
    retry_at_s: float = 0.0
    num_in_flight: int = 0
    drained: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def lease(self) -> Iterator[Servable]:
        """Hold the model in memory while a request uses it."""
        servable = self.servable
        if servable is None:
            raise StatusError(Code.UNAVAILABLE, f"version {self.number} of model {self.model_name} is being unloaded")
        self.num_in_flight += 1
        try:
            yield servable
        finally:
            self.num_in_flight -= 1
            if self.num_in_flight == 0:
                self.drained.set()


@dataclass(eq=False)
class Model:
    """A configured model and every version of it that has been seen."""

    config: ModelConfig
    versions: dict[int, Version] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    complaint: str = ""

    def available(self) -> list[int]:
        return sorted(n for n, version in self.versions.items() if version.state == AVAILABLE)


@dataclass(frozen=True)
class ManagerOptions:
    """How versions are found and loaded.

    Attributes:
        poll_wait_s: between two looks at the folders; 0 looks once.
        max_num_load_retries: for a version that cannot be loaded and whose files do not change.
        load_retry_interval_s: between them. When its files change, a version is tried again at once.
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
    """

    def __init__(self, load: Callable[[str, Path], Servable], options: ManagerOptions) -> None:
        self._load = load
        self._options = options
        self._models: dict[str, Model] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._threads = ThreadPoolExecutor(options.num_load_threads, thread_name_prefix="load")
        self._background: set[asyncio.Task[None]] = set()
        self._configuring = asyncio.Lock()

    async def configure(self, configs: Sequence[ModelConfig]) -> None:
        """Serve these models and no others; return when each of their versions is available or has failed.

        Raises:
            StatusError: a label names a version that is not available, and the labels stay as they were; or a model
                has no version to serve. The other models are served all the same.
        """
        async with self._configuring:
            gone = [self._models.pop(name) for name in set(self._models) - {config.name for config in configs}]
            for model in gone:
                log.info("model %s: no longer configured", model.config.name)
                for version in model.versions.values():
                    self._unload(version)
            for config in configs:
                known = self._models.get(config.name)
                if known is None or known.config.base_path != config.base_path:
                    if known:
                        for version in known.versions.values():
                            self._unload(version)
                    self._models[config.name] = Model(config)
                else:
                    known.config = config
            await asyncio.gather(*(self._refresh(model) for model in list(self._models.values())))
            self._set_labels(configs)
            if unserved := [name for name, model in self._models.items() if not model.available()]:
                raise StatusError(Code.UNKNOWN, f"Some models did not become available: {{{', '.join(unserved)}}}")

    async def watch(self) -> None:
        """Look for new versions until cancelled."""
        while self._options.poll_wait_s > 0:
            await asyncio.sleep(self._options.poll_wait_s)
            for model in list(self._models.values()):
                if not model.lock.locked():
                    self._in_background(self._refresh(model))

    def get(self, spec: Any) -> Version:
        """Give the version that a `ModelSpec` asks for.

        Raises:
            StatusError: it is not there, in TensorFlow Serving's words.
        """
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        number = self.resolve(spec)
        model = self._models.get(spec.name)
        available = model.available() if model else []
        if number is None:
            if not available:
                raise not_found(f"Servable not found for request: Latest({spec.name})")
            number = available[-1]
        if model is None or number not in available:
            raise not_found(f"Servable not found for request: Specific({spec.name}, {number})")
        return model.versions[number]

    def resolve(self, spec: Any) -> int | None:
        """Give the version number that a `ModelSpec` names, by number or label, or `None` for the latest."""
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            number = self._labels.get(spec.name, {}).get(spec.version_label)
            if number is None:
                raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
            return number
        return spec.version.value if choice == "version" else None

    def status(self, spec: Any) -> list[Version]:
        """Give one version, or all that were seen of a model, the newest first.

        Raises:
            StatusError: there is none.
        """
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        number = self.resolve(spec)
        model = self._models.get(spec.name)
        versions = dict(sorted(model.versions.items(), reverse=True)) if model else {}
        if number is None:
            if not versions:
                raise not_found(f"Could not find any versions of model {spec.name}")
            return list(versions.values())
        if number not in versions:
            raise not_found(f"Could not find version {number} of model {spec.name}")
        return [versions[number]]

    def knows(self, name: str) -> bool:
        """Tell whether a model is configured."""
        return name in self._models

    def describe(self) -> str:
        """Name each model with its available versions, for people."""
        return ", ".join(
            f"{name}: {' '.join(map(str, model.available())) or 'no version'}" for name, model in self._models.items()
        )

    async def close(self) -> None:
        """Stop what runs in the background, and let go of every model."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _in_background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _set_labels(self, configs: Sequence[ModelConfig]) -> None:
        for config in configs:
            available = self._models[config.name].available()
            for label, number in config.labels.items():
                in_use = label in self._labels.get(config.name, {})
                allowed = self._options.force_labels_for_unavailable or (
                    self._options.allow_labels_for_unavailable and not in_use
                )
                if number not in available and not allowed and self._labels.get(config.name, {}).get(label) != number:
                    raise failed_precondition(
                        f"Request to assign label to version {number} of model {config.name}, which is not currently "
                        "available for inference"
                    )
        self._labels = {config.name: dict(config.labels) for config in configs}

    async def _refresh(self, model: Model) -> None:
        """Bring one model in line with its folder: load what is missing, then unload what is not wanted."""
        loop = asyncio.get_running_loop()
        async with model.lock:
            found = await loop.run_in_executor(None, _find_versions, model.config.base_path)
            self._complain(model, found)
            if found is None:
                return
            wanted = model.config.choose(found)
            await asyncio.gather(*(self._load_version(model, n, found[n]) for n in sorted(wanted)))
            if self._models.get(model.config.name) is not model:
                for version in model.versions.values():  # the configuration dropped it meanwhile
                    self._unload(version)
                return
            if not wanted or any(model.versions[n].state == AVAILABLE for n in wanted):
                for number, version in model.versions.items():
                    if number not in wanted:
                        self._unload(version)

    def _complain(self, model: Model, found: Mapping[int, Path] | None) -> None:
        """Say once what is wrong with a model's folder."""
        config = model.config
        if found is None:
            complaint = f"Could not find base path {config.base_path} for servable {config.name}"
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

    async def _load_version(self, model: Model, number: int, path: Path) -> None:
        version = model.versions.get(number)
        if version is not None and version.state in (LOADING, AVAILABLE, UNLOADING):
            return
        loop = asyncio.get_running_loop()
        fingerprint = await loop.run_in_executor(None, _fingerprint, path)
        failed = version is not None and version.error is not None
        if version is not None and failed and version.fingerprint == fingerprint:
            retries_left = version.num_attempts <= self._options.max_num_load_retries
            if not retries_left or time.monotonic() < version.retry_at_s:
                return
        attempts = version.num_attempts if version and version.fingerprint == fingerprint else 0
        version = Version(model.config.name, number, path, LOADING, fingerprint=fingerprint, num_attempts=attempts + 1)
        model.versions[number] = version
        start = time.monotonic()
        log.info("loading %s version %d from %s", version.model_name, number, path)
        try:
            version.servable = await loop.run_in_executor(self._threads, self._load, version.model_name, path)
        except StatusError as exc:
            version.state, version.error = END, exc
            version.retry_at_s = time.monotonic() + self._options.load_retry_interval_s
            log.error("%s version %d cannot be served: %s", version.model_name, number, exc)
            return
        version.state = AVAILABLE
        log.info("%s version %d is available after %.1f s", version.model_name, number, time.monotonic() - start)

    def _unload(self, version: Version) -> None:
        if version.state == AVAILABLE:
            version.state = UNLOADING
            self._in_background(self._finish_unloading(version))

    async def _finish_unloading(self, version: Version) -> None:
        while version.num_in_flight:
            version.drained.clear()
            await version.drained.wait()
        servable, version.servable = version.servable, None
        if servable is not None:
            await asyncio.get_running_loop().run_in_executor(self._threads, servable.close)
        version.state = END
        log.info("%s version %d is unloaded", version.model_name, version.number)


def _find_versions(base_path: Path) -> dict[int, Path] | None:
    """Find the folders with a number for a name; `None` where the base path cannot be read."""
    try:
        with os.scandir(base_path) as entries:
            return {int(e.name): Path(e.path) for e in entries if e.name.isascii() and e.name.isdigit() and e.is_dir()}
    except OSError:
        return None


def _fingerprint(path: Path) -> Fingerprint:
    """Tell one state of a version folder from another: names, sizes and times of its files."""
    found = []
    for file in sorted(path.rglob("*")):
        try:
            stat = file.stat()
        except OSError:
            continue
        found.append((str(file), stat.st_size, stat.st_mtime_ns))
    return tuple(found)
