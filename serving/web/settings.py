"""The options of the service."""

import re
from dataclasses import dataclass, field, fields
from pathlib import Path

from client.classifier_client.decoder_pool import DecoderLimits
from serving.shared.capture.writer import CaptureOptions

MAX_WORKERS = 64
ANY_HOST = "*"
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::[0-9]*)?", re.ASCII)
"""A `Host`: a name or an address, and perhaps a port."""

_MAX_DEFAULT_WORKERS = 16
_MIN_DEFAULT_WORKERS = 2
# Of the page itself with a model, of photos that wait, and of a spare process.
_PAGE_BYTES = 350_000_000
# Of a process without an image.
_PROCESS_BYTES = 35_000_000


@dataclass(frozen=True)
class Limits:
    """The limits of the service; see also `MAX_PIXELS` of the client's preprocessing, 25 megapixels.

    Attributes:
        max_photo_bytes: of one encoded photo.
        max_photos: in one request.
        max_at_work: photos that are worked on or wait for it; one more is refused.
        max_requests_per_client: in progress at the same time, their uploads included.
        max_waiting_bytes: of all photos that are arriving or wait.
        photos_per_minute: of one client, in the long run.
        burst_photos: of one client, at once.
        patience_s: for a client that sends nothing, and before `min_bytes_per_s` counts.
        min_bytes_per_s: a client that sends more slowly is cut off.
        max_upload_s: that a request waits for its client, in all.
    """

    max_photo_bytes: int = 10_000_000
    max_photos: int = 20
    max_at_work: int = 16
    max_requests_per_client: int = 6
    max_waiting_bytes: int = 100_000_000
    photos_per_minute: int = 240
    burst_photos: int = 60
    patience_s: float = 20
    min_bytes_per_s: int = 16_000
    max_upload_s: float = 120

    def __post_init__(self) -> None:
        for each in fields(self):
            if not getattr(self, each.name) > 0:
                raise ValueError(f"{each.name} must be above 0. Received: {getattr(self, each.name)}")

    @property
    def max_request_bytes(self) -> int:
        """Return the size that a form may have: all its photos, and 4 KB for the headers of each."""
        return self.max_photos * (self.max_photo_bytes + 4_000)


@dataclass(frozen=True)
class Settings:
    """The settings of the service.

    Attributes:
        host: the address to listen on.
        port: 0 takes a free one.
        allowed_hosts: names that the service is called by, such as a proxy's; see `origins.py`.
        threshold: a less probable prediction is not sure, 0–1.
        runs_dir: the pipeline's runs; the one that pushed the model gives the model card its numbers.
        token: callers must send it as a bearer token; `None` admits everybody.
        num_workers: photos that are decoded at the same time.
        poll_s: seconds between two checks for a newer version, or of the server.
        limits: see `Limits`.
        capture: what is kept of photos; `None` for nothing.
        runtime_dir: the LiteRT runtime for browsers, with which visitors run the model themselves; `None` lets nobody.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    allowed_hosts: tuple[str, ...] = ()
    threshold: float = 0.5
    runs_dir: Path = Path("runs")
    token: str | None = field(default=None, repr=False)
    num_workers: int = 2
    poll_s: float = 1.0
    limits: Limits = field(default_factory=Limits)
    capture: CaptureOptions | None = None
    runtime_dir: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port < 1 << 16:
            raise ValueError(f"port must be 0 to 65535. Received: {self.port}")
        for host in self.allowed_hosts:
            if host != ANY_HOST and not HOST.fullmatch(host):
                raise ValueError(
                    f"allowed_hosts must be names such as photos.example.com, or {ANY_HOST}. Received: {host}"
                )
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be 0 to 1. Received: {self.threshold}")
        if not 1 <= self.num_workers <= MAX_WORKERS:
            raise ValueError(f"num_workers must be 1 to {MAX_WORKERS}. Received: {self.num_workers}")
        if not self.poll_s > 0:
            raise ValueError(f"poll_s must be above 0. Received: {self.poll_s}")
        if self.capture is not None and not self.capture.rate > 0:
            raise ValueError(f"The share of photos that are captured must be above 0. Received: {self.capture.rate}")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token.strip()):
            raise ValueError(
                "A token must be printable ASCII without line ends. The one received is not; it is not shown."
            )


def choose_num_workers(num_processors: int, memory_bytes: int) -> int:
    """Return how many photos may be decoded at once: one a processor, as far as memory allows.

    Two even on one processor, where there is memory: so a photo that takes long does not stop all others.

    Args:
        num_processors: that the page may use.
        memory_bytes: that the page may use, with the processes that decode.
    """
    num_in_memory = (memory_bytes - _PAGE_BYTES) // (DecoderLimits().memory_bytes + _PROCESS_BYTES)
    wanted = min(max(num_processors, _MIN_DEFAULT_WORKERS), _MAX_DEFAULT_WORKERS)
    return max(1, min(wanted, num_in_memory))
