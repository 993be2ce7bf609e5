"""Pushed models in a store: a version is there as a whole or not at all.

    <models>/<name>/<version>/                complete, blessed SavedModels, nothing else: versions only grow
    <models>/tflite/<version>/                its LiteRT files that passed their evaluation, and `model_spec.json`
    <models>/.withdrawn/{<name>,tflite}/<version>/   what a rollback took back
    <models>/.versions/<version>              the candidate that claimed the number
    <models>/.staging/                        on its way to be a version

A version is there as long as its marker is, `saved_model.pb` or `model_spec.json`. On a disk it appears by a rename. In
a bucket its folder is seen without its marker for seconds: TensorFlow Serving cannot load such a folder, serves the
version before meanwhile, and tries again five times, a minute apart (its flags `--max_num_load_retries` and
`--load_retry_interval_micros`).
"""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from components.errors import PushError, StorageError
from components.storage.bucket import Bucket
from components.storage.disk import explain
from components.storage.files import sha256
from components.storage.folder import Folder
from components.storage.store import Store, open_store

LINEAGE = Path("assets.extra") / "lineage.json"
LITERT, WITHDRAWN = "tflite", ".withdrawn"
MARKER, LITERT_MARKER = "saved_model.pb", "model_spec.json"
_CLAIMS = ".versions"


