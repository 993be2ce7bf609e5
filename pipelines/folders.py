"""Where runs, artifacts, schemas and pushed models are kept: in folders of this machine, or at URLs.

    <runs>/<run id>/      run.json, metrics.json, report.html, plots/ and more
    <runs>/latest         the newest run: a link, or at a URL a file with its id
    <runs>/artifacts/     see `pipelines.artifacts`
    <runs>/schemas/       kept from run to run

Where the runs live at a URL, steps and the runner work in a local folder all the same, and what a reader at the URL
needs is uploaded as soon as it is there, each file whole.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.storage.bucket import Bucket
from components.storage.cache import cache_of
from pipelines.artifacts import ArtifactStore


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where things are kept: `runs` holds runs, artifacts and schemas, `models` what is pushed.

    In `runs` the link `latest` points to the newest run of the pipeline. Where the runs live at a URL, that is
    `remote_runs`, and `runs` is the folder for what is here of them.
    """

    runs: Path = Path("runs")
    models: Path | Bucket = Path("models")
    latest: str = "latest"
    remote_runs: Bucket | None = None

    @classmethod
    def at(cls, runs: Path | Bucket, models: Path | Bucket) -> "Folders":
        if isinstance(runs, Bucket):
            return cls(runs=cache_of(runs.url), remote_runs=runs, models=models)
        return cls(runs=runs, models=models)

    @property
    def artifacts(self) -> Path:
        return self.runs / "artifacts"

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.artifacts, self.remote_runs and self.remote_runs / "artifacts")

    def state(self, name: str) -> Path | Bucket:
        return {"models": self.models, "schemas": self.runs / "schemas"}[name]

    def prepare(self, states: Iterable[str]) -> None:
        """Make the folders of these states; find out whether what lies at a URL can be written to.

        Raises:
            StorageError: it cannot.
        """
        if self.remote_runs:
            prepare(self.remote_runs)
        for name in set(states):
            prepare(self.state(name))

    def share(self, *paths: Path) -> None:
        """Upload files that lie below the runs."""
        if self.remote_runs:
            for path in paths:
                self.remote_runs.write(path.relative_to(self.runs).as_posix(), path.read_bytes())

    def share_latest(self, run: str) -> None:
        """Say at the URL which run is the newest."""
        if self.remote_runs:
            self.remote_runs.write(self.latest, run.encode())

    def fetch_latest(self) -> Path:
        """Give the record of the newest run; the file need not exist."""
        run = self.remote_runs.read(self.latest) if self.remote_runs else None
        if self.remote_runs and run:
            record = f"{run.decode()}/run.json"
            self.remote_runs.download([record], self.runs)
            return self.runs / record
        return self.runs / self.latest / "run.json"

    def fetch_records(self) -> None:
        """Fetch what every run recorded and measured."""
        if self.remote_runs:
            runs = [name for name in self.remote_runs.names() if "-" in name]
            names = [f"{run}/{name}" for run in runs for name in ("run.json", "metrics.json")]
            for name, content in zip(names, self.remote_runs.read_each(names), strict=True):
                if content is not None:
                    (self.runs / name).parent.mkdir(parents=True, exist_ok=True)
                    (self.runs / name).write_bytes(content)

    @contextmanager
    def mirrored(self, state: str) -> Iterator[None]:
        """Fetch what is kept from run to run at the runs' URL, and upload what the block changes in it."""
        folder = self.state(state)
        if self.remote_runs is None or folder is self.models or isinstance(folder, Bucket):
            yield
            return
        with mirrored(self.remote_runs / folder.relative_to(self.runs).as_posix(), folder):
            yield


def prepare(place: Path | Bucket) -> None:
    """Make a folder; find out whether what lies at a URL can be written to.

    Raises:
        StorageError: it cannot.
    """
    if isinstance(place, Bucket):
        place.check_writable()
    else:
        place.mkdir(parents=True, exist_ok=True)


@contextmanager
def mirrored(kept: Bucket, folder: Path) -> Iterator[None]:
    """Fetch what is kept at a URL to a folder, and upload the JSON files in it that the block changes."""
    kept.download(kept.files(), folder)
    before = {path: path.read_bytes() for path in folder.glob("*.json")}
    yield
    for path in folder.glob("*.json"):
        if (content := path.read_bytes()) != before.get(path):
            kept.write(path.name, content)
