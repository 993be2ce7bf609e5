"""Requests over HTTP whose responses end: in time, whatever the pace of their bytes, and at a size.

The library's own timeout starts anew with every byte, and its sizes have no limit.
"""

import io
import os
import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from .answers import MAX_RESPONSE_BYTES
from .connection import ConnectionOptions, check_certificates, is_this_machine

_CHUNK_BYTES = 1 << 16
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
Unavailable = (requests.ConnectionError, urllib3.exceptions.ProtocolError, urllib3.exceptions.SSLError)
"""The connection failed."""
Late = (requests.Timeout, urllib3.exceptions.TimeoutError)
"""It took too long. Some are connection errors too: catch them first."""
Malformed = (requests.RequestException, urllib3.exceptions.HTTPError, UnicodeError)
"""All else that goes wrong."""


class TooLongError(Exception):
    """A response has more than `MAX_RESPONSE_BYTES`."""


class Session:
    """Connections to one server, kept for the next request.

    Args:
        target: `host:port`.
        options: how the server is called.

    Raises:
        ValueError: the environment names a file of certificates that holds none.
    """

    def __init__(self, target: str, options: ConnectionOptions) -> None:
        self._options = options
        self._session = requests.Session()
        self._session.trust_env = not is_this_machine(target)
        self._session.auth = self._add_token
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # What is sent as it is cannot swell.
        self._session.headers["Accept-Encoding"] = "identity"
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter())
        self._verify: str | None = str(options.ca_file) if options.ca_file else None
        if options.tls and not options.ca_file and self._session.trust_env:
            for name in _BUNDLES:
                if bundle := os.environ.get(name):
                    check_certificates(name, bundle)
                    break

    def request(self, method: str, url: str, body: Any = None) -> tuple[requests.Response, bytes]:
        """Send a request with a JSON body; return the response and its content.

        Raises:
            TooLongError: the response has no end that is near.
            Exception: one of `Late`, `Unavailable` or `Malformed`.
        """
        with self._session.request(
            method,
            url,
            json=body,
            timeout=self._options.timeout_s,
            verify=self._verify,  # Here, because the environment goes before the session's own.
            allow_redirects=False,
            stream=True,
        ) as response:
            content = bytearray()
            while chunk := response.raw.read(_CHUNK_BYTES, decode_content=False):
                content += chunk
                if len(content) > MAX_RESPONSE_BYTES:
                    raise TooLongError
            return response, bytes(content)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _add_token(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # As the session's `auth`, so that no ~/.netrc replaces it.
        if self._options.token:
            request.headers["Authorization"] = f"Bearer {self._options.token}"
        return request


def parse_retry_after(text: str) -> float | None:
    """Return how many seconds a `Retry-After` means, a number or a date; `None` where it is neither."""
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        zone = date.tzinfo or timezone.utc
        return max((date.replace(tzinfo=zone) - datetime.now(timezone.utc)).total_seconds(), 0)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


class _Timed(io.RawIOBase):
    """The bytes of a connection until the timeout of its socket has passed once, from now on."""

    def __init__(self, sock: Any, raw: io.RawIOBase) -> None:
        self._sock = sock
        self._raw = raw
        timeout_s = sock.gettimeout()
        self._end_s = None if timeout_s is None else time.monotonic() + timeout_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        if self._end_s is not None:
            left_s = self._end_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("timed out")
            self._sock.settimeout(left_s)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_Timed(sock, self.fp.detach()))

    def begin(self) -> None:
        super().begin()
        # The library refuses it too, and then leaves the connection open.
        if "," in ",".join(self.headers.get_all("Content-Length", ())):
            raise HTTPException("it names several lengths")


class _Connection(HTTPConnection):
    response_class = _Response


class _TlsConnection(HTTPSConnection):
    response_class = _Response


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    _pools = {"http": _Pool, "https": _TlsPool}  # noqa: RUF012

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = self._pools
        return manager
