"""The folder of a run: `run.json`, what it was made from and how it ended, and what a person looks for.

Where the runs are kept at a URL, what is written here is uploaded.
"""

import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

from components.artifacts.manifest import Reference
from components.errors import StorageError
from components.storage.files import file_lock, read_json, write_json
from pipelines import fingerprint
from pipelines.artifact_store import Artifact
from pipelines.config import Config
from pipelines.folders import Folders

_RECORD = "run.json"
_SHOWN = {
    "evaluator": ("metrics.json",),
    "report": ("report.html", "plots"),
    "comparison": ("comparison.html", "comparison.json", "plots"),
}
"""What a person looks for, by the step that makes it."""


class StepRecord(Reference):
    """The output of a step: the digest of the code, the seconds it took, and why it ran or did not."""

    code: str
    seconds: float
    reason: str


class ReusedStep(Reference):
    """The output of a step before `--from`, as an earlier run left it."""

    reused: bool


class _End(TypedDict, total=False):
    seconds: float
    error: str


class RunRecord(_End):
    """`run.json`: `seconds` and `error` come with the end of the run."""

    run: str
    status: str
    process: int
    host: str
    started: str
    config: dict[str, Any]
    seeds: dict[str, int]
    versions: dict[str, str]
    sources: dict[str, Any]
    steps: dict[str, StepRecord | ReusedStep]


class Run:
    """A run that is going on. Its record is written whenever it changes."""

    def __init__(
        self, folders: Folders, config: Config, *, sources: dict[str, Any], reused: Mapping[str, Artifact]
    ) -> None:
        self._folders = folders
        self._started = time.monotonic()
        self.path = folders.runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        self.path.mkdir(parents=True)
        options = asdict(config)
        self._record = RunRecord(
            run=self.path.name,
            status="running",
            process=os.getpid(),
            host=socket.gethostname(),
            started=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            config=options,
            seeds={f"{section}.seed": values["seed"] for section, values in options.items() if "seed" in values},
            versions=fingerprint.versions(),
            sources=sources,
            steps={name: {**artifact.reference, "reused": True} for name, artifact in reused.items()},
        )
        self._write()

    def add(self, step: str, artifact: Artifact, *, reason: str, seconds: float) -> None:
        """Record the output of a step."""
        code = artifact.manifest["code"]
        self._record["steps"][step] = {**artifact.reference, "code": code, "seconds": seconds, "reason": reason}
        self._write()

    def finish(self, artifacts: Mapping[str, Artifact]) -> None:
        """Copy what a person looks for into the run's folder, and let the link `latest` point to it."""
        links = self.path / "steps"
        links.mkdir()
        for name, artifact in artifacts.items():
            (links / name).symlink_to(os.path.relpath(artifact.path, links))
        for step in _SHOWN.keys() & artifacts.keys():
            artifact = self._folders.store.fetch(artifacts[step])
            for source in (artifact.path / name for name in _SHOWN[step]):
                copy = shutil.copytree if source.is_dir() else shutil.copy2
                copy(source, self.path / source.name)
        self._folders.share(*(path for path in self.path.rglob("*") if path.is_file()))
        self._point_latest()
        self._end("finished")

    def fail(self, exc: BaseException) -> None:
        """Record why the run ended early."""
        self._record["error"] = f"{type(exc).__name__}: {exc}"
        # The failure is what counts, also when its record cannot be written or uploaded.
        with suppress(StorageError, OSError):
            self._end("failed")

    def _point_latest(self) -> None:
        runs, latest = self._folders.runs, self._folders.latest
        with file_lock(runs / f".{latest}.lock"):
            temporary = runs / f".{latest}"
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(self.path.name)
            temporary.replace(runs / latest)
        self._folders.share_latest(self.path.name)

    def _end(self, status: str) -> None:
        self._record["status"] = status
        self._record["seconds"] = round(time.monotonic() - self._started, 2)
        self._write()

    def _write(self) -> None:
        write_json(self.path / _RECORD, self._record)
        self._folders.share(self.path / _RECORD)


def list_runs(folder: Path) -> Iterator[RunRecord]:
    """Yield the record of every run in a folder, the oldest first; one whose process is gone is `killed`."""
    for path in sorted(folder.glob(f"*-*/{_RECORD}")):
        record: RunRecord = read_json(path)
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
