"""What a program gets of a request that is refused, or fails."""

from starlette.responses import JSONResponse, Response

from serving.web.errors import RequestError


def to_json(error: RequestError) -> Response:
    """Return an error as JSON."""
    return JSONResponse({"error": error.message}, status_code=error.status, headers=error_headers(error))


def error_headers(error: RequestError) -> dict[str, str]:
    """Return the headers that belong to an error."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.allow:
        headers["Allow"] = error.allow
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers
