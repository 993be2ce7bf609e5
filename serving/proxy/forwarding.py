"""What happens to a request, whichever protocol carries it: stable responds, or the canary with stable behind it.

No request is lost to the canary: where it returns an error, or nothing in time, stable responds.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from serving.proxy.plan import SPLIT, Board, Plan
from serving.proxy.predictions import Prediction, digest_all, estimate_drop

_MAX_SHADOWS = 64
_NUM_CAREFUL = 40
"""So many requests go to the canary one at a time at first: if it is slow or fails, little load has gone to it."""


@dataclass(frozen=True)
class Result:
    """What a server returned.

    Attributes:
        response: as the protocol has it.
        is_ok: it is no error.
        is_fault: it is an error of the server, not of the request.
        read: reads the predictions in it.
    """

    response: Any
    is_ok: bool
    is_fault: bool
    read: Callable[[], list[Prediction]]


@dataclass(frozen=True)
class _Timed:
    result: Result
    latency_ms: float
    is_late: bool

    @property
    def is_ok(self) -> bool:
        return self.result.is_ok


_LATE = Result(None, False, True, list)

Call = Callable[[int | None], Awaitable[Result]]
"""Sends the request to a version, or to the one with the label stable, `None`."""


class Forwarder:
    """Send requests on, as the plan says."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self._shadows: set[asyncio.Task[None]] = set()

    async def forward(self, call: Call, photos: Callable[[], list[str]], *, left_s: float | None = None) -> Any:
        """Return the response to a request.

        Args:
            call: sends it; errors of the server are results, too.
            photos: reads the SHA-256 of each photo in it.
            left_s: until the client's deadline; `None` without. In split the canary has half of it, stable the rest.
        """
        plan = self.board.plan
        found = photos() if plan else []
        if not plan or not found:
            return (await call(None)).response
        if plan.mode == SPLIT:
            limit_s = plan.timeout_s if left_s is None else min(plan.timeout_s, left_s / 2)
            with self._timing(plan) as is_timed:
                return (await self._split(plan, call, found, limit_s, is_timed)).response
        limit_s = plan.timeout_s if left_s is None else min(plan.timeout_s, left_s)
        return (await self._shadow(plan, call, found, limit_s)).response

    async def close(self) -> None:
        """End what is compared for nobody."""
        for task in self._shadows:
            task.cancel()
        await asyncio.gather(*self._shadows, return_exceptions=True)

    async def _split(self, plan: Plan, call: Call, photos: Sequence[str], limit_s: float, is_timed: bool) -> Result:
        if not plan.goes_to_canary(digest_all(photos)):
            stable = await _time(call(plan.stable), limit_s)
            if stable.is_ok or stable.result.is_fault:
                self._note(plan, photos, stable, None, is_timed)
            return stable.result
        canary = await _end(_time(call(plan.canary), limit_s), limit_s)
        if canary.is_ok:
            self._note(plan, photos, None, canary, is_timed)
            return canary.result
        stable = await _time(call(plan.stable), limit_s)
        # A request that both refuse is at fault itself. A server that is down counts for either version, as drawn.
        if stable.is_ok or canary.result.is_fault:
            self._note(plan, photos, None, canary, is_timed)
        return stable.result

    async def _shadow(self, plan: Plan, call: Call, photos: Sequence[str], limit_s: float) -> Result:
        is_careful = self.board.num_compared < _NUM_CAREFUL
        if len(self._shadows) >= (1 if is_careful else _MAX_SHADOWS):
            self.board.num_skipped += not is_careful
            return await call(plan.stable)
        self.board.num_compared += 1
        # Whoever comes first may be faster or slower: both are first equally often. Both take the same steps
        # of the event loop: with its limit inside, the canary would always come second, and wait once more at its end.
        versions = random.sample([("stable", plan.stable), ("canary", plan.canary)], 2)
        running = {name: asyncio.create_task(_time(call(version), limit_s)) for name, version in versions}
        comparing = asyncio.create_task(
            self._compare(plan, photos, running["stable"], _end(running["canary"], limit_s))
        )
        self._shadows.add(comparing)
        comparing.add_done_callback(self._shadows.discard)
        return (await asyncio.shield(running["stable"])).result  # it is compared, too, where the client has gone

    async def _compare(
        self, plan: Plan, photos: Sequence[str], stable: Awaitable[_Timed], canary: Awaitable[_Timed]
    ) -> None:
        with self._timing(plan) as is_timed:
            in_time = await canary  # first, as it has a limit
            both = await stable, in_time
        if any(timed.is_ok for timed in both):
            self._note(plan, photos, *both, is_timed)

    @contextmanager
    def _timing(self, plan: Plan) -> Iterator[bool]:
        """Yield whether a request is timed: one at a time, as a pause of the server is slow for all at work at once."""
        is_timed = self.board.is_warm and not self.board.is_timing and plan == self.board.plan
        self.board.is_timing |= is_timed
        try:
            yield is_timed
        finally:
            self.board.is_timing &= not is_timed

    def _note(
        self, plan: Plan, photos: Sequence[str], stable: _Timed | None, canary: _Timed | None, is_timed: bool
    ) -> None:
        """Keep what there is to compare: one observation for each photo.

        In split only the first photo of a request: all of them go to one version, so that alike ones, as of a folder
        of one class, would count as if each had been drawn on its own.
        """
        self.board.is_warm |= canary is not None and canary.is_ok and plan == self.board.plan
        rows = zip(photos, _read(stable, len(photos)), _read(canary, len(photos)), strict=True)
        for number, (photo, before, after) in enumerate(islice(rows, 1 if plan.mode == SPLIT else None)):
            if number and ((stable and not before) or (canary and not after)):
                return  # a request fails once
            seen = {
                "photo": photo,
                "stable": stable and _describe(stable, before, is_timed=is_timed and number == 0),
                "canary": canary and _describe(canary, after, is_timed=is_timed and number == 0),
                "estimated_drop": estimate_drop(before, after) if before and after else None,
            }
            self.board.add(plan, seen)


async def _time(call: Awaitable[Result], limit_s: float) -> _Timed:
    """Return a result; one that takes longer is late, whichever version it is of."""
    start_s = time.perf_counter()
    result = await call
    latency_s = time.perf_counter() - start_s
    return _Timed(result, latency_s * 1000, latency_s >= limit_s)


async def _end(timing: Awaitable[_Timed], limit_s: float) -> _Timed:
    """Return what comes in time, and end what does not."""
    try:
        return await asyncio.wait_for(timing, limit_s)
    except asyncio.TimeoutError:
        return _Timed(_LATE, limit_s * 1000, True)


def _read(timed: _Timed | None, num_photos: int) -> list[Prediction | None]:
    predictions = timed.result.read() if timed and timed.is_ok and not timed.is_late else []
    return [*predictions] if len(predictions) == num_photos else [None] * num_photos


def _describe(timed: _Timed, prediction: Prediction | None, *, is_timed: bool) -> dict[str, Any]:
    return {
        "label": prediction and prediction.label,
        "probability": prediction and prediction.probabilities[prediction.label],
        "is_known": prediction and prediction.is_known,
        "latency_ms": round(timed.latency_ms, 3) if is_timed else None,
        "failed": prediction is None,
    }
