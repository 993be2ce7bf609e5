"""Where pushed models are kept, a local folder or a URL: a version is there whole or not at all.

    <models>/<name>/<version>/                complete, blessed SavedModels, nothing else: versions only grow
    <models>/tflite/<version>/                its LiteRT files that passed their evaluation, and `model_spec.json`
    <models>/.withdrawn/{<name>,tflite}/<version>/   what a rollback took back
    <models>/.staging/                        on its way to be a version
    <models>/.versions/<version>              at a URL: who claimed the number

In a folder a rename publishes, and one process at a time writes. At a URL there is neither: a version is there as long
as its marker is, `saved_model.pb` or `model_spec.json`. Files travel to `.staging` and are copied from there inside the
store, so that a version's folder is seen without its marker for seconds only. TensorFlow Serving cannot load such a
folder, serves the version before meanwhile, and tries again five times, a minute apart (its flags
`--max_num_load_retries` and `--load_retry_interval_micros`).
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from components.errors import PushError
from components.storage.bucket import Bucket
from components.storage.files import file_lock, read_json

LINEAGE = Path("assets.extra") / "lineage.json"
LITERT, WITHDRAWN = "tflite", ".withdrawn"
MARKER = "saved_model.pb"
_LITERT_MARKER = "model_spec.json"
_STAGING, _CLAIMS = ".staging", ".versions"
_NUMBERED = re.compile(rf"(?:{re.escape(WITHDRAWN)}/)?[^/]+/(\d+)(?:/.*)?")


class ModelFolder:
    """Models in a local folder. A name is a model's or `LITERT`, below `WITHDRAWN/` for what was taken back."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from changing what is there."""
        return file_lock(self._root / ".lock")

    def versions(self, name: str) -> list[int]:
        """Give the versions of a name, the oldest first."""
        return sorted(int(p.name) for p in (self._root / name).glob("*") if p.name.isdecimal())

    def path(self, name: str, version: int) -> str:
        return str(self._root / name / str(version))

    def lineage(self, name: str, version: int) -> dict[str, Any] | None:
        """Give where a version comes from; `None` for one that was not pushed by this pipeline."""
        path = self._root / name / str(version) / LINEAGE
        return read_json(path) if path.is_file() else None

    def new_version(self, name: str, digest: str) -> int:
        """Give a number above all that were ever used, for a candidate of that digest."""
        used = [path.name for root in (self._root, self._root / WITHDRAWN) for path in root.glob("*/*")]
        return 1 + max((int(name) for name in used if name.isdecimal()), default=0)

    @contextmanager
    def staged(self, name: str, version: int) -> Iterator[Path]:
        """Give a folder to fill that is the version after the block: whole or not at all."""
        root = self._root / _STAGING
        # The lock is ours: whatever lies here was left by a process that was killed.
        shutil.rmtree(root, ignore_errors=True)
        staging, target = root / f"{name}-{version}", self._root / name / str(version)
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
                f"Free some space in {self._root}; the same command goes on from here."
            ) from exc
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def withdraw(self, name: str, version: int) -> None:
        """Take a version back, where it is there."""
        path = self._root / name / str(version)
        if path.exists():
            place = self._root / WITHDRAWN / name
            place.mkdir(parents=True, exist_ok=True)
            path.rename(place / path.name)

    def half_withdrawn(self, name: str) -> int | None:
        """Give the newest version if it is out of sight with files still to be removed, as no rename leaves it."""
        return None


