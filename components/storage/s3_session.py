"""HTTP for `s3://`, imported where such a URL is used: as aiobotocore's own, but no upload waits for ever.

aiohttp's timeout begins when a request has been sent. Before that it waits without end for "100 Continue", which
botocore asks for with every upload, and for a server that has stopped reading.
"""

import socket
from typing import Any

from aiobotocore.httpsession import AIOHTTPSession


class Session(AIOHTTPSession):
    """Sends requests without waiting for "100 Continue"; the header is none of those that are signed."""

    async def send(self, request: Any) -> Any:
        request.headers.pop("Expect", None)
        return await super().send(request)


def open_socket(address: Any, *, timeout_s: float) -> socket.socket:
    """Open a socket that fails where nothing that is sent is taken for so long; Linux alone has this option."""
    family, kind, protocol, *_ = address
    opened = socket.socket(family, kind, protocol)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout_s * 1000))
    return opened
