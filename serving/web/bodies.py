"""The memory that photos take between their first byte and their prediction: bounded, over all requests."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from serving.web.errors import RequestError

_RETRY_S = 2


class Bodies:
    """Counts the bytes that requests have sent and that are still in memory.

    Where there are too many, the client that has most loses the largest of its requests that are still arriving.

    Args:
        max_bytes: of all requests.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bodies: set[Body] = set()

    @contextmanager
    def hold(self, client: str) -> Iterator["Body"]:
        """Count a request's bytes for as long as the block lasts."""
        body = Body(client, self)
        self._bodies.add(body)
        try:
            yield body
        finally:
            self._bodies.discard(body)

    def make_room(self) -> None:
        """Refuse requests until all fit."""
        while sum(body.num_bytes for body in self._bodies) > self._max_bytes:
            by_client: Counter[str] = Counter()
            for body in self._bodies:
                by_client[body.client] += body.num_bytes
            arriving = [body for body in self._bodies if body.is_arriving and body.num_bytes]
            if not arriving:
                return
            max(arriving, key=lambda body: (by_client[body.client], body.num_bytes)).refuse()


class Body:
    """What a request has sent.

    Attributes:
        client: who sends it.
        num_bytes: in memory.
        is_arriving: whether more is expected: what is being classified cannot be refused.
        refused: has an exception as soon as the request must end.
    """

    def __init__(self, client: str, bodies: Bodies) -> None:
        self.client = client
        self.num_bytes = 0
        self.is_arriving = False
        self.refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._bodies = bodies

    def hold(self, num_bytes: int) -> None:
        """Count the bytes that are in memory now, after more arrived.

        Raises:
            RequestError: there are too many, and this client has most of them.
        """
        self.num_bytes = num_bytes
        self.is_arriving = True
        self._bodies.make_room()
        self.is_arriving = False
        self.check()

    def check(self) -> None:
        """Raise the error of a request that must end."""
        if self.refused.done():
            self.refused.result()

    def release(self) -> None:
        """Count nothing: what arrived is no longer in memory."""
        self.num_bytes = 0

    def refuse(self) -> None:
        """End the request."""
        self.num_bytes, self.is_arriving = 0, False
        error = RequestError(503, "More photos are on their way than there is memory for.", retry_after_s=_RETRY_S)
        if not self.refused.done():
            self.refused.set_exception(error)
            self.refused.exception()  # Whether anybody looks at it or not.
