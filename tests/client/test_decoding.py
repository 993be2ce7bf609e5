"""Formats and modes beyond those that TensorFlow decodes, large JPEGs, and what is said of files that are not read."""

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from client.classifier_client import ImageError, colours, decoding
from tests.export.encoded_images import Encode, draw, oriented, translucent
from tests.export.tiff import write_tiff

ROOT = Path(__file__).resolve().parents[2]
RAMP = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16) + 77
HIGH = (RAMP >> 8).astype(np.uint8)


def decode(encoded: bytes) -> NDArray[np.uint8]:
    return np.asarray(decoding.decode(encoded, "photo"))


def refuse(encoded: bytes) -> ImageError:
    with pytest.raises(ImageError) as failure:
        decoding.decode(encoded, "photo")
    assert "\n" not in str(failure.value)
    return failure.value


def test_16_bit_tiff_keeps_its_high_byte() -> None:
    for order in "<>":
        np.testing.assert_array_equal(decode(write_tiff(RAMP, order=order))[..., 0], HIGH)
    color = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=-1)
    np.testing.assert_array_equal(decode(write_tiff(color, photometric=2)), (color >> 8).astype(np.uint8))


def test_tiff_whose_white_is_zero_is_no_negative() -> None:
    np.testing.assert_array_equal(decode(write_tiff(RAMP, photometric=0))[..., 0], 255 - HIGH)
    np.testing.assert_array_equal(decode(write_tiff(HIGH, photometric=0))[..., 0], 255 - HIGH)


def test_12_bit_tiff_keeps_its_8_highest_bits() -> None:
    samples = RAMP >> 4
    digits = "".join(f"{sample:03x}" for sample in samples.ravel())
    encoded = write_tiff(np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(16, 24), width=16, bits=12)
    np.testing.assert_array_equal(decode(encoded)[..., 0], HIGH)


def test_16_bit_pgm_and_jpeg_2000_keep_their_high_byte(encode: Encode) -> None:
    image = Image.fromarray(RAMP)
    for kind, options in (("PPM", {}), ("JPEG2000", {"irreversible": False})):
        np.testing.assert_array_equal(decode(encode(image, kind, **options))[..., 0], HIGH)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "CMYK", "LAB"])
def test_tiff_of_any_mode_gives_the_colours_of_pillow(mode: str, encode: Encode) -> None:
    image = draw().convert(mode) if mode != "LAB" else Image.new("LAB", (4, 4), (150, 30, 200))
    np.testing.assert_array_equal(decode(encode(image, "TIFF")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA"])
def test_transparency_of_a_tiff_is_laid_over_white(mode: str, encode: Encode) -> None:
    image = translucent("RGBA") if mode == "PA" else translucent(mode)
    if mode == "PA":
        image = draw().convert("P").convert("PA")
        image.putalpha(120)
    rgba = np.asarray(image.convert("RGBA")).astype(float)
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    np.testing.assert_allclose(decode(encode(image, "TIFF")), expected, atol=1)


def test_premultiplied_tiff_is_not_darkened() -> None:
    rgba = np.full((4, 4, 4), (50, 25, 0, 128), np.uint8)
    np.testing.assert_allclose(decode(write_tiff(rgba, photometric=2, extra_sample=1))[0, 0], (177, 152, 127), atol=2)


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.int16])
def test_tiff_in_which_nothing_says_what_is_white_is_refused(dtype: Any) -> None:
    error = refuse(write_tiff(np.ones((4, 4), dtype)))
    assert error.reason.startswith("nothing says which value of mode")


def test_first_page_of_a_tiff_counts(encode: Encode) -> None:
    pages = encode(draw(), "TIFF", save_all=True, append_images=[draw().rotate(90)])
    np.testing.assert_array_equal(decode(pages), np.asarray(draw()))


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "AVIF", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_undone_in_every_format(kind: str, orientation: int, encode: Encode) -> None:
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(kind, {})
    turned = draw()
    turned.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(turned)).astype(int)
    received = decode(encode(draw(), kind, exif=oriented(orientation), **options))
    assert received.shape == expected.shape
    assert np.abs(received - expected).mean() < 1  # AVIF changes colours a little.


def tiff_with(tag: int, value: int) -> bytes:
    return write_tiff(HIGH, more={tag: value})


