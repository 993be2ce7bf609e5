"""Captures requests beside the serving: chosen at random, and written by a thread, or dropped where that is late."""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from serving.shared.capture.writer import CaptureOptions, FileWriter

log = logging.getLogger(__name__)

_MAX_WAITING = 256
_MAX_WAITING_BYTES = 64_000_000
# After the disk was full, or could not be written.
_RETRY_S = 10.0
# Between two looks for files that are too old.
_CLEAN_S = 60.0

Build = Callable[[float], bytes]
"""Makes the record of a request that was handled at a time, in seconds since 1970; called in the recorder's thread."""

Count = Callable[[str, bool], None]
"""Counts a request of a model: captured, or dropped."""


def _count_nothing(model_name: str, is_captured: bool) -> None:
    pass


class _Waiting(NamedTuple):
    model_name: str
    when_s: float
    build: Build
    num_bytes: int


class Recorder:
    """Captures requests.

    Nothing that goes wrong here reaches the request: a record is dropped when too many wait, and when it cannot be
    written. Then nothing is captured until a record can be written again, which is tried every ten seconds.

    Args:
        options: what is captured, and where.
        count: counts each request that was chosen.
        clock: returns seconds since 1970.
    """

    def __init__(
        self, options: CaptureOptions, *, count: Count = _count_nothing, clock: Callable[[], float] = time.time
    ) -> None:
        self.options = options
        self._count = count
        self._clock = clock
        self._writer = FileWriter(options)
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._is_closed = False
        self._failed_at_s: float | None = None
        self._cleaned_at_s = float("-inf")
        self._said: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    @property
    def is_capturing(self) -> bool:
        """Return whether the last record could be written."""
        return self._failed_at_s is None

    def describe(self) -> str:
        """Return what is captured, for people."""
        options = self.options
        what = "requests" if options.with_inputs else "scores"
        return (
            f"the {what} of {100 * options.rate:g} % into {options.folder}/{options.name}-*, at most "
            f"{options.max_mb:g} MB and {options.max_age_days:g} days"
        )

    def chooses(self) -> bool:
        """Return whether a request is one of those that are captured."""
        return random.random() < self.options.rate

    def offer(self, model_name: str, build: Build, num_bytes: int) -> None:
        """Capture a request, soon; drop it when too much waits already.

        Args:
            model_name: which model it was for.
            build: makes its record.
            num_bytes: that it keeps in memory until then.
        """
        with self._changed:
            is_full = len(self._waiting) >= _MAX_WAITING or self._waiting_bytes + num_bytes > _MAX_WAITING_BYTES
            if not (self._is_closed or (self._waiting and is_full)):
                self._waiting.append(_Waiting(model_name, self._clock(), build, num_bytes))
                self._waiting_bytes += num_bytes
                self._changed.notify()
                return
        self._count(model_name, False)

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what waits, and end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        log.info("capture: begins with %s", self.describe())
        while True:
            with self._changed:
                if not (self._waiting or self._is_closed):
                    self._changed.wait(_CLEAN_S)
                is_over = self._is_closed and not self._waiting
                waiting = self._waiting[0] if self._waiting else None
            self._clean()
            if waiting:
                self._count(waiting.model_name, self._write(waiting))
                with self._changed:
                    self._waiting.popleft()
                    self._waiting_bytes -= waiting.num_bytes
                waiting = None  # it holds a request
            if is_over:
                self._writer.close()
                return

    def _clean(self) -> None:
        now_s = self._clock()
        if abs(now_s - self._cleaned_at_s) < _CLEAN_S:
            return
        self._cleaned_at_s = now_s
        try:
            self._writer.clean(now_s)
        except OSError as exc:
            self._say_once(f"what is too old cannot be deleted: {exc}")

    def _write(self, waiting: _Waiting) -> bool:
        """Write a record; return whether it is written."""
        now_s = self._clock()
        if self._failed_at_s is not None and abs(now_s - self._failed_at_s) < _RETRY_S:
            return False
        try:
            record = waiting.build(waiting.when_s)
            if not self._writer.fits(record):
                self._say_once(f"a request of more than a tenth of {self.options.max_mb:g} MB is not kept")
                return False
            self._writer.write(record, now_s)
        except OSError as exc:
            if self._failed_at_s is None:
                log.warning("capture: stops, and serving goes on: %s. Tried again every %g s", exc, _RETRY_S)
            self._failed_at_s = now_s
            return False
        except Exception:
            # Whatever a request holds, the next one is captured.
            log.exception("capture: a request cannot be written as a record")
            return False
        if self._failed_at_s is not None:
            log.info("capture: goes on")
            self._failed_at_s = None
        return True

    def _say_once(self, what: str) -> None:
        if what not in self._said:
            log.warning("capture: %s (said once)", what)
        self._said.add(what)
