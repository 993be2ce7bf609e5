"""What REST and gRPC share: the options of a call, and retries."""

import os
import random
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..errors import ServerError, UnavailableError

TOKEN_VARIABLE = "CLASSIFIER_TOKEN"
"""In the environment: the token that commands send to a server."""

T = TypeVar("T")

_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 5.0
_LONGEST_RETRY_AFTER_S = 30.0
_LONGEST_TIMEOUT_S = 24 * 60 * 60.0  # Sockets take no number of any size.
_ADDRESS = re.compile(r"(?P<host>[^\s/:@?#]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})")
_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class ConnectionOptions:
    """How a server is called.

    Attributes:
        timeout_s: for each attempt of each call, up to a day; over REST, for connecting, for sending and for the
            whole response, each.
        num_retries: further attempts, only where the server cannot be reached, reports that it is overloaded or
            names the time for another one.
        tls: encrypt, and check the server's certificate.
        ca_file: PEM certificates that vouch for the server instead of the system's; with `tls`.
        token: a bearer token, sent along with every call.
    """

    timeout_s: float = 10.0
    num_retries: int = 3
    tls: bool = False
    ca_file: Path | None = None
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s <= _LONGEST_TIMEOUT_S:
            raise ValueError(f"timeout_s must be above 0 and at most a day. Received: {self.timeout_s}")
        if self.num_retries < 0:
            raise ValueError(f"num_retries must be at least 0. Received: {self.num_retries}")
        if self.ca_file and not self.tls:
            raise ValueError(f"A ca_file is for TLS, and tls is off. Received: {self.ca_file}. Turn tls on.")
        if self.ca_file:
            check_certificates("ca_file", self.ca_file)
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token.strip()):
            raise ValueError(
                "A token must be printable ASCII without line ends. The one received is not; it is not shown."
            )


def check_target(target: str) -> str:
    """Return a target that is `host:port`.

    Raises:
        ValueError: it is something else.
    """
    match = _ADDRESS.fullmatch(target)
    if not match or int(match["port"]) >= 1 << 16:
        raise ValueError(f"A server's address is HOST:PORT, such as localhost:8501. Received: {target!r}")
    return target


def is_this_machine(target: str) -> bool:
    """Return whether a target is on this machine, which no proxy of the environment leads to."""
    return target.startswith(tuple(f"{host}:" for host in _THIS_MACHINE))


def check_certificates(name: str, path: str | os.PathLike[str]) -> None:
    """Check that a file holds certificates, or that a folder of them is there.

    Raises:
        ValueError: it does not.
    """
    try:
        if not os.path.isdir(path):  # noqa: PTH112 (takes names of any length)
            ssl.create_default_context(cafile=path)
    except OSError as exc:  # SSLError is one.
        reason = f"There is none at {path}" if isinstance(exc, FileNotFoundError) else f"{path}: {exc}"
        raise ValueError(f"{name} must be a file of PEM certificates. {reason}.") from exc


def retry(call: Callable[[], T], num_retries: int) -> T:
    """Call until the server is available: each wait is about twice the one before, and partly random.

    The random part keeps many clients from coming back at the same moment. A wait is longer where the server says
    so, and where it is to be longer than half a minute there is no further attempt.
    """
    for attempt in range(num_retries):
        try:
            return call()
        except ServerError as exc:
            named_s = exc.retry_after_s
            if (named_s is None and not isinstance(exc, UnavailableError)) or (named_s or 0) > _LONGEST_RETRY_AFTER_S:
                raise
            longest = min(_FIRST_WAIT_S * 2**attempt, _LONGEST_WAIT_S)
            time.sleep((named_s or 0) + random.uniform(longest / 2, longest))
    return call()
