"""How far a long loop has come: a bar on a terminal, elsewhere a log line every half minute."""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

log = logging.getLogger(__name__)

LINE_EVERY_S = 30.0


class Progress(tqdm):  # type: ignore[type-arg]
    """A bar of tqdm's, which shows after two seconds and leaves nothing behind; without a terminal, log lines.

    Args:
        items: what is gone through, one after the other; or call `update`.
        total: how many there are.
        desc: what is done, such as `reading photos`.
        unit: what is counted, in the singular.
    """

    def __init__(self, items: Iterable[Any] | None = None, *, total: int | None = None, desc: str, unit: str) -> None:
        super().__init__(items, total=total, desc=desc, unit=unit, delay=2, leave=False, disable=None)
        # tqdm keeps neither where it is disabled, as without a terminal.
        self._words = desc, unit
        self._started = self._logged = time.monotonic()

    def __iter__(self) -> Iterator[Any]:
        if not self.disable:
            yield from super().__iter__()
            return
        for item in self.iterable:
            yield item
            self.update()

    def update(self, n: float | None = 1) -> bool | None:
        if not self.disable:
            return super().update(n)
        self.n += n or 0
        now = time.monotonic()
        if now - self._logged >= LINE_EVERY_S:
            self._logged = now
            self._log(now - self._started)
        return None

    def _log(self, elapsed_s: float) -> None:
        desc, unit = self._words
        units = f"{unit}es" if unit.endswith("ch") else f"{unit}s"
        if self.total:
            left_s = elapsed_s * (self.total - self.n) / max(self.n, 1)
            log.info("%s: %d of %d %s, %.0f s, some %.0f s left", desc, self.n, self.total, units, elapsed_s, left_s)
        else:
            log.info("%s: %d %s, %.0f s", desc, self.n, units, elapsed_s)
