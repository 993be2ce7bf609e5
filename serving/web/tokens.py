"""The token that callers must have, where one is set."""

import hmac

from starlette.requests import Request

_BEARER = "bearer "


def is_right(token: str, expected: str | None) -> bool:
    """Return whether a token is the right one, in the same time for every wrong one; without one, any is right."""
    return expected is None or hmac.compare_digest(token.encode(), expected.encode())


def read_bearer(request: Request) -> str:
    """Return the token of the header `Authorization`; empty where there is none."""
    value = request.headers.get("authorization", "")
    return value[len(_BEARER) :].strip() if value.lower().startswith(_BEARER) else ""
