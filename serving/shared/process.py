"""Bind a port, and end the process in time."""

import errno
import logging
import os
import socket
import threading
import time
from contextlib import suppress

log = logging.getLogger(__name__)

GRACE_S = 7.0
"""What was accepted gets so long to finish, and all of ending stays under the ten seconds that Docker gives."""

_END_S = 9.5
_MAX_FILES = 10_000


def bracket(host: str) -> str:
    """Return a host as it is written in a URL: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def take_port(host: str, port: int) -> socket.socket:
    """Bind a port; the caller listens on it, or closes it. Of all addresses (`0.0.0.0`), those of IPv6 are a part.

    Raises:
        OSError: the port is taken, or the host is no address of this machine.
    """
    if host == "0.0.0.0" and socket.has_dualstack_ipv6():
        try:
            return _bind("::", port)
        except OSError as exc:
            if exc.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return _bind(host, port)


def _bind(host: str, port: int) -> socket.socket:
    # Named as TCP, or asyncio leaves Nagle's algorithm on, and responses wait 40 ms for a client's acknowledgement.
    taken = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if taken.family == socket.AF_INET6:
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
    try:
        taken.bind((host, port))
    except OSError:
        taken.close()
        raise
    return taken


def raise_file_limit() -> None:
    """Let the process have as many connections as the system allows it; by default, the shell's limit is lower."""
    try:
        import resource
    except ImportError:
        return  # Windows has no such limit.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # macOS allows less than it says.
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def end_in_time() -> None:
    """End the process after a while, even where a thread goes on: a model's operation cannot be interrupted."""

    def end() -> None:
        time.sleep(_END_S)
        log.error("ending with requests unfinished")
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
