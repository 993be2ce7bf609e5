"""The page's own files and the sample photos, read once and kept in memory: no path comes from a request."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from serving.web.errors import RequestError

STATIC_DIR = Path(__file__).parent / "static"
SAMPLES_DIR = Path(__file__).parents[2] / "client" / "samples"

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}
# The URL of a file changes with its content.
_CACHE = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Asset:
    """A file that is served as it is."""

    content: bytes
    media_type: str

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:16]}"'


class Assets:
    """The files of a folder, by name.

    Args:
        folder: holds them; files of other types are left out.
        url: the path under which they are served.
    """

    def __init__(self, folder: Path, *, url: str) -> None:
        paths = sorted(path for path in folder.glob("*") if path.suffix in _TYPES)
        self.files = {path.name: Asset(path.read_bytes(), _TYPES[path.suffix]) for path in paths}
        self._url = url

    def url(self, name: str) -> str:
        """Return the URL of a file, which changes with its content."""
        return f"{self._url}/{name}?v={self.files[name].etag[1:-1]}"

    async def serve(self, request: Request) -> Response:
        """Send a file, named by the last part of the request's path."""
        asset = self.files.get(request.path_params["name"])
        if asset is None:
            raise RequestError(404, "There is no such file.")
        headers = {"ETag": asset.etag, "Cache-Control": _CACHE}
        if asset.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(asset.content, media_type=asset.media_type, headers=headers)
