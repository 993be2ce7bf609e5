"""A run of the pipeline that the page starts, in a process group of its own, one at a time.

It ends with the server that started it, unless that is killed: then the run goes on, as one that was started by hand.
"""

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pipelines.runs import list_runs

_MAX_LINES = 2000
_STOP_S = 5.0
"""A run gets so long to end in good order, and then as long again before it is killed."""
_PUSHED, _NOT_PUSHED, _ERROR = "Pushed: ", "Not pushed: ", "error: "
"""With which the pipeline begins the line that says how it ended."""
_NUM_LAST = 5


class BusyError(Exception):
    """A run is going on already."""


@dataclass(frozen=True)
class Progress:
    """How a training goes.

    Attributes:
        is_running: whether it goes on.
        result: how it ended, in words; empty while it runs, or where none was started.
        lines: of its log, from the number that was asked for on.
        num_lines: so many there were, the first of which may be dropped.
        number: of trainings that were started.
    """

    is_running: bool
    result: str
    lines: list[str]
    num_lines: int
    number: int


class Training:
    """Runs a command, one at a time.

    Args:
        command: the pipeline's, made anew for each run.
        runs_dir: of the pipeline, where a run that others started is found.
        on_end: called after each run, in a thread.
    """

    def __init__(
        self, command: Callable[[], Sequence[str]], runs_dir: Path, *, on_end: Callable[[], None] = lambda: None
    ) -> None:
        self._command = command
        self._runs_dir = runs_dir
        self._on_end = on_end
        self._mutex = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._is_running = self._is_stopped = self._is_closed = False
        self._result = ""
        self._lines: deque[str] = deque(maxlen=_MAX_LINES)
        self._num_lines = self._number = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start a run.

        Raises:
            BusyError: one is going on, here or elsewhere in these runs.
            OSError: it cannot be started.
        """
        with self._mutex:
            if self._is_running or self._is_closed:
                raise BusyError("A training is going on already.")
            other = next((run for run in list_runs(self._runs_dir) if run["status"] == "running"), None)
            if other:
                raise BusyError(
                    f"A run of the pipeline is going on already: {other['run']}, process {other['process']}."
                )
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
            self._is_running, self._is_stopped, self._result = True, False, ""
            self._lines.clear()
            self._num_lines = 0
            self._number += 1
            self._thread = threading.Thread(target=self._follow, args=(self._process,), daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the run with all its processes; return when it has ended."""
        process, thread = self._process, self._thread
        if not (process and thread and self._is_running):
            return
        self._is_stopped = True
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            thread.join(_STOP_S)
            if not thread.is_alive():
                return

    def close(self) -> None:
        """End the run, and start none from now on."""
        with self._mutex:
            self._is_closed = True
        self.stop()

    def read(self, first: int = 0) -> Progress:
        """Return how the training goes, with the lines of its log from a number on."""
        with self._mutex:
            num_new = min(max(self._num_lines - first, 0), len(self._lines))
            lines = list(self._lines)[len(self._lines) - num_new :]
            return Progress(self._is_running, self._result, lines, self._num_lines, self._number)

    def _follow(self, process: "subprocess.Popen[str]") -> None:
        output: IO[str] = process.stdout  # type: ignore[assignment]
        with output:
            for line in output:
                with self._mutex:
                    self._lines.append(line.rstrip("\n"))
                    self._num_lines += 1
        status = process.wait()
        if not self._is_closed:
            self._on_end()
        with self._mutex:
            self._result = self._describe(status)
            self._is_running = False

    def _describe(self, status: int) -> str:
        if self._is_stopped:
            return "Stopped. The next training goes on where this one was."
        said = [line for line in self._lines if line.startswith((_PUSHED, _NOT_PUSHED))]
        if status == 0:
            where = f": {said[-1].removeprefix(_PUSHED)}" if said else ""
            return f"Finished. The new model is pushed{where}."
        if said and said[-1].startswith(_NOT_PUSHED):
            return f"Finished. The new model is not blessed, so it is not pushed: {said[-1].removeprefix(_NOT_PUSHED)}"
        lines = list(self._lines)
        first = max((number for number, line in enumerate(lines) if line.startswith(_ERROR)), default=-_NUM_LAST)
        reason = " ".join(lines[first:]).removeprefix(_ERROR)
        return f"Failed, with exit status {status}. {reason}".strip()
