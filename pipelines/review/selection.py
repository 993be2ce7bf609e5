"""Photos without labels that are worth one, chosen in a process of its own: it needs TensorFlow, and ends with it."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from components.data.sources.unlabelled import open_unlabelled
from components.errors import ComponentError
from pipelines.review.items import Item, of_selected

log = logging.getLogger(__name__)

Choose = Callable[[], list[tuple[str, str, str]]]
"""Returns (path, SHA-256, reason) of photos; it goes to another process, so it is a function of a module."""


class Selection:
    """Chooses photos of a folder in the background, again and again.

    Args:
        folder: a path or URL.
        choose: returns the photos.
        on_end: called after each choice, in a thread.

    Attributes:
        items: that were chosen last.
        is_going_on: whether photos are being chosen.
        error: why there is no choice; empty where there is one.
    """

    def __init__(self, folder: str, choose: Choose, *, on_end: Callable[[], None]) -> None:
        self._folder = folder
        self._choose = choose
        self._on_end = on_end
        self._process: Any = None
        self._thread: threading.Thread | None = None
        self._is_stopped = False
        self.items: list[Item] = []
        self.is_going_on = False
        self.error = ""

    def start(self) -> None:
        """Choose now, unless that is going on."""
        if self.is_going_on:
            return
        self.is_going_on, self.error, self._is_stopped = True, "", False
        spawn = multiprocessing.get_context("spawn")
        receiver, sender = spawn.Pipe(duplex=False)
        # Here, not in the thread: whoever stops it must find it started.
        self._process = spawn.Process(target=_choose, args=(sender, self._choose))
        self._process.start()
        sender.close()
        self._thread = threading.Thread(target=self._wait, args=(receiver,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End a choice that is going on, with all its processes; return when it has ended."""
        process, thread = self._process, self._thread
        if not (process and thread and self.is_going_on):
            return
        self._is_stopped = True
        process.terminate()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        thread.join()

    def _wait(self, receiver: Connection) -> None:
        try:
            found, error = receiver.recv()
            if not error:
                self.items = of_selected(open_unlabelled(self._folder), found)
        except EOFError:
            error = "" if self._is_stopped else "The choice ended without a result; the log says more."
        except (ComponentError, OSError) as exc:
            error = str(exc)
        finally:
            receiver.close()
            self._process.join()
        self.error = error
        if error:
            log.warning("review: no photos of %s are chosen: %s", self._folder, error)
        self.is_going_on = False
        if not self._is_stopped:
            self._on_end()


def _choose(sender: Connection, choose: Choose) -> None:
    os.setsid()  # with what it starts it is a group of its own, which ends as one
    try:
        found, error = choose(), ""
    except (ComponentError, OSError, ValueError) as exc:
        found, error = [], str(exc)
    sender.send((found, error))
