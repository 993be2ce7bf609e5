"""Tests of photos as browsers show them."""

import io

import pytest
from PIL import Image

from components.errors import DataError
from pipelines.review.images import to_shown
from tests.pipelines.review.drawn_run import draw


@pytest.mark.parametrize(
    ("kind", "media_type"),
    [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("GIF", "image/gif"), ("BMP", "image/bmp"), ("WEBP", "image/webp")],
)
def test_what_browsers_show_stays_as_it_is(kind: str, media_type: str) -> None:
    encoded = draw(1, kind)
    assert to_shown(encoded, "1") == (encoded, media_type)


@pytest.mark.parametrize("kind", ["TIFF", "JPEG2000", "AVIF", "PPM"])
def test_other_formats_become_jpegs(kind: str) -> None:
    shown, media_type = to_shown(draw(1, kind), "1")
    assert media_type == "image/jpeg"
    with Image.open(io.BytesIO(shown)) as image:
        assert (image.format, image.size) == ("JPEG", (64, 64))


@pytest.mark.parametrize("encoded", [b"", b"text", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"])
def test_what_is_no_photo_says_so(encoded: bytes) -> None:
    with pytest.raises(DataError, match=r"1\.heic"):
        to_shown(encoded, "1.heic")
