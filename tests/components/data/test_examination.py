"""What the examination of a photo finds, and which photos it excludes."""

import io
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from client.classifier_client import decoding
from client.classifier_client import preprocessing as client_preprocessing
from components.artifacts.examples import Exclusion
from components.data import examination
from components.data.examination import Candidate
from components.data.sources.source import Photo
from export import preprocessing
from tests.components.data.blobs import Encode, draw
from tests.export import encoded_images
from tests.export.tiff import write_tiff

TURNED = Image.Exif()
TURNED[0x0112] = 6


def examine(content: bytes) -> tuple[Candidate | Exclusion, bytes]:
    ((result, encoded),) = examination.examine([Photo("a/1.jpg", 2, "test", content)])
    return result, encoded


def test_however_many_threads_examine_the_graph_is_traced_once(encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    examination._trace_examiner.cache_clear()
    trace, traced = examination._trace_measurement, []
    monkeypatch.setattr(examination, "_trace_measurement", lambda: traced.append(1) or trace())
    photos = [Photo(f"{seed}.jpg", 0, "train", encode(draw(seed), "JPEG")) for seed in range(8)]
    assert all(isinstance(result, Candidate) for result, _ in examination.examine(photos))
    assert len(traced) == 1


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
        (
            encode(Image.new("1", (5001, 5000)), "PNG"),
            "too_large",
            "at most 25,000,000 pixels, and it claims 5001 × 5000",
        ),
        (write_tiff(np.ones((4, 4), np.float32)), "unreadable", "nothing says which value of mode F"),
        (write_tiff(np.ones((4, 4), np.int32)), "unreadable", "nothing says which value of mode I"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unreadable", "an SVG drawing, not an image that can be read"),
    ]:
        exclusion, encoded = examine(content)
        assert not isinstance(exclusion, Candidate), reason
        assert (exclusion["file"], exclusion["split"], exclusion["rule"]) == ("a/1.jpg", "test", rule)
        assert reason in exclusion["reason"]
        assert encoded == b""


UPRIGHT = draw(88).transpose(Image.Transpose.ROTATE_270)
OVER_WHITE = np.asarray(draw(83)) * (120 / 255) + 255 * (135 / 255)
FORMATS: dict[str, tuple[Any, str, dict[str, Any], str]] = {
    "cmyk": (draw(82).convert("CMYK"), "JPEG", {}, "jpeg"),
    "16 bits": (np.random.default_rng(0).integers(0, 2**16, (20, 30), dtype=np.uint16), "PNG", {}, "png"),
    "turned": (draw(84), "JPEG", {"exif": TURNED}, "jpeg"),
    "moving": (draw(80).quantize(32), "GIF", {"save_all": True, "append_images": [draw(81).quantize(32)]}, "gif"),
    "bmp": (draw(85), "BMP", {}, "bmp"),
    "webp": (draw(87), "WEBP", {}, "webp"),
    "moving webp": (draw(87), "WEBP", {"save_all": True, "append_images": [draw(88)]}, "webp"),
    "misnamed": (draw(86), "PNG", {}, "png"),
}
RAMP = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
FOREIGN_FORMATS: dict[str, tuple[Any, str, dict[str, Any], Any]] = {
    "tiff": (draw(89), "TIFF", {}, draw(89)),
    "turned tiff": (draw(88), "TIFF", {"exif": TURNED}, UPRIGHT),
    "compressed tiff": (draw(89), "TIFF", {"compression": "tiff_lzw"}, draw(89)),
    "16-bit tiff": (RAMP, "TIFF", {}, np.stack([RAMP >> 8] * 3, -1)),
    "1-bit tiff": (draw(89).convert("1"), "TIFF", {}, draw(89).convert("1").convert("RGB")),
    "cmyk tiff": (draw(82).convert("CMYK"), "TIFF", {}, draw(82).convert("CMYK").convert("RGB")),
    "translucent tiff": (translucent(83), "TIFF", {}, OVER_WHITE),
    "avif": (Image.new("RGB", (40, 40), (200, 100, 50)), "AVIF", {}, Image.new("RGB", (40, 40), (200, 100, 50))),
    "ppm": (draw(89), "PPM", {}, draw(89)),
    "jpeg 2000": (draw(89), "JPEG2000", {}, draw(89)),
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
    # Blending over white is rounded in fixed point, and AVIF rounds colours.
    atol = 1 if case.startswith("translucent") else 2 if case == "avif" else 0
    np.testing.assert_allclose(pixels, np.asarray(expected), atol=atol)


@pytest.mark.parametrize("case", FOREIGN_FORMATS)
def test_client_sees_the_photos_of_another_format_as_the_model_was_trained(case: str, encode: Encode) -> None:
    image, kind, options, _ = FOREIGN_FORMATS[case]
    content = encode(image, kind, **options)
    _, encoded = examine(content)
    received = np.asarray(client_preprocessing.load(content, name=case, size_px=32))
    encoded_images.assert_close(received, encoded_images.load(encoded, 32))


def test_large_jpeg_is_learned_from_smaller_and_seen_so_by_the_client(
    monkeypatch: pytest.MonkeyPatch, encode: Encode
) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 500_000)
    noise = np.random.default_rng(0).integers(-15, 16, (1201, 1601, 3))
    samples = np.asarray(draw(90).resize((1601, 1201), Image.Resampling.BICUBIC)) + noise
    content = encode(samples.clip(0, 255).astype(np.uint8), "JPEG", quality=92, exif=TURNED)
    candidate, encoded = examine(content)
    assert isinstance(candidate, Candidate)
    assert (candidate.format, candidate.width, candidate.height) == ("jpeg", 601, 801)
    received = np.asarray(client_preprocessing.load(content, name="large", size_px=32))
    encoded_images.assert_close(received, encoded_images.load(encoded, 32))


def test_gif_of_too_many_frames_is_kept_as_its_first(monkeypatch: pytest.MonkeyPatch, encode: Encode) -> None:
    """TensorFlow would decode them all."""
    frames = [draw(seed).quantize(32) for seed in (80, 81)]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    monkeypatch.setattr(examination, "_MAX_ANIMATION_PIXELS", frames[0].width * frames[0].height)
    candidate, encoded = examine(content)
    assert isinstance(candidate, Candidate)
    assert candidate.format == "png"
    expected = preprocessing.decode(tf.constant(content)).numpy()
    np.testing.assert_array_equal(preprocessing.decode(tf.constant(encoded)).numpy(), expected)


def test_profile_of_a_foreign_format_is_not_kept(encode: Encode) -> None:
    """It is of the colours before they were converted."""
    _, encoded = examine(encode(draw(82).convert("CMYK"), "TIFF", icc_profile=b"a profile"))
    with Image.open(io.BytesIO(encoded)) as image:
        assert "icc_profile" not in image.info
