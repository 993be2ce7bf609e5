"""The sentences of photos that cannot be classified."""

import io

import pytest
from PIL import Image

from client.classifier_client import ImageError
from client.classifier_client.preprocessing import load
from serving.web.unreadable import CODES, explain
from tests.serving.web.test_bad_input import BOMB


def read_error(content: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        load(content, name="a", size_px=8)
    return caught.value


def test_the_limit_of_pixels_is_that_of_the_format() -> None:
    expected = "This photo has more than 25 megapixels. Send a smaller copy."
    assert explain("a", BOMB, read_error(BOMB)).error == expected
    buffer = io.BytesIO()
    Image.new("L", (5001, 5000)).save(buffer, "JPEG", progressive=True)
    progressive = buffer.getvalue()
    assert explain("a", progressive, read_error(progressive)).error == (
        "This photo has more than 25 megapixels, or more than 210 in a JPEG that is not progressive. "
        "Send a smaller copy."
    )
    assert explain("a", b"", ImageError("a", "more than fits", code="too_many_pixels")).error == (
        "This photo has too many pixels. Send a smaller copy."
    )


def test_a_photo_that_takes_too_long_has_its_sentence() -> None:
    assert explain("a", b"", ImageError("a", "4800 scans", code="too_complex")).error == (
        "This photo is built so unusually that reading it takes too long. Save it anew as a JPEG, and send that."
    )


def test_a_kind_of_error_that_is_new_is_unreadable() -> None:
    unreadable = explain("a", b"", ImageError("a", "a new reason", code="new"))
    assert unreadable.code in CODES
    assert unreadable.error == "This photo cannot be read. Save it as a JPEG, and send that."
