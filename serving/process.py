"""What every server here does with its process: take a port, and end in time."""

import logging
import os
import socket
import threading
import time

log = logging.getLogger(__name__)

GRACE_S = 7.0
"""What was accepted gets so long to finish, and all of ending stays under the ten seconds that Docker gives."""

_END_S = 9.5


def bracket(host: str) -> str:
    """Write a host as an address has it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def take_port(host: str, port: int) -> socket.socket:
    """Bind a port; who calls listens on it, or closes it.

    Raises:
        OSError: it is taken, or the host is none of this machine.
    """
    # Named as TCP, or asyncio leaves Nagle's algorithm on, and answers wait 40 ms for a client's acknowledgement.
    taken = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
    except OSError:
        taken.close()
        raise
    return taken


def end_in_time() -> None:
    """End the process when something does not let go: a model's operation cannot be interrupted."""

    def end() -> None:
        time.sleep(_END_S)
        log.error("ending with requests unfinished")
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
