"""The LiteRT runtime for browsers, from the npm registry: `python -m client.browser.runtime [DIR]` downloads it.

Reads `package-lock.json` beside this file, which has the URL and checksum of each package; `make` needs no npm for it.
Writes the packages as they come to a folder, `.cache/litertjs`, and reads the files that a browser needs out of them.
"""

import argparse
import base64
import hashlib
import http.client
import io
import json
import logging
import sys
import tarfile
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile

log = logging.getLogger(__name__)

LOCK = Path(__file__).with_name("package-lock.json")
FOLDER = Path(".cache/litertjs")
"""Where the packages are kept, below the working directory."""

RELAXED_SIMD, COMPATIBLE = "litert_wasm_internal", "litert_wasm_compat_internal"
"""The runtime for browsers with relaxed SIMD, and for all others; each a script and the WebAssembly that it loads."""

_FILES = {
    "@litertjs/core": {
        "litert_core.js": "dist/index.js",
        **{f"{name}.{kind}": f"wasm/{name}.{kind}" for name in (RELAXED_SIMD, COMPATIBLE) for kind in ("js", "wasm")},
    },
    "@litertjs/wasm-utils": {"litert_wasm_utils.js": "dist/index.js"},
}
# A browser finds modules by their URLs alone.
_BARE_IMPORT, _IMPORT = b'"@litertjs/wasm-utils"', b'"./litert_wasm_utils.js"'
_TIMEOUT_S = 10  # To connect, and for each piece.
_MAX_PACKAGE_BYTES = 100_000_000
_ALGORITHM = "sha512"


class RuntimeMissingError(Exception):
    """The runtime cannot be had; the message says why, and what to do."""


@dataclass(frozen=True)
class Package:
    """A locked npm package.

    Attributes:
        name: of it, such as `@litertjs/core`.
        url: of its archive.
        integrity: of the archive, as in Subresource Integrity: the algorithm, a dash and the digest in base64.
    """

    name: str
    url: str
    integrity: str

    @property
    def file_name(self) -> str:
        return PurePosixPath(self.url).name

    def check(self, content: bytes, origin: object) -> None:
        """Compare an archive with the lock file.

        Raises:
            RuntimeMissingError: it is another one.
        """
        digest = base64.b64encode(hashlib.new(_ALGORITHM, content).digest()).decode()
        if self.integrity != f"{_ALGORITHM}-{digest}":
            raise RuntimeMissingError(
                f"The package {self.name} must have the checksum {self.integrity} of {LOCK}. Received: "
                f"{_ALGORITHM}-{digest}, {origin}. Delete it, and download it again: python -m client.browser.runtime"
            )


def read_lock(path: Path = LOCK) -> list[Package]:
    """Return the packages of a lock file of npm."""
    packages = json.loads(path.read_text(encoding="utf-8"))["packages"]
    return [
        Package(key.removeprefix("node_modules/"), entry["resolved"], entry["integrity"])
        for key, entry in packages.items()
        if key
    ]


def download(folder: Path = FOLDER, *, packages: Sequence[Package] | None = None) -> None:
    """Download the packages that are not in a folder yet, each checked before it gets there.

    Raises:
        RuntimeMissingError: the registry cannot be reached, or sends something else.
        OSError: the folder cannot be written.
    """
    for package in read_lock() if packages is None else packages:
        path = folder / package.file_name
        if path.is_file():
            package.check(path.read_bytes(), path)
            continue
        log.info("downloading %s", package.url)
        content = _fetch(package)
        package.check(content, package.url)
        _write(path, content)


def read_packages(folder: Path = FOLDER) -> dict[Package, bytes]:
    """Return the downloaded packages, checked.

    Raises:
        RuntimeMissingError: the folder does not have them all.
    """
    packages = {}
    for package in read_lock():
        path = folder / package.file_name
        try:
            packages[package] = path.read_bytes()
        except OSError as exc:
            raise RuntimeMissingError(
                f"The LiteRT runtime for browsers must be in {folder}, and {path.name} cannot be read "
                f"({exc.strerror}). Download it: python -m client.browser.runtime"
            ) from exc
        package.check(packages[package], path)
    return packages


def read_runtime(folder: Path = FOLDER) -> dict[str, bytes]:
    """Return the files that a browser needs, by name.

    Raises:
        RuntimeMissingError: the folder does not have the packages.
    """
    return {
        name: content
        for package, archive in read_packages(folder).items()
        for name, content in _read_files(package, archive)
    }


def _read_files(package: Package, content: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for name, member in _FILES[package.name].items():
            file = archive.extractfile(f"package/{member}")
            content = file.read() if file else b""
            yield name, content.replace(_BARE_IMPORT, _IMPORT) if name.endswith(".js") else content


def _fetch(package: Package) -> bytes:
    # Trusts the certificates that the system trusts, as pip does: networks may have one of their own.
    try:
        with urllib.request.urlopen(package.url, timeout=_TIMEOUT_S) as response:
            content: bytes = response.read(_MAX_PACKAGE_BYTES)
    except (OSError, http.client.HTTPException) as exc:
        raise RuntimeMissingError(
            f"The LiteRT runtime for browsers comes from {package.url}, which cannot be had ({exc}). Try again with a "
            f"network, or copy {package.file_name} to {FOLDER} yourself."
        ) from exc
    return content


def _write(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, delete=False) as file:
        staged = Path(file.name)
        try:
            file.write(content)
            file.flush()
            staged.chmod(0o644)
            staged.replace(path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Download the runtime; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="python -m client.browser.runtime", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help=f"to download to (default: {FOLDER})")
    options = parser.parse_args(arguments)
    try:
        download(options.folder)
    except (RuntimeMissingError, OSError) as exc:
        log.error("error: %s", exc)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