@pytest.mark.parametrize(
    ("encoded", "what"),
    [
        (b"\xff\x0a\xfa", "a JPEG XL image"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"\n<!DOCTYPE html><html><svg/></html>", "a web page"),
        (b"%PDF-1.7", "a PDF document"),
        (b"%!PS-Adobe", "a PostScript document"),
        (b"8BPS\0\1", "a Photoshop document"),
        (b"\0\0\1\0\1\0", "an icon"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photo"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC photo"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "a video"),
        (b"\x1aE\xdf\xa3\x01", "a video"),
        (b"RIFF\0\0\0\0AVI LIST", "a video"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "a camera's RAW file"),
        (b"II*\0\x10\0\0\0CR\2\0", "a camera's RAW file"),
        (b"FUJIFILMCCD-RAW 0201", "a camera's RAW file"),
        (tiff_with(50706, 1), "a camera's RAW file"),
        (tiff_with(254, 1), "a TIFF whose first image is a small preview, as in a camera's RAW file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_read_is_named(encoded: bytes, what: str) -> None:
    error = refuse(encoded)
    assert (error.reason, error.code) == (
        f"{what}, not an image that can be read ({decoding.READABLE}); convert it to JPEG",
        "not_an_image",
    )


def test_tile_of_a_tiff_that_is_larger_than_any_image_is_refused() -> None:
    """It would be decoded as a whole."""
    assert refuse(write_tiff(HIGH, more={322: 20000, 323: 20000})).code == "too_many_pixels"


@pytest.mark.parametrize(
    ("kind", "what"),
    [("WEBP", "a WebP"), ("AVIF", "an AVIF"), ("JPEG2000", "a JPEG 2000"), ("ppm_plain", "a PPM as text")],
)
def test_format_that_costs_more_may_have_fewer_pixels(
    kind: str, what: str, monkeypatch: pytest.MonkeyPatch, encode: Encode
) -> None:
    monkeypatch.setitem(decoding.FORMAT_PIXELS, kind, (what, 12_000))
    for height in (100, 101):
        encoded = encode(draw(120, height), kind) if kind != "ppm_plain" else b"P2 120 %d 9 " % height + b"0 " * 12_120
        if height == 100:
            assert decoding.decode(encoded, "photo").size == (120, 100)
        else:
            error = refuse(encoded)
            assert error.code == "too_many_pixels"
            assert error.reason.startswith(f"{what} may have at most 12,000 pixels, and it claims 120 × 101; make")


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA", "I;16", "CMYK", "1"])
def test_image_converted_in_bands_is_the_same_as_in_one(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = (translucent() if mode in ("LA", "RGBA") else draw()).resize((301, 403))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    image = image.convert("P" if mode == "PA" else mode).convert(mode)
    for size in (None, (40, 30), (500, 600)):
        monkeypatch.setattr(colours, "_BAND_PIXELS", 10**9)
        expected = np.asarray(colours.to_rgb(image, "photo", size=size)).astype(int)
        monkeypatch.setattr(colours, "_BAND_PIXELS", 5_000)
        received = np.asarray(colours.to_rgb(image, "photo", size=size))
        assert np.abs(received - expected).max() <= 1  # Bands begin at fractions of a pixel, which are rounded.


# --- large JPEGs


def test_large_jpeg_is_reduced_to_what_is_allowed(monkeypatch: pytest.MonkeyPatch, encode: Encode) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 60_000)
    monkeypatch.setattr(decoding, "MAX_JPEG_PIXELS", 700_000)
    for size, expected in (((240, 250), (240, 250)), ((241, 250), (121, 125)), ((800, 600), (200, 150))):
        encoded = encode(draw(*size), "JPEG", quality=95)
        assert decoding.decode(encoded, "photo").size == expected
    assert refuse(encode(draw(1000, 701), "JPEG")).code == "too_many_pixels"


@pytest.mark.parametrize("kind", ["progressive JPEG", "PNG"])
def test_image_that_cannot_be_decoded_smaller_is_refused(
    kind: str, monkeypatch: pytest.MonkeyPatch, encode: Encode
) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 60_000)
    large = draw(300, 250)
    error = refuse(encode(large, "JPEG", progressive=True) if "JPEG" in kind else encode(large, "PNG"))
    assert error.reason == (
        "an image may have at most 60,000 pixels, and it claims 300 × 250; make a smaller copy "
        "(or a JPEG that is not progressive: it may have 210,000,000)"
    )


def test_jpeg_of_a_scan_for_each_component_is_refused_as_a_progressive_one(
    monkeypatch: pytest.MonkeyPatch, encode: Encode
) -> None:
    """Its decoder keeps every coefficient too."""
    monkeypatch.setattr(decoding, "MAX_PIXELS", 60_000)
    jpeg = encode(draw(300, 250), "JPEG")
    start = jpeg.index(b"\xff\xda")
    assert jpeg[start + 4] == 3
    first_scan = struct.pack(">BBHBBB3B", 0xFF, 0xDA, 8, 1, 1, 0, 0, 63, 0)
    assert refuse(jpeg[:start] + first_scan + jpeg[start + 14 :]).code == "too_many_pixels"


@pytest.mark.slow
def test_jpeg_of_200_megapixels_costs_little_memory(tmp_path: Path) -> None:
    photo = tmp_path / "phone.jpg"
    Image.linear_gradient("L").resize((16320, 12240)).convert("RGB").save(photo, quality=80)
    script = (
        "import sys\n"
        "from client.classifier_client import decoding, preprocessing\n"
        "print(preprocessing.load(sys.argv[1], name='phone', size_px=224).size)\n"
        "print(*[line for line in open('/proc/self/status') if line.startswith('VmHWM')])\n"
        "print(decoding.decode(open(sys.argv[1], 'rb').read(), 'phone').size)\n"
        "print(*[line for line in open('/proc/self/status') if line.startswith('VmHWM')])\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script, photo], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout.split("\n")
    assert (printed[0], printed[3]) == ("(224, 224)", "(4080, 3060)")
    assert int(printed[1].split()[1]) < 80_000  # kB; decoded in full it would take 600 MB
    assert int(printed[4].split()[1]) < 200_000
