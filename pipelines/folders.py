"""Where runs, artifacts, schemas and pushed models are kept: in folders of this machine, or at URLs.

    <runs>/<run id>/      run.json, metrics.json, report.html, plots/ and more
    <runs>/latest         the newest run with a report: a link, or at a URL a file with its id
    <runs>/.newest        the same for the newest run that finished, also one that ended before its report
    <runs>/artifacts/     see `pipelines.artifact_store`
    <runs>/schemas/       kept from run to run

Where the runs are at a URL, steps and the runner work in a local folder all the same, and what a reader at the URL
needs is uploaded as soon as it is complete, each file atomically.
"""

import fcntl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.storage.bucket import Bucket
from components.storage.cache import cache_of
from components.storage.files import file_lock
from components.storage.store import Store, open_store
from pipelines.artifact_store import ArtifactStore
from pipelines.declaration import Step

MODELS = "models"


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where things are kept.

    Attributes:
        runs: holds runs, artifacts and schemas; where they are at a URL, the local folder for what is here of them.
        models: the path or the URL that models are pushed to.
        latest: the link in `runs` to the newest run of the pipeline that has a report.
        remote_runs: the URL of the runs.
    """

    runs: Path = Path("runs")
    models: str | Path = MODELS
    latest: str = "latest"
    remote_runs: Bucket | None = None

    @classmethod
    def at(cls, runs: str, models: str) -> "Folders":
        """Return the folders at paths or URLs.

        Raises:
            StorageError: the package for this kind of URL is not installed, or there is none.
        """
        store = open_store(runs)
        if isinstance(store, Bucket):
            return cls(runs=cache_of(str(store)), remote_runs=store, models=models)
        return cls(runs=Path(runs), models=models)

    @property
    def newest(self) -> str:
        """The link in `runs` to the newest run of the pipeline that finished, with a report or without."""
        return f".{self.latest.replace('latest', 'newest')}"

    @property
    def artifacts(self) -> Path:
        return self.runs / "artifacts"

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.artifacts, self.remote_runs and self.remote_runs / "artifacts")

    def state(self, name: str) -> Store:
        """Return what is kept from run to run under a name, `models` or `schemas`."""
        return open_store(self.models) if name == MODELS else (self.remote_runs or open_store(self.runs)) / name

    def prepare(self, states: Iterable[str]) -> None:
        """Check that the runs and these states can be written to.

        Raises:
            StorageError: a URL cannot.
            OSError: a folder cannot.
        """
        (self.remote_runs or open_store(self.runs)).check_writable()
        for name in set(states):
            self.state(name).check_writable()

    def share(self, *paths: Path) -> None:
        """Upload files that lie below the runs."""
        if self.remote_runs:
            for path in paths:
                self.remote_runs.write(path.relative_to(self.runs).as_posix(), path.read_bytes())

    def point(self, link: str, run: str) -> None:
        """Let a link point to a run, here and at the URL."""
        with file_lock(self.runs / f".{self.latest}.lock"):
            temporary = self.runs / f"{link}.tmp"
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(run)
            temporary.replace(self.runs / link)
        if self.remote_runs:
            self.remote_runs.write(link, run.encode())

    def fetch_newest(self) -> Path:
        """Return the path of the record of the newest run that finished; the file need not exist."""
        links = (self.newest, self.latest)
        run = next(filter(None, map(self.remote_runs.read, links)), None) if self.remote_runs else None
        if self.remote_runs and run:
            record = f"{run.decode()}/run.json"
            self.remote_runs.download([record], self.runs)
            return self.runs / record
        records = [self.runs / link / "run.json" for link in links]
        return next((record for record in records if record.exists()), records[0])

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep artifacts from being removed during the block, or until the process ends, however it ends."""
        with self._lock(fcntl.LOCK_SH):
            yield

    @contextmanager
    def unused(self) -> Iterator[None]:
        """Keep runs from starting during the block.

        Raises:
            BlockingIOError: one is going on.
        """
        with self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield

    @contextmanager
    def _lock(self, kind: int) -> Iterator[None]:
        self.runs.mkdir(parents=True, exist_ok=True)
        with (self.runs / ".in_use.lock").open("w") as file:
            fcntl.flock(file, kind)
            yield

    def fetch_records(self) -> None:
        """Fetch the record and the metrics of every run."""
        if self.remote_runs:
            runs = [name for name in self.remote_runs.names() if "-" in name]
            names = [f"{run}/{name}" for run in runs for name in ("run.json", "metrics.json")]
            for name, content in zip(names, self.remote_runs.read_each(names), strict=True):
                if content is not None:
                    (self.runs / name).parent.mkdir(parents=True, exist_ok=True)
                    (self.runs / name).write_bytes(content)


@contextmanager
def open_state(step: Step, stores: Mapping[str, Store]) -> Iterator[dict[str, Store | Path]]:
    """Yield what a step is passed of its states, by parameter: the store of the models, of any other a local folder.

    Args:
        step: of the pipeline.
        stores: of its states, by name.
    """
    with ExitStack() as stack:
        yield {
            parameter: stores[name] if name == MODELS else stack.enter_context(_open_folder(stores[name]))
            for parameter, name in step.state.items()
        }


@contextmanager
def _open_folder(store: Store) -> Iterator[Path]:
    """Yield the folder of a store; of a bucket a copy, whose JSON files are uploaded where the block changes them."""
    if not isinstance(store, Bucket):
        yield Path(str(store))
        return
    folder, files = cache_of(str(store)), store.files()
    store.download(files, folder)
    before = {name: (folder / name).read_bytes() for name in files}
    yield folder
    for path in folder.glob("*.json"):
        if (content := path.read_bytes()) != before.get(path.name):
            store.write(path.name, content)
