"""Let visitors run the model in their own browser: its file, LiteRT's runtime, and the scripts, below `/device/`.

What the browser needs is said in `model.json`, which changes with the version; `client/browser/` has the scripts.
"""

import asyncio
import gzip
import logging
from functools import cached_property
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from client.browser.files import (
    MANIFEST,
    MEDIA_TYPES,
    MODEL_JSON,
    SERVICE_WORKER,
    File,
    describe_file,
    describe_model,
    make_manifest,
    read_scripts,
)
from client.browser.runtime import RuntimeMissingError, read_packages, read_runtime
from serving.web.assets import Asset
from serving.web.classifier import Classifier
from serving.web.errors import RequestError
from serving.web.model_info import ModelInfo
from serving.web.settings import Settings

log = logging.getLogger(__name__)

_NEWEST = "no-cache"
_FOR_EVER = "public, max-age=31536000, immutable"
_VERSION = "v"
_PACKED = (".js", ".wasm")
_PACKED_LEVEL = 4  # A third of the size, in a sixth of a second; more levels take longer than they save.
_MISSING = "Looking on this device is not offered: the runtime for browsers is missing on the server."


class Device:
    """The files for browsers that run the model themselves.

    Args:
        classifier: has the model.
        settings: of the service.

    Attributes:
        is_offered: whether visitors may do so.
        note: why not, for visitors, where that is nobody's choice; else empty.
    """

    def __init__(self, classifier: Classifier, settings: Settings) -> None:
        self._classifier = classifier
        self._settings = settings
        self._scripts = {name: _to_asset(name, content) for name, content in read_scripts().items()}
        self._lock = asyncio.Lock()
        self._described: tuple[ModelInfo, Asset, File] | None = None
        self._packed: dict[str, bytes] = {}
        reason, self.note = self._find_reason()
        self.is_offered = not reason
        log.info("looking on the visitor's own device is offered%s", f" to nobody: {reason}" if reason else "")

    async def serve(self, request: Request) -> Response:
        """Send a file, named by the last part of the request's path."""
        name = request.path_params["name"]
        if name in self._scripts:
            return await self._send(request, name, self._scripts[name])
        if self.is_offered:
            if name == MANIFEST:
                manifest = make_manifest(self._classifier.info.name, start_url="../", icon_url="icon.svg")
                return await self._send(request, name, _to_asset(name, manifest.encode()))
            info, description, model = await self._describe()
            if name == MODEL_JSON:
                return await self._send(request, name, description)
            if name in self._runtime:
                return await self._send(request, name, self._runtime[name])
            path = Path(info.origin)
            # Another version's URL has no file any more.
            if name == path.name and request.url.query == model["url"].partition("?")[2]:
                return FileResponse(path, media_type=MEDIA_TYPES[".tflite"], headers={"Cache-Control": _FOR_EVER})
        raise RequestError(404, "There is no such file.")

    def _find_reason(self) -> tuple[str, str]:
        """Return why nobody may run the model: for the log, and for visitors."""
        folder = self._settings.runtime_dir
        if folder is None:
            return "--no-device", ""
        if not self._classifier.has_file:
            return "the model is a server's", ""
        if self._settings.token is not None:
            return "who may have the model needs the access token, and browsers fetch files without one", ""
        try:
            read_packages(folder)
        except RuntimeMissingError as exc:
            return str(exc), _MISSING
        return "", ""

    @cached_property
    def _runtime(self) -> dict[str, Asset]:
        folder = self._settings.runtime_dir
        return {name: _to_asset(name, content) for name, content in read_runtime(folder).items()} if folder else {}

    async def _describe(self) -> tuple[ModelInfo, Asset, File]:
        """Return the version in use, its `model.json`, and its file as that has it."""
        async with self._lock:
            if self._described is None or self._described[0] is not self._classifier.info:
                self._described = await asyncio.to_thread(self._read)
            return self._described

    def _read(self) -> tuple[ModelInfo, Asset, File]:
        info, metadata, content = self._classifier.read_file()
        model = describe_file(Path(info.origin).name, content)
        description = describe_model(
            metadata,
            spec=info.spec,
            name=info.name,
            threshold=self._settings.threshold,
            model=model,
            runtime={name: asset.content for name, asset in self._runtime.items()},
        )
        return info, _to_asset(MODEL_JSON, description.encode()), model

    async def _send(self, request: Request, name: str, asset: Asset) -> Response:
        headers = {"ETag": asset.etag, "Cache-Control": _FOR_EVER if _VERSION in request.query_params else _NEWEST}
        if name == SERVICE_WORKER:
            headers["Service-Worker-Allowed"] = "/"
        if asset.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        content = asset.content
        if name.endswith(_PACKED):
            headers["Vary"] = "Accept-Encoding"
            if "gzip" in request.headers.get("accept-encoding", ""):
                headers["Content-Encoding"] = "gzip"
                content = await self._pack(name, content)
        return Response(content, media_type=asset.media_type, headers=headers)

    async def _pack(self, name: str, content: bytes) -> bytes:
        async with self._lock:
            if name not in self._packed:
                self._packed[name] = await asyncio.to_thread(gzip.compress, content, _PACKED_LEVEL)
            return self._packed[name]


def _to_asset(name: str, content: bytes) -> Asset:
    return Asset(content, MEDIA_TYPES[Path(name).suffix])
