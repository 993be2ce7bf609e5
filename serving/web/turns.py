"""Whose photo is next: clients take turns, and none can keep all workers busy."""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from serving.web.errors import RequestError

SLOW_S = 0.5
"""A photo that takes more processor time to decode makes its client slow for a while. A camera's takes a tenth."""

_SEEN_FOR_S = 60
_MAX_CLIENTS = 10_000
_RETRY_S = 2


class Turns:
    """Lets a bounded number of photos be worked on, the others wait, and the clients that wait take turns.

    Where there is more than one worker, one is kept for clients whose photos were quick before: strangers and slow
    clients together cannot have it. Slow ones come last. When all that may wait are waiting, the client that has most
    of them loses one to a client that has fewer.

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
        self._num_running_unproven = 0
        # The client whose turn is next comes first.
        self._waiting: OrderedDict[str, deque[asyncio.Future[bool]]] = OrderedDict()
        # Whose last photos were slow, or quick, and until when that counts.
        self._seen: OrderedDict[str, tuple[bool, float]] = OrderedDict()

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
        is_proven = await self._wait(client)
        try:
            yield
        finally:
            self._leave(is_proven)

    def note(self, client: str, decoding_s: float) -> None:
        """Note the processor time that a client's photo took to decode."""
        is_slow = decoding_s >= SLOW_S
        if self._is_slow(client) and not is_slow:
            return  # One quick photo does not make up for a slow one.
        self._seen[client] = is_slow, self._clock() + _SEEN_FOR_S
        self._seen.move_to_end(client)
        if len(self._seen) > _MAX_CLIENTS:
            self._seen.popitem(last=False)

    async def _wait(self, client: str) -> bool:
        """Return, when it is the client's turn, whether its photos were quick before."""
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

    def _leave(self, is_proven: bool) -> None:
        self._num_running -= 1
        self._num_running_unproven -= not is_proven
        self._start()

    def _start(self) -> None:
        """Give turns to those who wait, as many as there are."""
        while self._num_running < self._num_at_once and (found := self._find_next()):
            client, is_proven = found
            turn = self._waiting[client].popleft()
            self._waiting.move_to_end(client)
            if not self._waiting[client]:
                del self._waiting[client]
            self._num_running += 1
            self._num_running_unproven += not is_proven
            turn.set_result(is_proven)

    def _find_next(self) -> tuple[str, bool] | None:
        """Return a client that may have a turn now, and whether its photos were quick before."""
        is_open = self._num_running_unproven < max(1, self._num_at_once - 1)
        slow = None
        for client in self._waiting:
            is_slow = self._find_pace(client)
            if is_slow:
                slow = slow or client
            elif is_slow is False or is_open:
                return client, is_slow is False
        return (slow, False) if slow is not None and is_open else None

    def _find_pace(self, client: str) -> bool | None:
        """Return whether a client is slow; `None` of a stranger."""
        is_slow, until_s = self._seen.get(client, (False, 0.0))
        return is_slow if until_s > self._clock() else None

    def _is_slow(self, client: str) -> bool:
        return self._find_pace(client) is True

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