class ModelBucket:
    """Models at a URL, with the methods of `ModelFolder`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def lock(self) -> AbstractContextManager[None]:
        """Do nothing: a store has no locks, and nobody needs one whose number is claimed."""
        return nullcontext()

    def versions(self, name: str) -> list[int]:
        found = (file.split("/") for file in self._bucket.files(name))
        return sorted(int(v) for v, *path in found if v.isdecimal() and path == [_marker(name)])

    def path(self, name: str, version: int) -> str:
        return f"{self._bucket}/{name}/{version}"

    def lineage(self, name: str, version: int) -> dict[str, Any] | None:
        return self._bucket.read_json(f"{name}/{version}/{LINEAGE.as_posix()}")

    def new_version(self, name: str, digest: str) -> int:
        """Claim a number above all that were ever used; one whose push was killed is the same candidate's still."""
        claim = f"{name} {digest}".encode()
        used = {int(match[1]) for file in self._bucket.files() if (match := _NUMBERED.fullmatch(file))}
        settled = max(self.versions(name) + self.versions(f"{WITHDRAWN}/{name}"), default=0)
        for number in sorted(used):
            if number > settled and self._bucket.read(f"{_CLAIMS}/{number}") == claim:
                return number
        number = 1 + max(used, default=0)
        while not self._bucket.claim(f"{_CLAIMS}/{number}", claim):
            number += 1
        return number

    @contextmanager
    def staged(self, name: str, version: int) -> Iterator[Path]:
        staging, marker = f"{_STAGING}/{name}-{version}", _marker(name)
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            self._bucket.upload(Path(folder), staging, marker=marker)
        self._bucket.copy(staging, f"{name}/{version}", marker=marker)
        self._bucket.remove(staging, marker=marker)

    def withdraw(self, name: str, version: int) -> None:
        source, marker = f"{name}/{version}", _marker(name)
        if self._bucket.find(f"{source}/{marker}"):
            self._bucket.copy(source, f"{WITHDRAWN}/{source}", marker=marker)
        self._bucket.remove(source, marker=marker)

    def half_withdrawn(self, name: str) -> int | None:
        seen = {int(v) for v in (file.partition("/")[0] for file in self._bucket.files(name)) if v.isdecimal()}
        newest = max(seen, default=0)
        return newest if newest in {*self.versions(f"{WITHDRAWN}/{name}")} - {*self.versions(name)} else None


def open_models(place: Path | Bucket) -> ModelFolder | ModelBucket:
    return ModelBucket(place) if isinstance(place, Bucket) else ModelFolder(place)


def fetch(models: Path | Bucket, model_name: str, folder: Path) -> int:
    """Bring a local folder of models to where a URL is: its newest version, with its LiteRT files, is the newest here.

    Servers that read local folders may look at that folder all the while.

    Returns:
        The version.

    Raises:
        PushError: the models are not at a URL, there are none, or the folder holds others.
    """
    if not isinstance(models, Bucket):
        raise PushError(f"Models are fetched from a URL. Received: {models}. Give one with --models-dir.")
    source, target = ModelBucket(models), ModelFolder(folder)
    pushed = source.versions(model_name)
    if not pushed:
        raise PushError(f"There is no pushed model {model_name} in {models}. Push one first: run --models-dir {models}")
    newest = pushed[-1]
    with target.lock():
        for version in target.versions(model_name):
            origins = [source.lineage(name, version) for name in (model_name, f"{WITHDRAWN}/{model_name}")]
            if target.lineage(model_name, version) not in origins:
                raise PushError(
                    f"What is fetched to a folder must not mix with models from elsewhere. {folder} holds a version "
                    f"{version} of {model_name} that is not the one in {models}. Choose another folder with --to."
                )
        for name in (LITERT, model_name):
            if newest in source.versions(name) and newest not in target.versions(name):
                remote = models / f"{name}/{newest}"
                with target.staged(name, newest) as staging:
                    # The marker by its name: what is being withdrawn has none, and is an error.
                    remote.download({*remote.files(), _marker(name)}, staging)
            for withdrawn in (v for v in target.versions(name) if v > newest):
                target.withdraw(name, withdrawn)
    return newest


def _marker(name: str) -> str:
    return _LITERT_MARKER if name.rpartition("/")[2] == LITERT else MARKER


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
