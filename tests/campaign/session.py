"""A person at the command line, in a folder of their own: every command, what it printed and how it ended."""

import subprocess
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from random import Random

from components.storage.files import read_json
from pipelines import __main__ as command_line
from pipelines.flowers import STEPS
from pipelines.runs import RunRecord
from tests import tiny_pipeline
from tests.campaign.situations import Situation
from tests.campaign.warm_python import WarmProcess, WarmPython

ORDER = [step.name for step in STEPS]
TIMEOUT_S = 300
TINY = (
    *(assignment for assignment in tiny_pipeline.assignments() if not assignment.startswith("examples.")),
    "trainer.epochs=12",
    "validator.min_examples_per_class=1",
    "validator.max_excluded_fraction=0.5",
)


@dataclass(frozen=True)
class Moment:
    """When to kill: as soon as a step has started and, with a `sign`, a file of that pattern exists; or some later.

    A step that is gone before it was seen (a push takes milliseconds) counts as started when a later one has.
    """

    step: str
    sign: str | None = None
    delay_s: float = 0.0

    def has_come(self, log: str, folder: Path) -> bool:
        """Return whether it has, by the log of the command and the files below a folder; the delay is not counted."""
        later = ORDER[ORDER.index(self.step) + 1 :]
        if any(f" {step}: started" in log for step in later):
            return True
        started = f" {self.step}: started" in log
        return started and (self.sign is None or any(folder.glob(self.sign)))


def wait_or_kill(
    processes: Sequence["subprocess.Popen[bytes] | WarmProcess"], log: Path, *, kill_at: Moment | None = None
) -> None:
    """Wait until processes have ended, or kill them at a moment, or after five minutes."""
    end_s, kill_s = time.monotonic() + TIMEOUT_S, float("inf")
    while any(process.poll() is None for process in processes):
        now_s = time.monotonic()
        if kill_at and kill_s > end_s and kill_at.has_come(log.read_text(errors="replace"), log.parent):
            kill_s = now_s + kill_at.delay_s
        if now_s >= min(kill_s, end_s):
            for process in processes:
                process.kill()
        time.sleep(0.002 if kill_at else 0.05)


@dataclass(frozen=True)
class Outcome:
    """How a command ended; the status is negative where a signal ended it."""

    arguments: tuple[str, ...]
    status: int
    out: str
    err: str

    @property
    def is_whole_run(self) -> bool:
        return self.arguments[0] == "run" and "--to" not in self.arguments

    @property
    def error(self) -> str:
        """The text after `error:`, with what follows it."""
        return self.err.partition("error: ")[2]

    def __str__(self) -> str:
        err = "\n".join(line for line in self.err.splitlines() if not line.startswith(("E0000", "I0000", "W0000")))
        shown = " ".join(argument for argument in self.arguments if argument not in TINY)
        return f"$ python -m pipelines {shown}\n{self.out}{err}\nexit status {self.status}"


@dataclass
class Session:
    """Runs commands on a folder. Without a warm Python they run in this process, and cannot be killed.

    Attributes:
        folder: holds `data`, `runs` and `models`.
        situation: whose options are set.
        python: starts the commands.
        last_step: `--to` of every run.
        outcomes: of every command so far.
        check: is called with every outcome of a command that nobody killed.
        damaged: artifacts that a fault has damaged.
        is_disk_full: whether a disk is full on purpose.
    """

    folder: Path
    situation: Situation
    python: WarmPython | None = None
    last_step: str | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    check: "Callable[[Session, Outcome], None]" = lambda _session, _outcome: None
    damaged: set[Path] = field(default_factory=set)
    is_disk_full: bool = False

    def __post_init__(self) -> None:
        self.random = Random(self.situation.seed + self.situation.fault)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def models(self) -> Path:
        return self.folder / "models"

    def run(self, *arguments: str, options: Sequence[str] = ()) -> Outcome:
        """Run the pipeline on the photos, with more arguments or other options."""
        return self.command(*self.run_arguments(*arguments, options=options))

    def run_arguments(self, *arguments: str, options: Sequence[str] = ()) -> list[str]:
        to = ("--to", self.last_step) if self.last_step else ()
        source = f"examples.source={self.data}"
        return ["run", *to, *arguments, "--set", source, *TINY, *self.situation.options, *options]

    def command(self, *arguments: str, kill_at: Moment | None = None) -> Outcome:
        """Run a command to its end, or to the moment when it is killed."""
        (outcome,) = self.commands(arguments, kill_at=kill_at)
        return outcome

    def commands(self, *several: Sequence[str], kill_at: Moment | None = None) -> list[Outcome]:
        """Run commands at the same time, and check each outcome when all have ended."""
        folders = ("--runs-dir", str(self.runs), "--models-dir", str(self.models))
        complete = [(*arguments, *folders) for arguments in several]
        if self.python:
            outcomes = self._run_warm(complete, kill_at)
        else:
            outcomes = [self._run_here(arguments) for arguments in complete]
        self.outcomes += outcomes
        for outcome in outcomes:
            if outcome.status >= 0:
                self.check(self, outcome)
        return outcomes

    def record(self) -> RunRecord:
        """Read the record of the newest run."""
        return read_json(max(self.runs.glob("*-*/run.json"), key=lambda path: path.stat().st_ctime_ns))

    def artifact(self, step: str, record: RunRecord | None = None) -> Path:
        """Return the output of a step in the newest run."""
        return self.runs / "artifacts" / step / (record or self.record())["steps"][step]["key"]

    def log(self) -> str:
        return "\n".join(outcome.err for outcome in self.outcomes)

    def _run_here(self, arguments: tuple[str, ...]) -> Outcome:
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                status = command_line.main(arguments)
            except SystemExit as exc:
                status = int(exc.code or 0)
            except Exception:  # as Python itself does it
                traceback.print_exc()
                status = 1
        return Outcome(arguments, status, out.getvalue(), err.getvalue())

    def _run_warm(self, several: Sequence[tuple[str, ...]], kill_at: Moment | None) -> list[Outcome]:
        assert self.python
        processes = []
        for number, arguments in enumerate(several):
            out, err = self.folder / f"out{number}.txt", self.folder / f"err{number}.txt"
            with out.open("w") as stdout, err.open("w") as stderr:
                process = self.python.start("pipelines", *arguments, stdout=stdout.fileno(), stderr=stderr.fileno())
            processes.append((process, arguments, out, err))
        wait_or_kill([process for process, *_ in processes], processes[0][3], kill_at=kill_at)
        return [
            Outcome(arguments, process.wait(), out.read_text(errors="replace"), err.read_text(errors="replace"))
            for process, arguments, out, err in processes
        ]
