"""A sign of life from a step that is silent for long: a log line every half minute, on a terminal or not."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

EVERY_S = 30.0


class _Activity(logging.Handler):
    """Knows when something was logged last."""

    def __init__(self) -> None:
        super().__init__()
        self.last = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        self.last = time.monotonic()


@contextmanager
def heartbeat(step: str, *, every_s: float = EVERY_S) -> Iterator[None]:
    """Log during the block that a step is still running, whenever nothing was logged for `every_s`."""
    started, ended, activity = time.monotonic(), threading.Event(), _Activity()

    def beat() -> None:
        while not ended.wait(max(0.0, activity.last + every_s - time.monotonic())):
            now = time.monotonic()
            if now >= activity.last + every_s:
                activity.last = now
                log.info("%s: still running, %.0f s", step, now - started)

    thread = threading.Thread(target=beat, name=f"heartbeat of {step}", daemon=True)
    logging.getLogger().addHandler(activity)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        logging.getLogger().removeHandler(activity)
