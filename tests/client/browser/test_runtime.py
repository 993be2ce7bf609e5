"""The runtime's packages are those of the lock file, from a registry that may send anything or be gone."""

import base64
import hashlib
import json
from pathlib import Path

import pytest

from benchmarks.browser import serve_folder
from client.browser import runtime
from client.browser.runtime import LOCK, Package, RuntimeMissingError, download, read_lock, read_packages, read_runtime
from tests.client.browser.web_apps import RUNTIME_DIR, needs_runtime
from tests.client.fakes import free_port

CONTENT = b"an archive"


def lock(url: str, content: bytes = CONTENT) -> Package:
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    return Package("@litertjs/core", f"{url}/core-1.tgz", f"sha512-{digest}")


def test_the_lock_file_names_npm_and_strong_checksums() -> None:
    packages = read_lock()
    assert [package.name for package in packages] == ["@litertjs/core", "@litertjs/wasm-utils"]
    assert all(package.url.startswith("https://registry.npmjs.org/") for package in packages)
    assert all(package.integrity.startswith("sha512-") for package in packages)
    wanted = json.loads(LOCK.with_name("package.json").read_text())["dependencies"]["@litertjs/core"]
    assert packages[0].file_name == f"core-{wanted}.tgz", "npm install --package-lock-only renews the lock file"


def test_a_package_is_downloaded_once(tmp_path: Path) -> None:
    (tmp_path / "core-1.tgz").write_bytes(CONTENT)
    folder = tmp_path / "cache"
    with serve_folder(tmp_path) as url:
        package = lock(url)
        download(folder, packages=[package])
    download(folder, packages=[package])  # The registry is gone.
    assert [path.name for path in folder.iterdir()] == ["core-1.tgz"]
    assert (folder / "core-1.tgz").read_bytes() == CONTENT


def test_another_package_than_the_locked_one_is_refused_and_not_kept(tmp_path: Path) -> None:
    (tmp_path / "core-1.tgz").write_bytes(b"something else")
    folder = tmp_path / "cache"
    with serve_folder(tmp_path) as url, pytest.raises(RuntimeMissingError, match="must have the checksum sha512-"):
        download(folder, packages=[lock(url)])
    assert not folder.exists()


def test_a_registry_that_is_gone_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RuntimeMissingError, match=r"cannot be had .* copy core-1\.tgz to"):
        download(tmp_path, packages=[lock(f"http://127.0.0.1:{free_port()}")])


def test_without_the_packages_it_is_said_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(RuntimeMissingError, match=r"Download it: python -m client\.browser\.runtime"):
        read_packages(tmp_path)


def test_a_package_that_changed_since_is_not_used(tmp_path: Path) -> None:
    for package in read_lock():
        (tmp_path / package.file_name).write_bytes(CONTENT)
    with pytest.raises(RuntimeMissingError, match="must have the checksum"):
        read_runtime(tmp_path)


@needs_runtime
def test_the_runtime_has_no_import_that_a_browser_cannot_find() -> None:
    files = read_runtime(RUNTIME_DIR)
    assert {f"{name}.{kind}" for name in (runtime.RELAXED_SIMD, runtime.COMPATIBLE) for kind in ("js", "wasm")} < set(
        files
    )
    assert all(content for content in files.values())
    assert b'from "@' not in files["litert_core.js"]
    assert b'from "./litert_wasm_utils.js"' in files["litert_core.js"]