class ModelStore:
    """The models of a store. A name is a model's or `LITERT`, below `WITHDRAWN/` for what was taken back."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __str__(self) -> str:
        return str(self._store)

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from changing what is there; in a bucket a claimed number does that."""
        return self._store.lock()

    def versions(self, name: str) -> list[int]:
        """Return the versions of a name, the oldest first."""
        found = (file.partition("/") for file in self._store.files(name))
        return sorted(int(v) for v, _, file in found if v.isdecimal() and file == _marker(name))

    def path(self, name: str, version: int) -> str:
        """Return the path or the URL of a version."""
        return str(self._store / f"{name}/{version}")

    def lineage(self, name: str, version: int) -> Any:
        """Return what a version was made from; `None` for one that was not pushed by this pipeline."""
        content = self.read(name, version, LINEAGE)
        return None if content is None else json.loads(content)

    def digest(self, name: str, version: int) -> str | None:
        """Return the digest of the candidate that a version was; `None` for one not pushed by this pipeline."""
        origin = self.lineage(name, version)
        return origin["model"]["digest"] if origin else None

    def newest_other(self, name: str, digest: str) -> int | None:
        """Return the newest version that is not the candidate of that digest; `None` where there is none."""
        return next((v for v in reversed(self.versions(name)) if self.digest(name, v) != digest), None)

    def read(self, name: str, version: int, file: Path) -> bytes | None:
        """Return the content of a file of a version; `None` where there is none."""
        return self._store.read(f"{name}/{version}/{file.as_posix()}")

    def new_version(self, name: str, digest: str) -> int:
        """Claim a number above all that were ever used, whatever the model's name, for a candidate of that digest.

        A candidate whose push was killed keeps the number that it claimed.
        """
        claim = f"{name} {digest}".encode()
        names = [*self._store.names(), *(f"{WITHDRAWN}/{withdrawn}" for withdrawn in self._store.names(WITHDRAWN))]
        used = {int(number) for folder in names for number in self._store.names(folder) if number.isdecimal()}
        settled = max(self.versions(name) + self.versions(f"{WITHDRAWN}/{name}"), default=0)
        for number in sorted(used):
            if number > settled and self._store.read(f"{_CLAIMS}/{number}") == claim:
                return number
        number = 1 + max(used, default=0)
        while not self._store.claim(f"{_CLAIMS}/{number}", claim):
            number += 1
        return number

    @contextmanager
    def staged(self, name: str, version: int) -> Iterator[Path]:
        """Yield a folder to fill that is the version after the block, as a whole or not at all.

        Raises:
            PushError: the disk is full, or cannot be written.
        """
        try:
            with self._store.staged(f"{name}/{version}", marker=_marker(name)) as folder:
                yield folder
        except OSError as exc:
            raise PushError(
                f"A model is pushed whole or not at all, and it cannot be written. {explain(exc, [str(self)])}"
            ) from exc

    def rollback(self, name: str) -> tuple[int, int]:
        """Withdraw the newest version, so that servers go back to the one before it.

        Returns:
            The version withdrawn and the version that is now the newest.

        Raises:
            PushError: there is no earlier version to go back to, or the bucket failed on the way.
        """
        with self.lock():
            pushed = self.versions(name)
            newest = self._half_withdrawn(name)
            if newest is None:
                if len(pushed) < 2:
                    raise PushError(
                        f"A rollback needs an earlier version to go back to. {self}/{name} holds "
                        f"{f'version {pushed[0]} alone' if pushed else 'no version'}."
                    )
                newest = pushed.pop()
            # The SavedModel last: as long as it is there, the same command finishes what was interrupted.
            try:
                for withdrawn in (LITERT, name):
                    self._withdraw(withdrawn, newest)
            except StorageError as exc:
                raise PushError(
                    f"{exc} But look first, with show, whether version {newest} is the newest one still: if not, it is "
                    "withdrawn, and the same command would withdraw the one before it."
                ) from exc
        return newest, pushed[-1]

    def fetch(self, name: str, folder: Path) -> int:
        """Make the newest version in a bucket, with its LiteRT files, the newest in a local folder of models.

        Servers that read local folders may look at that folder all the while.

        Returns:
            The version.

        Raises:
            PushError: the models are not at a URL, there are none, or the folder holds others.
        """
        if not isinstance(self._store, Bucket):
            raise PushError(f"Models are fetched from a URL. Received: {self}. Give one with --models-dir.")
        target = ModelStore(Folder(folder))
        pushed = self.versions(name)
        if not pushed:
            raise PushError(f"There is no pushed model {name} in {self}. Push one first: run --models-dir {self}")
        newest = pushed[-1]
        with target.lock():
            for version in target.versions(name):
                origins = [self.lineage(origin, version) for origin in (name, f"{WITHDRAWN}/{name}")]
                if target.lineage(name, version) not in origins:
                    raise PushError(
                        f"What is fetched to a folder must not mix with models from elsewhere. {folder} holds a "
                        f"version {version} of {name} that is not the one in {self}. Choose another folder with --to."
                    )
            for fetched in (LITERT, name):
                if newest in self.versions(fetched) and newest not in target.versions(fetched):
                    source = self._store / f"{fetched}/{newest}"
                    with target.staged(fetched, newest) as staging:
                        # The marker by its name: what is being withdrawn has none, and is an error.
                        source.download({*source.files(), _marker(fetched)}, staging)
                        origin = self.lineage(name, newest) or {}
                        digests = origin.get("litert_files" if fetched == LITERT else "files", {})
                        damaged = next((file for file in digests if sha256(staging / file) != digests[file]), None)
                        if damaged:
                            raise PushError(
                                f"What is fetched must be what was pushed, and {source}/{damaged} has another content "
                                "than then. Run rollback, or train and push again."
                            )
                for withdrawn in (v for v in target.versions(fetched) if v > newest):
                    target._withdraw(fetched, withdrawn)
        return newest

    def _withdraw(self, name: str, version: int) -> None:
        """Take a version back, where it is there."""
        self._store.move(f"{name}/{version}", f"{WITHDRAWN}/{name}/{version}", marker=_marker(name))

    def _half_withdrawn(self, name: str) -> int | None:
        """Return the newest version if it has lost its marker and still has files, as a killed rollback leaves it."""
        seen = {int(v) for v in (file.partition("/")[0] for file in self._store.files(name)) if v.isdecimal()}
        newest = max(seen, default=0)
        return newest if newest in {*self.versions(f"{WITHDRAWN}/{name}")} - {*self.versions(name)} else None


def open_models(path_or_url: str | Path) -> ModelStore:
    """Open the models in a folder or at a URL.

    Raises:
        StorageError: see `open_store`.
    """
    return ModelStore(open_store(path_or_url))


def _marker(name: str) -> str:
    return LITERT_MARKER if name.rpartition("/")[2] == LITERT else MARKER
