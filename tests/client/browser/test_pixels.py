"""The browser sees the pixels that the client sees: of every kind of file of `encoded_images`, and of any size."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageCms
from selenium.webdriver.remote.webdriver import WebDriver

from benchmarks.browser import decode, serve_folder
from client.browser.files import STATIC_DIR
from client.classifier_client import preprocessing
from serving.web.screenshots import open_browser
from tests.export.encoded_images import KINDS, Encode, assert_close, draw, noise, oriented
from tests.serving.web.browser import needs_browser

pytestmark = needs_browser
SIZE_PX = 224


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the scripts."""
    for path in STATIC_DIR.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "blank.html").write_text("<!doctype html><title>blank</title>")
    return tmp_path


def see(
    browser: WebDriver, folder: Path, contents: list[bytes], size_px: int = SIZE_PX
) -> list[NDArray[np.uint8] | str]:
    """Return the pixels of each file that the browser sees, or why it sees none."""
    names = [f"photo{number}" for number in range(len(contents))]
    for name, content in zip(names, contents, strict=True):
        (folder / name).write_bytes(content)
    with serve_folder(folder) as url:
        browser.get(f"{url}/blank.html")
        return [pixels for pixels, _ in decode(browser, names, size_px)]


def expect(content: bytes, size_px: int = SIZE_PX) -> NDArray[np.uint8]:
    return np.asarray(preprocessing.load(content, name="photo", size_px=size_px))


def test_every_kind_of_file_has_the_pixels_of_the_client(browser: WebDriver, folder: Path, encode: Encode) -> None:
    contents = {kind: make(encode) for kind, make in KINDS.items()}
    for number in range(1, 9):
        contents[f"WebP of orientation {number}"] = encode(draw(), "WEBP", lossless=True, exif=oriented(number))
    contents["JPEG with a colour profile"] = encode(draw(), "JPEG", icc_profile=_swap_colours())
    for kind, pixels in zip(contents, see(browser, folder, list(contents.values())), strict=True):
        assert not isinstance(pixels, str), f"{kind}: {pixels}"
        assert_close(pixels, expect(contents[kind]))


@pytest.mark.parametrize("size", [(1, 1), (5, 400), (223, 225), (448, 448), (2200, 1501)], ids=str)
def test_resizing_has_the_bits_of_pillow(
    browser: WebDriver, folder: Path, encode: Encode, size: tuple[int, int]
) -> None:
    """Of noise, as small as one pixel, and so large that it is resized in bands."""
    content = encode(noise(*size), "PNG")
    (pixels,) = see(browser, folder, [content])
    np.testing.assert_array_equal(pixels, expect(content))


def test_what_is_no_photo_has_a_sentence(browser: WebDriver, folder: Path, encode: Encode) -> None:
    contents = [b"", b"no photo", encode(draw(), "PNG")[:20], b"\0\0\0\x20ftypheic" + bytes(40)]
    empty, text, damaged, heic = see(browser, folder, contents)
    assert empty == "This file is empty. Choose the photo again."
    assert text == "This file is not a photo that can be read here. Send a JPEG, PNG, GIF, BMP or WebP picture."
    assert damaged == "This photo is damaged, or was cut short on its way. Send the original again."
    assert str(heic).startswith("This is a HEIC or AVIF picture")


def _swap_colours() -> bytes:
    """Return a colour profile that shows other colours where it is heeded: sRGB with red and blue exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(profile)
