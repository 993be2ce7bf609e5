"""What the page works with, put together: the queue of all sources, the decisions, the choice, and the training."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.artifacts.labels import LABELS_FILE
from components.errors import DataError
from pipelines.captured import PHOTOS_DIR, extract, find_labelled, find_unsure
from pipelines.review.items import has_suspects, of_captured, read_class_names, read_suspects_of
from pipelines.review.ledger import Ledger
from pipelines.review.queue import Queue
from pipelines.review.selection import Choose, Selection
from pipelines.review.training import Training

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be reviewed.

    Attributes:
        runs_dir: of the pipeline.
        models_dir: a path or URL; a training pushes there.
        labels: the file of decisions.
        input: a folder or URL of photos without labels; empty for none.
        choose: chooses among them; see `Selection`.
        captured: a folder of what was captured while a model was served; `None` for none. Not beside `input`.
        assignments: options of the pipeline, `section.option=value`, for a training.
        who: decides where the browser knows nobody.
    """

    runs_dir: Path = Path("runs")
    models_dir: str = "models"
    labels: Path = Path(LABELS_FILE)
    input: str = ""
    choose: Choose | None = None
    captured: Path | None = None
    assignments: Sequence[str] = ()
    who: str = ""

    @property
    def run_dir(self) -> Path:
        """The newest run with a report."""
        return self.runs_dir / "latest"

    @property
    def captured_photos_dir(self) -> Path:
        """Where the captured photos are that were decided on, beside the decisions."""
        return self.labels.parent / PHOTOS_DIR

    def command(self) -> list[str]:
        """Return the command that trains with what was decided."""
        folder = self.input
        if self.captured and self.captured_photos_dir.is_dir():
            folder = str(self.captured_photos_dir)
        unlabelled = [f"examples.unlabelled={folder}"] if folder else []
        folders = ["--runs-dir", str(self.runs_dir), "--models-dir", self.models_dir]
        settings = [assign_labels(self.labels), *unlabelled, *self.assignments]
        return [sys.executable, "-m", "pipelines", "run", *folders, "--set", *settings]


def assign_labels(path: Path) -> str:
    """Return the option that makes the pipeline read a file of decisions, if there is one yet."""
    return f"examples.labels={path if path.exists() else ''}"


class Desk:
    """The queue, the decisions, the choice and the training of a task.

    Args:
        task: what is to be reviewed.

    Raises:
        DataError: there is nothing to review, or a file of the run or of the decisions is damaged.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.ledger = Ledger(task.labels)
        self.queue = Queue(self.ledger)
        self.training = Training(task.command, task.runs_dir, on_end=self._begin_again)
        self.selection = Selection(task.input, task.choose, on_end=self._reload) if task.choose else None
        if not (task.input or task.captured or has_suspects(task.run_dir)):
            raise DataError(
                "A review needs a run of the pipeline that looked for doubted labels, or photos without labels. Found "
                f"none in {task.runs_dir}. Train first: make train DATA=…; or name photos: --input FOLDER|URL, or "
                "--captured DIR"
            )
        self._load()
        if self.selection:
            self.selection.start()

    def train(self) -> None:
        """Start a training; a choice that is going on ends, and is made anew after it.

        Raises:
            BusyError: a run is going on.
            OSError: it cannot be started, or the captured photos cannot be read or written.
        """
        if self.selection:
            self.selection.stop()
        if self.task.captured:
            labelled = find_labelled(self.task.labels)
            extracted = extract(self.task.captured, self.task.captured_photos_dir, wanted=labelled)
            log.info("%s: %d captured photos added", self.task.captured_photos_dir, extracted.num_written)
        self.training.start()

    def close(self) -> None:
        """End what goes on in the background."""
        self.training.close()
        if self.selection:
            self.selection.stop()

    def _begin_again(self) -> None:
        self._reload()
        if self.selection:
            self.selection.start()

    def _reload(self) -> None:
        try:
            self._load()
        except (DataError, OSError, ValueError) as exc:
            log.warning("review: the newest run cannot be read, so the page goes on as it was: %s", exc)

    def _load(self) -> None:
        run_dir = self.task.run_dir
        selected = self.selection.items if self.selection else []
        captured = of_captured(find_unsure(self.task.captured)) if self.task.captured else []
        self.queue.load(read_suspects_of(run_dir), selected, captured, class_names=read_class_names(run_dir))
