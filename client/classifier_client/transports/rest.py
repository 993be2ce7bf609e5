"""TensorFlow Serving over REST: images in, each as a PNG, which the model's graph decodes to the very pixels.

Pixels written as JSON numbers would take several times as long.
"""

import base64
import io
import json
import re
import reprlib
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import BadStatusLine
from typing import Any
from urllib.parse import quote

import requests
from PIL import Image

from ..errors import ModelNotFoundError, ServerError
from . import Answer, Closable
from .answers import MAX_RESPONSE_BYTES, SIGNATURE, check_image_size, to_answers
from .connection import ConnectionOptions, check_target, retry
from .failures import to_error
from .http import Late, Malformed, Session, TooLongError, Unavailable, parse_retry_after

_DESCRIPTION_AGE_S = 5.0
_MAX_SHOWN_CHARS = 200
# As TensorFlow Serving's REST API turns its codes into HTTP's.
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_NOT_SERVING = "UNIMPLEMENTED"
_OVERLOADED = (429, 503)
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_VERSION = re.compile(r"[0-9]{1,19}")


@dataclass(frozen=True)
class _Description:
    """A server's metadata of the model that it serves, and when it was read."""

    version: str
    image_size_px: int
    read_s: float


class RestTransport(Closable):
    """A model behind TensorFlow Serving's REST API.

    A response over REST does not name the version. So each request does: the newest that was there at most a few
    seconds ago.

    Args:
        target: `host:port`.
        model: its name.
        options: how the server is called.

    Raises:
        ValueError: the target is something else, or REQUESTS_CA_BUNDLE names no certificates.
    """

    def __init__(
        self, target: str = "localhost:8501", model: str = "flowers", *, options: ConnectionOptions | None = None
    ) -> None:
        self._target = check_target(target)
        self._model = model
        self._options = options or ConnectionOptions()
        self._url = f"http{'s' if self._options.tls else ''}://{target}/v1/models/{quote(model, safe='')}"
        self._description: _Description | None = None
        self._session = Session(target, self._options)

    def image_size_px(self) -> int:
        """Return the side of the images that the newest version takes."""
        self.check_open()
        return self._describe().image_size_px

    def predict(self, images: Sequence[Image.Image]) -> list[Answer]:
        """Classify RGB images of the model's size; see `Transport`."""
        self.check_open()
        body = {"inputs": [{"b64": _write_png(image)} for image in images]}
        try:
            return self._predict(body, self._describe().version)
        except ModelNotFoundError:
            # A newer version may have replaced it in the meantime.
            self._description = None
            return self._predict(body, self._describe().version)

    def close(self) -> None:
        """Close the connections."""
        super().close()
        self._session.close()

    def _describe(self) -> _Description:
        """Return the metadata of the model, read from the server unless that was a moment ago."""
        now_s = time.monotonic()
        known = self._description
        if known and now_s - known.read_s < _DESCRIPTION_AGE_S:
            return known
        document = self._call("GET", "/metadata")
        version, shape = None, []
        # Without such a signature there is no shape, and the check reports it.
        with suppress(LookupError, TypeError):
            version = document["model_spec"]["version"]
            signature = document["metadata"]["signature_def"]["signature_def"][SIGNATURE]
            shape = [_to_int(dim["size"]) for dim in signature["inputs"][SIGNATURE]["tensor_shape"]["dim"]]
        size_px = check_image_size(shape, model=self._model)
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            raise self._error(_NOT_SERVING, f"it names the version {reprlib.repr(version)}")
        self._description = _Description(version, size_px, now_s)
        return self._description

    def _predict(self, body: dict[str, list[dict[str, str]]], version: str) -> list[Answer]:
        start_s = time.perf_counter()
        document = self._call("POST", f"/versions/{version}:predict", body)
        outputs = document.get("outputs")
        if not (isinstance(outputs, dict) and {"probabilities", "classes"} <= outputs.keys()):
            raise self._error(_NOT_SERVING, f"it sends {reprlib.repr(document)}")
        return to_answers(outputs, num_images=len(body["inputs"]), model_version=version, start_s=start_s)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request, and again while the server is not available; return the JSON of the response."""

        def call() -> Any:
            try:
                response, content = self._session.request(method, self._url + path, body)
            except Late as exc:
                raise self._error("DEADLINE_EXCEEDED", "") from exc
            except Unavailable as exc:
                # Between two bytes, a timeout looks like a broken connection.
                is_late = isinstance(_cause(exc), TimeoutError)
                raise self._error("DEADLINE_EXCEEDED" if is_late else "UNAVAILABLE", _reason(exc)) from exc
            except TooLongError as exc:
                reason = f"its response is longer than {MAX_RESPONSE_BYTES >> 20} MB"
                raise self._error(_NOT_SERVING, reason) from exc
            except Malformed as exc:
                raise self._error(_NOT_SERVING, _reason(exc)) from exc
            return self._read(response, content)

        return retry(call, self._options.num_retries)

    def _read(self, response: requests.Response, content: bytes) -> Any:
        """Return the JSON of a response.

        Raises:
            ServerError: it is an error, or not from TensorFlow Serving.
        """
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):  # No JSON, no UTF-8, a number of a thousand digits, or deeply nested.
            document = None
        status, is_error = response.status_code, isinstance(document, dict) and "error" in document
        if status == requests.codes.ok and isinstance(document, dict) and not is_error:
            return document
        shown = content[:_MAX_SHOWN_CHARS].decode("utf-8", "replace")
        told = document["error"] if is_error else None
        reason = told if isinstance(told, str) else f"HTTP status {status}: {shown}"
        # A proxy may respond for a server that is down, in a form of its own.
        known = is_error or status in (401, 403, 503, 504)
        error = self._error(_CODES.get(status, f"HTTP status {status}") if known else _NOT_SERVING, reason)
        if known and status in _OVERLOADED:
            error.retry_after_s = parse_retry_after(response.headers.get("Retry-After", ""))
        raise error

    def _error(self, code: str, reason: str) -> ServerError:
        return to_error(code, reason, target=self._target, model=self._model, timeout_s=self._options.timeout_s)


def _write_png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    # Stronger compression takes longer than it saves in sending.
    image.save(buffer, "PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode()


def _to_int(value: Any) -> int:
    """Return an integer that is written as a text or a number; 0 for all else."""
    text = str(value) if type(value) in (str, int) else ""
    return int(text) if _INTEGER.fullmatch(text) else 0


def _cause(exc: BaseException) -> BaseException:
    """Return the first failure of a chain: the others only wrap it."""
    while before := exc.__cause__ or exc.__context__:
        exc = before
    return exc


def _reason(exc: BaseException) -> str:
    cause = _cause(exc)
    return (
        "it does not speak HTTP" if isinstance(cause, BadStatusLine) and not isinstance(cause, OSError) else str(cause)
    )
