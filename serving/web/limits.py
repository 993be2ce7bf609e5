"""Limit the number of requests in progress, and the rate of each client."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serving.web.errors import RequestError

_MAX_CLIENTS = 10_000
# A provider assigns a whole network of this length to one person (RFC 6177).
_IPV6_PREFIX = 64
_RETRY_S = 2


class Gate:
    """Lets a bounded number of requests in.

    Args:
        size: the number of requests.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.num_inside = 0

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Count as inside for as long as the block lasts.

        Raises:
            RequestError: it is full.
        """
        if self.num_inside >= self._size:
            raise RequestError(
                503,
                f"Everybody is asking at once, and no more than {self._size} can be at work. Try again in a moment.",
                retry_after_s=_RETRY_S,
            )
        self.num_inside += 1
        try:
            yield
        finally:
            self.num_inside -= 1


@dataclass
class _Bucket:
    photos_left: float
    filled_s: float


class RateLimiter:
    """Counts the photos of each client: a bucket that fills steadily, and that a photo takes one out of.

    A request is let in while there is anything in the bucket, and may overdraw it: so no request is refused halfway.

    Args:
        per_minute: photos that it fills with.
        burst: photos that it holds.
        clock: returns seconds.
    """

    def __init__(self, *, per_minute: int, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_minute / 60
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def check(self, client: str) -> None:
        """Let a client in.

        Raises:
            RequestError: its bucket is empty.
        """
        bucket = self._fill(client)
        if bucket.photos_left < 1:
            wait_s = math.ceil((1 - bucket.photos_left) / self._per_s)
            raise RequestError(
                429,
                f"That was many photos in a short time: {self._per_s * 60:.0f} a minute are looked at. "
                f"Try again in {wait_s} {'second' if wait_s == 1 else 'seconds'}.",
                retry_after_s=wait_s,
            )

    def take(self, client: str) -> None:
        """Count a photo."""
        self._fill(client).photos_left -= 1

    def _fill(self, client: str) -> _Bucket:
        now_s = self._clock()
        bucket = self._buckets.setdefault(client, _Bucket(self._burst, now_s))
        self._buckets.move_to_end(client)
        bucket.photos_left = min(self._burst, bucket.photos_left + (now_s - bucket.filled_s) * self._per_s)
        bucket.filled_s = now_s
        if len(self._buckets) > _MAX_CLIENTS:
            self._buckets.popitem(last=False)  # Who was not seen for longest has a full bucket, most likely.
        return bucket


def name_client(host: str) -> str:
    """Return what counts as one client: an IPv4 address, or an IPv6 network; anything else counts as it is."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return host
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
