"""TensorFlow Serving over REST: images in, each as a PNG, which the model's graph decodes to the very pixels.

Pixels written as JSON numbers would take several times as long.
"""

import base64
import io
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
from . import Answer
from .connection import (
    SIGNATURE,
    ConnectionOptions,
    check_image_size,
    check_target,
    is_this_machine,
    retry,
    to_answers,
)
from .failures import to_error

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


@dataclass(frozen=True)
class _Description:
    """A server's metadata of the model that it serves, and when it was read."""

    version: str
    image_size_px: int
    read_s: float


class RestTransport:
    """A model behind TensorFlow Serving's REST API.

    A response over REST does not name the version. So each request does: the newest that was there at most a few
    seconds ago.

    Args:
        target: `host:port`.
        model: its name.
        options: how the server is called.

    Raises:
        ValueError: the target is something else.
    """

    def __init__(
        self, target: str = "localhost:8501", model: str = "flowers", *, options: ConnectionOptions | None = None
    ) -> None:
        self._target = check_target(target)
        self._model = model
        self._options = options or ConnectionOptions()
        self._url = f"http{'s' if self._options.tls else ''}://{target}/v1/models/{quote(model, safe='')}"
        self._description: _Description | None = None
        self._session = requests.Session()
        self._session.trust_env = not is_this_machine(target)
        self._session.auth = self._add_token
        if self._options.ca_file:
            self._session.verify = str(self._options.ca_file)

    def image_size_px(self) -> int:
        """Return the side of the images that the newest version takes."""
        return self._describe().image_size_px

    def predict(self, images: Sequence[Image.Image]) -> list[Answer]:
        """Classify RGB images of the model's size; see `Transport`."""
        body = {"inputs": [{"b64": _write_png(image)} for image in images]}
        try:
            return self._predict(body, self._describe().version)
        except ModelNotFoundError:
            # A newer version may have replaced it in the meantime.
            self._description = None
            return self._predict(body, self._describe().version)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _describe(self) -> _Description:
        """Return the metadata of the model, read from the server unless that was a moment ago."""
        now_s = time.monotonic()
        known = self._description
        if known and now_s - known.read_s < _DESCRIPTION_AGE_S:
            return known
        document = self._call("GET", "/metadata")
        version, shape = "", []
        # Without such a signature there is no shape, and the check reports it.
        with suppress(LookupError, TypeError, ValueError):
            version = document["model_spec"]["version"]
            signature = document["metadata"]["signature_def"]["signature_def"][SIGNATURE]
            shape = [int(dim["size"]) for dim in signature["inputs"][SIGNATURE]["tensor_shape"]["dim"]]
        self._description = _Description(version, check_image_size(shape, model=self._model), now_s)
        return self._description

    def _predict(self, body: dict[str, list[dict[str, str]]], version: str) -> list[Answer]:
        start_s = time.perf_counter()
        document = self._call("POST", f"/versions/{version}:predict", body)
        try:
            outputs = document["outputs"]
            probabilities, classes = outputs["probabilities"], outputs["classes"]
        except (LookupError, TypeError) as exc:
            raise self._error(_NOT_SERVING, f"it sends {str(document)[:_MAX_SHOWN_CHARS]}") from exc
        return to_answers(
            probabilities, classes, num_images=len(body["inputs"]), model_version=version, start_s=start_s
        )

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request, and again while the server is not available; return the JSON of the response."""

        def call() -> Any:
            try:
                response = self._session.request(
                    method, self._url + path, json=body, timeout=self._options.timeout_s, allow_redirects=False
                )
            except requests.Timeout as exc:
                raise self._error("DEADLINE_EXCEEDED", "") from exc
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as exc:
                raise self._error("UNAVAILABLE", _reason(exc)) from exc
            return self._read(response)

        return retry(call, self._options.num_retries)

    def _read(self, response: requests.Response) -> Any:
        """Return the JSON of a response.

        Raises:
            ServerError: it is an error, or not from TensorFlow Serving.
        """
        try:
            document = response.json()
        except requests.JSONDecodeError:
            document = None
        status, is_error = response.status_code, isinstance(document, dict) and "error" in document
        if status == requests.codes.ok and isinstance(document, dict) and not is_error:
            return document
        reason = str(document["error"]) if is_error else f"HTTP status {status}: {response.text[:_MAX_SHOWN_CHARS]}"
        # A proxy may respond for a server that is down, in a form of its own.
        known = is_error or status in (401, 403, 503, 504)
        raise self._error(_CODES.get(status, f"HTTP status {status}") if known else _NOT_SERVING, reason)

    def _error(self, code: str, reason: str) -> ServerError:
        return to_error(code, reason, target=self._target, model=self._model, timeout_s=self._options.timeout_s)

    def _add_token(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # As the session's `auth`, so that no ~/.netrc replaces it.
        if self._options.token:
            request.headers["Authorization"] = f"Bearer {self._options.token}"
        return request


def _write_png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    # Stronger compression takes longer than it saves in sending.
    image.save(buffer, "PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode()


def _reason(exc: BaseException) -> str:
    """Return the message of the first failure of a chain: the others only wrap it."""
    while before := exc.__cause__ or exc.__context__:
        exc = before
    return str(exc) if isinstance(exc, OSError) or not isinstance(exc, BadStatusLine) else "it does not speak HTTP"
