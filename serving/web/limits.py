"""Limit the requests that each client has in progress, and its rate."""

import ipaddress
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serving.web.errors import RequestError

_MAX_CLIENTS = 10_000
# A provider assigns a whole network of this length to one person (RFC 6177).
_IPV6_PREFIX = 64
_RETRY_S = 1


class Gate:
    """Lets a bounded number of requests of each client in.

    Args:
        size: the number of requests of a client.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._inside: Counter[str] = Counter()

    @property
    def num_inside(self) -> int:
        """Return the number of requests of all clients."""
        return self._inside.total()

    @contextmanager
    def enter(self, client: str) -> Iterator[None]:
        """Count as inside for as long as the block lasts.

        Raises:
            RequestError: the client has enough of them inside.
        """
        if self._inside[client] >= self._size:
            raise RequestError(
                429,
                f"No more than {self._size} requests of one address can be in progress at once.",
                retry_after_s=_RETRY_S,
            )
        self._inside[client] += 1
        try:
            yield
        finally:
            self._inside[client] -= 1
            if not self._inside[client]:
                del self._inside[client]


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
                f"That was many photos in a short time: {self._per_s * 60:.0f} a minute are looked at.",
                retry_after_s=wait_s,
            )

    def take(self, client: str, num_photos: int = 1) -> None:
        """Count photos."""
        self._fill(client).photos_left -= num_photos

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
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped  # Of a socket that listens on all addresses (RFC 4291, 2.5.5.2).
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
