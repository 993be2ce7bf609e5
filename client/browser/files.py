"""The files that a browser needs beside a page: the project's scripts, the runtime, and `model.json` about the model.

A page that imports `classifier.js` finds all others beside it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from client.browser.runtime import COMPATIBLE, RELAXED_SIMD
from client.classifier_client import ModelFileError
from client.classifier_client.transports.litert_metadata import Metadata

STATIC_DIR = Path(__file__).parent / "static"
MODEL_JSON = "model.json"
MANIFEST = "manifest.webmanifest"
SERVICE_WORKER = "service_worker.js"

MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".tflite": "application/octet-stream",
    ".ts": "text/plain",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}

_SCRIPTS = (
    "classifier.js",
    "worker.js",
    "session.js",
    "litert_file.js",
    "pixels.js",
    "resize.js",
    "webp.js",
    "storage.js",
)
_RUNTIME_SCRIPTS = ("litert_core.js", "litert_wasm_utils.js")
_LIMITS = ("refused_share", "min_probability", "coverage")
_VERSION_DIGITS = 16


class File(TypedDict):
    """A file that a browser fetches once: its URL, beside `model.json`, changes with its content."""

    url: str
    size_bytes: int
    sha256: str


def read_scripts() -> dict[str, bytes]:
    """Return the project's own files, by name."""
    return {path.name: path.read_bytes() for path in sorted(STATIC_DIR.iterdir()) if path.suffix in MEDIA_TYPES}


def describe_model(
    metadata: Metadata,
    *,
    spec: Mapping[str, Any],
    name: str,
    threshold: float,
    model: File,
    runtime: Mapping[str, bytes],
) -> str:
    """Return `model.json`: what the scripts must know of a model.

    Args:
        metadata: of the LiteRT file.
        spec: its `model_spec.json`; the `limits` count.
        name: of the model.
        threshold: a less probable prediction is not sure, 0–1.
        model: the LiteRT file.
        runtime: the runtime's files, by name.

    Raises:
        ModelFileError: its limits are not all there.
    """
    limits = spec.get("limits")
    missing = [key for key in _LIMITS if limits and not (isinstance(limits, Mapping) and key in limits)]
    if missing:
        raise ModelFileError(f"A model's limits must have {', '.join(_LIMITS)}. Missing: {missing}. Export it again.")
    document = {
        "name": name,
        "version": metadata.model_version,
        "class_names": metadata.class_names,
        "mean": metadata.mean,
        "std": metadata.std,
        "limits": limits and {key: limits[key] for key in _LIMITS},
        "threshold": threshold,
        "model": model,
        "runtime": {
            key: {"script": f"{base}.js", "wasm": describe_file(f"{base}.wasm", runtime[f"{base}.wasm"])}
            for key, base in (("relaxed_simd", RELAXED_SIMD), ("compatible", COMPATIBLE))
        },
        "scripts": [*_SCRIPTS, *_RUNTIME_SCRIPTS],
    }
    return json.dumps(document, ensure_ascii=False, indent=1)


def describe_file(name: str, content: bytes) -> File:
    """Return what `model.json` says of a file."""
    sha256 = hashlib.sha256(content).hexdigest()
    return {"url": f"{name}?v={sha256[:_VERSION_DIGITS]}", "size_bytes": len(content), "sha256": sha256}


def make_manifest(name: str, *, start_url: str, icon_url: str) -> str:
    """Return the web app manifest (W3C), with which a page can be installed.

    Args:
        name: of the model.
        start_url: of the page, seen from the manifest.
        icon_url: of an SVG.
    """
    document = {
        "name": name.capitalize(),
        "short_name": name.capitalize(),
        "start_url": start_url,
        "scope": start_url,
        "display": "standalone",
        "background_color": "#ffffff",
        "theme_color": "#ffffff",
        "icons": [{"src": icon_url, "sizes": "any", "type": "image/svg+xml", "purpose": "any"}],
    }
    return json.dumps(document, ensure_ascii=False, indent=1)
