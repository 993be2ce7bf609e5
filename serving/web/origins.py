"""Refuse what a foreign page makes a visitor's browser send.

A page of another site may post a form here, and so spend the visitor's quota; and its own name may turn into this
service's address after it was loaded (DNS rebinding), which makes the two one origin for the browser. Programs that
are no browser send what they like, and nothing here stops them.
"""

import ipaddress
from collections.abc import Awaitable, Callable, Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.web.errors import RequestError
from serving.web.settings import ANY_HOST, HOST

# Names that nobody can register, and so nobody can point at this service from outside (RFC 6761, 6762 and 8375; ICANN
# reserved `internal` in 2024, and `svc` is Kubernetes' own).
_PRIVATE = (".localhost", ".local", ".internal", ".home.arpa", ".svc")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_OWN_SITE = frozenset({"same-origin", "none"})


class Origins:
    """Refuses requests for other hosts, and those that another site's page sends.

    Args:
        app: responds to the other requests.
        allowed_hosts: names that the service is called by, besides addresses, names without a dot, and names that
            cannot be registered; `ANY_HOST` admits every name.
        respond_to_error: responds to a request that is refused.
    """

    def __init__(
        self,
        app: ASGIApp,
        allowed_hosts: Iterable[str],
        respond_to_error: Callable[[Request, Exception], Awaitable[Response]],
    ) -> None:
        self._app = app
        self._allowed = {_read_host(host) for host in allowed_hosts if host != ANY_HOST}
        self._allows_any = ANY_HOST in allowed_hosts
        self._respond_to_error = respond_to_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            try:
                self._check(request)
            except RequestError as exc:
                response = await self._respond_to_error(request, exc)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, request: Request) -> None:
        hosts = request.headers.getlist("host")
        if len(hosts) > 1:
            raise RequestError(400, "A request names one host, and this one names several. Send it with one.")
        host = "".join(hosts)
        if not self._knows(host):
            raise RequestError(
                421,
                "This service is not known by that name. Use its address, or start it with --allowed-host NAME.",
            )
        if request.method not in _SAFE_METHODS and self._is_foreign(request, host):
            raise RequestError(403, "Photos are not taken from pages of other sites. Open this service's own page.")

    def _knows(self, host: str) -> bool:
        """Return whether a request may be for a host. A browser always names one."""
        if not host or self._allows_any:
            return True
        name = _read_host(host)
        return bool(name) and (name in self._allowed or "." not in name or name.endswith(_PRIVATE) or _is_address(name))

    def _is_foreign(self, request: Request, host: str) -> bool:
        """Return whether another site's page sends a request.

        A browser says so in `Sec-Fetch-Site`, but not over plain HTTP to another machine; there it names the `Origin`.
        Go's `http.CrossOriginProtection` has the same rules.
        """
        site = request.headers.get("sec-fetch-site", "")
        if site:
            return site not in _OWN_SITE
        origin = request.headers.get("origin")
        if origin is None:
            return False
        own = origin.partition("://")[2].lower()  # Empty where the origin is "null", as in a sandboxed frame.
        return own != host.lower() and _read_host(own) not in self._allowed


def _read_host(host: str) -> str:
    """Return the name or address of a `Host`, without its port; empty where it is malformed."""
    match = HOST.fullmatch(host.lower())
    return match[1].strip("[]").rstrip(".") if match else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
