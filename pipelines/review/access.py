"""Who may review: everybody on this machine, and elsewhere those who have the token, which a cookie keeps."""

import hashlib

from starlette.requests import Request
from starlette.responses import Response

from serving.web.errors import RequestError
from serving.web.limits import RateLimiter, name_client
from serving.web.tokens import is_right, read_bearer

_COOKIE = "review_token"
_TRIES_A_MINUTE = 20
_MAX_TOKEN_BYTES = 1000


class Access:
    """Admits requests.

    Args:
        token: that they must have, in a cookie or as a bearer token; `None` admits all.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._tries = RateLimiter(per_minute=_TRIES_A_MINUTE, burst=_TRIES_A_MINUTE)

    @property
    def is_open(self) -> bool:
        return self._token is None

    def check(self, request: Request) -> None:
        """Admit a request.

        Raises:
            RequestError: it has no token, or another one, or its client tried too many.
        """
        if self._token is None or is_right(request.cookies.get(_COOKIE, ""), _digest(self._token)):
            return
        self._check(request, read_bearer(request))

    async def enter(self, request: Request) -> Response:
        """Take a token, the whole body, and keep it in a cookie that no script can read."""
        content = b""
        async for part in request.stream():
            content += part
            if len(content) > _MAX_TOKEN_BYTES:
                raise RequestError(413, "A token is shorter.")
        given = content.decode("utf-8", "replace").strip()
        self._check(request, given)
        is_secure = request.url.scheme == "https"
        response = Response(status_code=204)
        response.set_cookie(_COOKIE, _digest(given), httponly=True, samesite="strict", secure=is_secure)
        return response

    def _check(self, request: Request, given: str) -> None:
        if self._token is None:
            return
        client = name_client(request.client.host if request.client else "")
        self._tries.check(client)
        if not is_right(given, self._token):
            if given:
                self._tries.take(client)
            raise RequestError(401, "Photos are shown to those who have the access token. Enter it.")


def _digest(token: str) -> str:
    return hashlib.sha256(f"review {token}".encode()).hexdigest()
