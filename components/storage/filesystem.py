"""The file system of fsspec that a URL is on, how long it may be silent, and how often a call is tried again.

The libraries below try again, too, each in a way of its own, and their numbers multiply: a server that accepts
connections and never responds was given up after 15 minutes, one that stops reading an upload never. So s3fs does not
try again, botocore twice for each request, and what fails all the same is tried again here, as a whole: a file is never
put together from what was read before and after a failure.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from components.errors import StorageError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 3
SILENCE_TIMEOUT_S = 20
"""A connection on which nothing comes, or nothing that is sent is taken, for so long has failed."""
PATIENCE_S = 60.0
"""After its first failure a call is tried again for so long."""

_NUM_RETRIES = 2
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 15.0
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
# Connections that broke, and responses that broke off: by name, as each service's packages are imported on demand.
_BROKEN = {"HTTPClientError", "ClientPayloadError", "ServerDisconnectedError", "ResponseParserError"}
# Two conditional writes at once, of which S3 decides neither; a body that came too slowly.
_PASSING_CODES = {"ConditionalRequestConflict", "OperationAborted", "RequestTimeout"}

Result = TypeVar("Result")


def open_filesystem(url: str) -> tuple[Any, str]:
    """Return the file system of fsspec that a URL is on, and its path there.

    Raises:
        StorageError: the package for this kind of URL is not installed, or there is none.
    """
    kind = url.partition("://")[0]
    package = _PACKAGES.get(kind, "fsspec and the package for it")
    # Without this, Google's package asks what kind each bucket is, which takes a permission of its own.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    try:
        import fsspec

        fsspec.get_filesystem_class(kind)
    except ImportError as exc:
        raise StorageError(f"{kind}:// needs {package}, which is not installed. Run: make scale") from exc
    except ValueError as exc:
        raise StorageError(f"No store is known for {kind}://. Received: {url}. Use s3:// or gs://.") from exc
    # Other machines write there, too, so an earlier listing is not what is there now.
    files, root = fsspec.core.url_to_fs(url, use_listings_cache=False, **_options(package))
    return limit_attempts(files), root


def limit_attempts(files: Any) -> Any:
    """Return a file system that leaves trying again to `attempt`; call it anew in another process."""
    if hasattr(files, "retries"):  # of s3fs
        files.retries = 1
    return files


def attempt(call: Callable[[], Result], name: str) -> Result:
    """Call, and again where what failed may pass, until `PATIENCE_S` after the first failure.

    Args:
        call: can be repeated, whether or not it did what it should before it failed.
        name: of what is called, for the log.
    """
    give_up_s = None
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            return call()
        except Exception as exc:  # each service raises what its own libraries raise
            now_s = time.monotonic()
            give_up_s = give_up_s or now_s + PATIENCE_S
            # The random part keeps many callers from coming back at the same moment.
            pause_s = random.uniform(wait_s / 2, wait_s)
            if not may_pass(exc) or now_s + pause_s > give_up_s:
                raise
            log.warning("%s: %s; tried again in %.1f s", name, describe(exc), pause_s)
        time.sleep(pause_s)
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def may_pass(exc: BaseException) -> bool:
    """Return whether a call that failed may succeed soon: the store is busy, or the connection broke.

    Not where nobody listens at all: that is said at once, as the address may be wrong.
    """
    for link in _chain(exc):
        response = getattr(link, "response", None)
        if isinstance(response, dict):  # of botocore's ClientError
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return status >= 500 or status == 429 or response.get("Error", {}).get("Code") in _PASSING_CODES
        if isinstance(link, ConnectionError | asyncio.TimeoutError | TimeoutError):
            return True
        if _BROKEN & {kind.__name__ for kind in type(link).__mro__}:
            return True
    return False


def describe(exc: BaseException) -> str:
    """Return the reason of a failure, as a part of a sentence."""
    is_silent = isinstance(exc, asyncio.TimeoutError) or type(exc).__name__ == "ReadTimeoutError"
    return "no response in time" if is_silent else f"{type(exc).__name__}: {exc}".rstrip(". ")


def _chain(exc: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = exc
    while link is not None:
        yield link
        link = link.__cause__


def _options(package: str) -> dict[str, Any]:
    """Return the limits as each package has them. Addresses and credentials are the libraries' own settings."""
    if package == "s3fs":
        from components.storage.s3_session import Session, open_socket

        return {
            # One request a file: parts of a large one, read by several, may be of two versions of it.
            "max_concurrency": 1,
            "config_kwargs": {
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": SILENCE_TIMEOUT_S,
                "retries": {"mode": "standard", "max_attempts": _NUM_RETRIES},
                "connector_args": {"socket_factory": partial(open_socket, timeout_s=SILENCE_TIMEOUT_S)},
                "http_session_cls": Session,
            },
        }
    if package == "gcsfs":
        import aiohttp

        limits = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S)
        return {"requests_timeout": limits}
    return {"auto_mkdir": True}
