"""What the examination of a photo finds, and which photos it excludes."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.artifacts.examples import Exclusion
from components.data import examination
from components.data.examination import Candidate
from components.data.sources.source import Photo
from export import preprocessing
from tests.components.data.blobs import Encode, draw

TURNED = Image.Exif()
TURNED[0x0112] = 6


def examine(content: bytes) -> tuple[Candidate | Exclusion, bytes]:
    ((result, encoded),) = examination.examine([Photo("a/1.jpg", 2, "test", content)])
    return result, encoded


def translucent(seed: int) -> Image.Image:
    image = draw(seed).convert("RGBA")
    image.putalpha(120)
    return image


def test_candidate_has_brightness_and_contrast(encode: Encode) -> None:
    half = Image.new("L", (64, 64))
    half.paste(255, (0, 0, 32, 64))
    candidate, _ = examine(encode(half, "PNG"))
    assert isinstance(candidate, Candidate)
    assert (candidate.name, candidate.label, candidate.split) == ("a/1.jpg", 2, "test")
    # Half black and half white, softened along one edge: mean and standard deviation are a half.
    assert candidate.brightness == pytest.approx(0.5, abs=0.01)
    assert candidate.contrast == pytest.approx(0.5, abs=0.02)


def test_unreadable_photos_are_excluded_with_the_reason(encode: Encode) -> None:
    jpeg, png, webp = (encode(draw(seed, (200, 150)), kind) for seed, kind in enumerate(("JPEG", "PNG", "WEBP")))
    for content, rule, reason in [
        (b"I am no photo", "unreadable", "not an image"),
        (b"", "unreadable", "empty"),
        (jpeg[: len(jpeg) // 2], "unreadable", "Invalid JPEG data"),
        (png[: len(png) // 2], "unreadable", "Invalid PNG data"),
        (webp[:80], "unreadable", ""),
        (encode(Image.new("1", (12000, 12000)), "PNG"), "too_large", ""),
        (encode(Image.new("1", (5001, 5000)), "PNG"), "too_large", "5001×5000 is over 25,000,000 pixels"),
    ]:
        exclusion, encoded = examine(content)
        assert not isinstance(exclusion, Candidate), reason
        assert (exclusion["file"], exclusion["split"], exclusion["rule"]) == ("a/1.jpg", "test", rule)
        assert reason in exclusion["reason"]
        assert encoded == b""


LOSSLESS = {"lossless": True, "exact": True}
UPRIGHT = draw(88).transpose(Image.Transpose.ROTATE_270)
OVER_WHITE = np.asarray(draw(83)) * (120 / 255) + 255 * (135 / 255)
FORMATS: dict[str, tuple[Any, str, dict[str, Any], str]] = {
    "cmyk": (draw(82).convert("CMYK"), "JPEG", {}, "jpeg"),
    "16 bits": (np.random.default_rng(0).integers(0, 2**16, (20, 30), dtype=np.uint16), "PNG", {}, "png"),
    "turned": (draw(84), "JPEG", {"exif": TURNED}, "jpeg"),
    "moving": (draw(80).quantize(32), "GIF", {"save_all": True, "append_images": [draw(81).quantize(32)]}, "gif"),
    "bmp": (draw(85), "BMP", {}, "bmp"),
    "misnamed": (draw(86), "PNG", {}, "png"),
}
FOREIGN_FORMATS: dict[str, tuple[Any, str, dict[str, Any], Any]] = {
    "webp": (draw(87), "WEBP", LOSSLESS, draw(87)),
    "turned webp": (draw(88), "WEBP", LOSSLESS | {"exif": TURNED}, UPRIGHT),
    "translucent webp": (translucent(83), "WEBP", LOSSLESS, OVER_WHITE),
    "tiff": (draw(89), "TIFF", {}, draw(89)),
}


@pytest.mark.parametrize("case", FORMATS)
def test_photos_in_a_served_format_are_kept(case: str, encode: Encode) -> None:
    image, kind, options, expected = FORMATS[case]
    content = encode(image, kind, **options)
    candidate, encoded = examine(content)
    assert isinstance(candidate, Candidate)
    assert candidate.format == expected
    assert encoded == content
    if case == "turned":  # sizes are those of the upright image
        assert (candidate.width, candidate.height) == (40, 48)


@pytest.mark.parametrize("case", FOREIGN_FORMATS)
def test_photos_in_another_format_become_png_upright_and_without_loss(case: str, encode: Encode) -> None:
    image, kind, options, expected = FOREIGN_FORMATS[case]
    candidate, encoded = examine(encode(image, kind, **options))
    assert isinstance(candidate, Candidate)
    assert candidate.format == "png"
    assert (candidate.height, candidate.width) == np.shape(expected)[:2]
    pixels = preprocessing.decode(tf.constant(encoded)).numpy()
    np.testing.assert_allclose(pixels, np.asarray(expected), atol=0.51 if case == "translucent webp" else 0)
