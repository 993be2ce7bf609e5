"""The folder of a run: `run.json`, what it was made from and how it ended, and what a person looks for.

Where the runs are kept at a URL, what is written here is uploaded.
"""

import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

from components.artifacts.manifest import Reference
from components.artifacts.suspects import SUSPECTS_FILE
from components.errors import StorageError
from components.storage.files import read_json, write_json
from pipelines import fingerprint
from pipelines.artifact_store import Artifact
from pipelines.config import Config
from pipelines.folders import Folders

_RECORD = "run.json"
SHOWN = {
    "suspects": (SUSPECTS_FILE,),
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
    """`run.json`: `seconds` and `error` come with the end of the run; `fallbacks` are reasons, by step."""

    run: str
    status: str
    fallbacks: dict[str, str]
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
        now_s = time.time()
        # The fraction of the second at the end, so that runs sort by their names.
        fraction = f"{int(now_s % 1 * 0x10000):04x}"
        self.path = folders.runs / f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(now_s))}-{fraction}"
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
            fallbacks={name: artifact.fallback for name, artifact in reused.items() if artifact.fallback},
            steps={name: {**artifact.reference, "reused": True} for name, artifact in reused.items()},
        )
        self._write()

    def add(self, step: str, artifact: Artifact, *, reason: str, seconds: float) -> None:
        """Record the output of a step, and the fallback that it stands on."""
        if artifact.fallback:
            self._record["fallbacks"][step] = artifact.fallback
        code = artifact.manifest["code"]
        self._record["steps"][step] = {**artifact.reference, "code": code, "seconds": seconds, "reason": reason}
        self._write()

    def finish(self, artifacts: Mapping[str, Artifact], *, has_report: bool) -> None:
        """Copy what a person looks for into the run's folder, and let the links point to it: `latest` to a report."""
        links = self.path / "steps"
        links.mkdir()
        for name, artifact in artifacts.items():
            (links / name).symlink_to(os.path.relpath(artifact.path, links))
        for step in SHOWN.keys() & artifacts.keys():
            artifact = self._folders.store.fetch(artifacts[step])
            for source in (artifact.path / name for name in SHOWN[step]):
                copy = shutil.copytree if source.is_dir() else shutil.copy2
                copy(source, self.path / source.name)
        self._folders.share(*(path for path in self.path.rglob("*") if path.is_file()))
        for link in (self._folders.newest, *([self._folders.latest] if has_report else [])):
            self._folders.point(link, self.path.name)
        self._end("finished")

    def fail(self, exc: BaseException) -> None:
        """Record why the run ended early."""
        self._record["error"] = f"{type(exc).__name__}: {exc}"
        # The failure is what counts, also when its record cannot be written or uploaded.
        with suppress(StorageError, OSError):
            self._end("failed")

    def _end(self, status: str) -> None:
        self._record["status"] = status
        self._record["seconds"] = round(time.monotonic() - self._started, 2)
        self._write()

    def _write(self) -> None:
        write_json(self.path / _RECORD, self._record)
        self._folders.share(self.path / _RECORD)


def list_runs(folder: Path) -> Iterator[RunRecord]:
    """Yield the record of every run in a folder, the oldest first.

    One whose process is gone is `killed`; one whose record cannot be read is `damaged`, and has nothing but its name.
    """
    for path in sorted(folder.glob(f"*-*/{_RECORD}")):
        try:
            record: RunRecord = read_json(path)
            is_ours = record.get("host", socket.gethostname()) == socket.gethostname()
            if record["status"] == "running" and is_ours and not _is_alive(record["process"]):
                record["status"] = "killed"
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            record = {"run": path.parent.name, "status": "damaged"}  # type: ignore[typeddict-item]
        yield record


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
