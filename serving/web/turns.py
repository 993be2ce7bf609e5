"""Whose photo is next: clients take turns, and none can keep all workers busy."""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from serving.web.errors import RequestError

SLOW_S = 0.5
"""A photo that takes more processor time to decode makes its client slow for a while. A camera's takes a tenth."""

_SLOW_FOR_S = 60
_MAX_SLOW_CLIENTS = 10_000
_RETRY_S = 2


class Turns:
    """Lets a bounded number of photos be worked on, the others wait, and the clients that wait take turns.

    Slow clients come after the others, and leave one worker free for those, where there is more than one. When all
    that may wait are waiting, the client that has most of them loses one to a client that has fewer.

    Args:
        num_at_once: photos that are worked on.
        max_at_work: photos that are worked on or wait.
        clock: returns seconds.
    """

    def __init__(self, num_at_once: int, max_at_work: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._num_at_once = num_at_once
        self._max_at_work = max_at_work
        self._clock = clock
        self._num_running = 0
        self._num_running_slow = 0
        # The client whose turn is next comes first.
        self._waiting: OrderedDict[str, deque[asyncio.Future[bool]]] = OrderedDict()
        self._slow_until: OrderedDict[str, float] = OrderedDict()

    @property
    def num_at_work(self) -> int:
        """Return the number of photos that are worked on or wait."""
        return self._num_running + sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def take(self, client: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it for as long as the block lasts.

        Raises:
            RequestError: too many photos wait.
        """
        is_slow = await self._wait(client)
        try:
            yield
        finally:
            self._leave(is_slow)

    def note(self, client: str, decoding_s: float) -> None:
        """Note the processor time that a client's photo took to decode."""
        if decoding_s < SLOW_S:
            return
        self._slow_until[client] = self._clock() + _SLOW_FOR_S
        self._slow_until.move_to_end(client)
        if len(self._slow_until) > _MAX_SLOW_CLIENTS:
            self._slow_until.popitem(last=False)

    async def _wait(self, client: str) -> bool:
        """Return, when it is the client's turn, whether it counts as slow."""
        if self.num_at_work >= self._max_at_work:
            self._make_room(client)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(turn)
        self._start()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and not turn.exception():
                self._leave(turn.result())
            else:
                self._drop(client, turn)
            raise

    def _leave(self, is_slow: bool) -> None:
        self._num_running -= 1
        self._num_running_slow -= is_slow
        self._start()

    def _start(self) -> None:
        """Give turns to those who wait, as many as there are."""
        while self._num_running < self._num_at_once and (found := self._find_next()):
            client, is_slow = found
            turn = self._waiting[client].popleft()
            self._waiting.move_to_end(client)
            if not self._waiting[client]:
                del self._waiting[client]
            self._num_running += 1
            self._num_running_slow += is_slow
            turn.set_result(is_slow)

    def _find_next(self) -> tuple[str, bool] | None:
        slow = None
        for client in self._waiting:
            if not self._is_slow(client):
                return client, False
            slow = slow or client
        max_slow = max(1, self._num_at_once - 1)
        return (slow, True) if slow is not None and self._num_running_slow < max_slow else None

    def _is_slow(self, client: str) -> bool:
        return self._slow_until.get(client, 0.0) > self._clock()

    def _make_room(self, client: str) -> None:
        """Take a place from the client that has most, for one that would have fewer even then."""
        refused = RequestError(
            503,
            f"Everybody is asking at once, and no more than {self._max_at_work} photos can be at work.",
            retry_after_s=_RETRY_S,
        )
        largest = max(self._waiting, key=self._count, default=client)
        if self._count(largest) < self._count(client) + 2:
            raise refused
        turn = self._waiting[largest][-1]
        self._drop(largest, turn)
        turn.set_exception(refused)

    def _count(self, client: str) -> int:
        return len(self._waiting.get(client, ())) + self._is_slow(client)

    def _drop(self, client: str, turn: "asyncio.Future[bool]") -> None:
        turns = self._waiting.get(client)
        if turns and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[client]
