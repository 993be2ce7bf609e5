"""The client's pixels compared with the model's own preprocessing, and files that cannot be read."""

import io
import re
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from client.classifier_client import ImageError, preprocessing
from tests.export import encoded_images
from tests.export.encoded_images import KINDS, Encode, assert_close, draw, noise, oriented, palette, png_chunk, png_head

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT.parent / "shared" / "data" / "photos_fullsize"
SIZE_PX = 224
FORMATS = ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM"]


def load(source: Any, size_px: int = SIZE_PX) -> NDArray[np.uint8]:
    return np.asarray(preprocessing.load(source, name="photo", size_px=size_px))


def assert_model_sees_the_same(encoded: bytes, size_px: int = SIZE_PX) -> None:
    assert_close(load(encoded, size_px), encoded_images.load(encoded, size_px))


# --- the same as the model's


@pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"needs the photos in {PHOTOS}")
def test_photos_give_the_pixels_that_the_model_was_trained_with() -> None:
    photos = [path.read_bytes() for path in sorted(PHOTOS.glob("*/*.jpg"))]
    assert len(photos) >= 40
    for encoded in photos:
        assert_model_sees_the_same(encoded)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_pixels_that_the_model_was_trained_with(kind: str, encode: Encode) -> None:
    assert_model_sees_the_same(KINDS[kind](encode))


@pytest.mark.parametrize("size_px", [32, 300])
@pytest.mark.parametrize("size", [(1, 1), (3, 700), (300, 300), (640, 427)])
def test_resizing_agrees_whatever_the_sizes(size: tuple[int, int], size_px: int, encode: Encode) -> None:
    assert_model_sees_the_same(encode(noise(*size), "PNG"), size_px)


@cache
def large_image() -> Image.Image:
    """A noisy image with odd sides, 13 times as large as needed for `SIZE_PX // 2`: a JPEG is decoded at a half."""
    samples = np.asarray(draw(2001, 1499)).astype(int) + np.random.default_rng(0).integers(-15, 16, (1499, 2001, 3))
    return Image.fromarray(samples.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("subsampling", [0, 2], ids=["4:4:4", "4:2:0"])
def test_large_jpeg_that_is_not_decoded_in_full_gives_the_same_pixels(
    mode: str, subsampling: int, encode: Encode
) -> None:
    photo = encode(large_image().convert(mode), "JPEG", quality=92, subsampling=subsampling)
    assert_model_sees_the_same(photo, SIZE_PX // 2)


def pattern(kind: str, width: int, height: int, period_px: int, colours: tuple[int, int]) -> NDArray[np.uint8]:
    """Return stripes, blocks or noise of a period, of two colours `0xRRGGBB`."""
    rows, columns = np.mgrid[:height, :width] // period_px
    if kind == "noise":
        seen = np.random.default_rng(period_px).integers(0, 2, (rows.max() + 1, columns.max() + 1))[rows, columns]
    else:
        seen = {"stripes": columns, "lines": rows, "diagonals": rows + columns, "blocks": (rows % 2) ^ columns}[
            kind
        ] % 2
    shades = np.array([[colour >> 16, colour >> 8 & 255, colour & 255] for colour in colours], np.uint8)
    return shades[seen]


def difference(encoded: bytes, size_px: int) -> NDArray[np.int64]:
    """Return how far each value is from what the model was trained with."""
    return np.abs(load(encoded, size_px).astype(int) - encoded_images.load(encoded, size_px).astype(int))


PATTERNS = st.builds(
    pattern,
    kind=st.sampled_from(["stripes", "lines", "diagonals", "blocks", "noise"]),
    width=st.integers(1, 380),
    height=st.integers(1, 380),
    period_px=st.integers(1, 9),
    colours=st.tuples(st.integers(0, 0xFFFFFF), st.sampled_from([0, 0xFFFFFF, 0x0000FF, 0x00FF00])),
)
SUBSAMPLINGS = st.sampled_from(["4:4:4", "4:2:2", "4:2:0"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(image=PATTERNS, subsampling=SUBSAMPLINGS, quality=st.integers(30, 100), size_px=st.integers(32, 64))
def test_image_that_is_decoded_in_full_differs_by_one_level_whatever_it_is(
    encode: Encode, image: NDArray[np.uint8], subsampling: str, quality: int, size_px: int
) -> None:
    for encoded in (encode(image, "PNG"), encode(image, "JPEG", quality=quality, subsampling=subsampling)):
        assert difference(encoded, size_px).max() <= 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sample=st.sampled_from(sorted((ROOT / "client" / "samples").glob("*.jpg"))),
    size=st.tuples(st.integers(400, 1600), st.integers(400, 1600)),
    subsampling=SUBSAMPLINGS,
    quality=st.integers(60, 98),
)
# The worst of 3,000 draws near the sides at which the decoding changes.
@example(sample=ROOT / "client" / "samples" / "dandelion.jpg", size=(769, 860), subsampling="4:2:2", quality=75)
def test_photo_that_is_not_decoded_in_full_differs_by_two_levels_on_all_but_a_value_of_two_hundred(
    encode: Encode, sample: Path, size: tuple[int, int], subsampling: str, quality: int
) -> None:
    """With the sizes of photos beside a model that takes 224 pixels, all divided by seven."""
    with Image.open(sample) as photo:
        large = photo.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    encoded = encode(large, "JPEG", quality=quality, subsampling=subsampling)
    differences = difference(encoded, 32)
    assert np.mean(differences > 2) <= 1 / 200
    assert differences.max() <= 5


def test_pattern_that_is_not_decoded_in_full_differs_by_no_more_than_is_said(encode: Encode) -> None:
    largest = {
        (kind, subsampling): difference(
            encode(pattern(kind, 1230, 1470, 1, (0, colour)), "JPEG", quality=92, subsampling=subsampling), 32
        ).max()
        for kind in ("stripes", "diagonals", "blocks")
        for subsampling in ("4:4:4", "4:2:0")
        for colour in (0xFFFFFF, 0x0000FF, 0x00FF00)
    }
    assert 10 < max(largest.values()) <= 50


def test_large_pillow_image_is_left_as_it_is(encode: Encode) -> None:
    with Image.open(io.BytesIO(encode(draw(3000, 2000), "JPEG"))) as image:
        load(image)
        assert image.size == (3000, 2000)


@pytest.mark.parametrize("kind", ["JPEG", "RGBA PNG"])
def test_graph_changes_nothing_of_an_image_of_its_size(kind: str, encode: Encode) -> None:
    """So the pixels may go as a PNG to the signature that decodes."""
    pixels = load(KINDS[kind](encode))
    np.testing.assert_array_equal(encoded_images.load(encode(pixels, "PNG"), SIZE_PX), pixels)


def test_webp_is_read_too(encode: Encode) -> None:
    encoded = encode(draw(), "WEBP", lossless=True, exif=oriented(6))
    np.testing.assert_array_equal(load(encoded), load(encode(draw(), "PNG"))[::-1].transpose(1, 0, 2))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "HSV", "PA", "I;16"])
def test_pillow_image_of_any_mode_with_a_white_is_taken(mode: str) -> None:
    pixels = load(Image.new("RGB", (8, 8), "white").convert(mode) if mode != "I;16" else Image.new(mode, (8, 8), 65535))
    assert pixels.min() == 255


def test_16_bit_pillow_image_keeps_its_high_byte() -> None:
    samples = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    np.testing.assert_array_equal(load(Image.fromarray(samples), 16)[..., 0], samples >> 8)


def test_pillow_image_that_was_turned_already_is_not_turned_again(encode: Encode) -> None:
    with Image.open(io.BytesIO(encode(draw(), "JPEG", exif=oriented(6)))) as image:
        assert_close(load(ImageOps.exif_transpose(image)), load(image))


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 3), (40, 30, 4)])
def test_array_is_taken_as_it_is(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
    if shape[-1] == 4:
        array[..., 3] = 255
    expected = np.stack([array] * 3, -1) if len(shape) == 2 else array[..., :3]
    np.testing.assert_array_equal(load(array), load(Image.fromarray(np.ascontiguousarray(expected))))
    np.testing.assert_array_equal(load(array[::-1]), load(Image.fromarray(np.ascontiguousarray(expected[::-1]))))


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"II",
        b"II*\0\x08\0\0\0",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff",
        b"not a TIFF head" * 3,
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0",
    ],
)
def test_malformed_exif_turns_nothing(exif: bytes, encode: Encode) -> None:
    segment = b"Exif\0\0" + exif
    plain = encode(draw(), "JPEG")
    encoded = plain[:2] + struct.pack(">BBH", 0xFF, 0xE1, len(segment) + 2) + segment + plain[2:]
    np.testing.assert_array_equal(load(encoded), load(plain))


# --- files that cannot be read


def refuse(source: Any) -> str:
    with pytest.raises(ImageError) as failure:
        preprocessing.load(source, name="photo.jpg", size_px=SIZE_PX)
    assert failure.value.image == "photo.jpg"
    assert "\n" not in str(failure.value)
    return failure.value.reason


NOT_AN_IMAGE = r"not an image that can be read \(JPEG, PNG, .* or PPM\), or damaged: it begins with"
WRONG_ARRAY = r"an array must be uint8 \[height, width, 3\].*; received "


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"hello", NOT_AN_IMAGE),
        (b"\xff\xd8\xff", NOT_AN_IMAGE),
        (b"\x89PNG\r\n\x1a\n", NOT_AN_IMAGE),
        (bytes(100), NOT_AN_IMAGE),
        (b"", "^empty; send an image$"),
        ("a\0b", "damaged"),
        (io.StringIO("text"), "open it for reading bytes"),
        (Image.new("I", (4, 4)), "convert it to RGB yourself"),
        (Image.new("F", (4, 4)), "convert it to RGB yourself"),
        (Image.new("RGB", (0, 0)), "no pixels"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((4, 4, 3)), WRONG_ARRAY + r"<f8 \[4, 4, 3\]"),
        (np.zeros((4, 4, 3), np.int64), WRONG_ARRAY + r"<i8 \[4, 4, 3\]"),
        (np.zeros((4, 4, 2), np.uint8), WRONG_ARRAY + r"\|u1 \[4, 4, 2\]"),
        (np.zeros(3, np.uint8), WRONG_ARRAY + r"\|u1 \[3\]"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isprintable() else type(value).__name__,
)
def test_source_that_is_no_image_is_refused_with_the_reason(source: Any, reason: str) -> None:
    assert re.search(reason, refuse(source))


@pytest.mark.parametrize("kind", ["TGA", "PCX", "SGI"])
def test_format_beyond_the_known_is_refused(kind: str, encode: Encode) -> None:
    assert re.match(NOT_AN_IMAGE, refuse(encode(draw(), kind)))


def test_path_that_is_missing_empty_or_a_folder_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    assert refuse(tmp_path / "missing.jpg") == "cannot be read (No such file or directory); check the path"
    assert refuse(tmp_path) == "cannot be read (Is a directory); check the path"
    assert refuse(tmp_path / "empty.jpg") == "empty; send an image"


def test_file_of_too_many_bytes_is_refused_before_it_is_all_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        num_read = 0

        def read(self, size: int) -> bytes:
            self.num_read += size
            return bytes(size)

    monkeypatch.setattr(preprocessing, "MAX_BYTES", 1000)
    endless = Endless()
    assert "larger than" in refuse(endless)
    assert endless.num_read == 1001
    assert "larger than" in refuse(bytes(1001))


@pytest.mark.parametrize("size", [(5001, 5000), (12000, 12000), (60000, 60000)])
def test_claim_of_too_many_pixels_is_refused_before_decoding(size: tuple[int, int]) -> None:
    # Only a header. Had decoding begun, the reason would be another. Pillow warns from 89 megapixels on.
    encoded = png_head(size) + png_chunk(b"IDAT", bytes(4))
    assert "an image may have at most 25,000,000 pixels, and it claims" in refuse(encoded)


def test_small_file_that_unpacks_to_144_million_pixels_costs_no_memory(tmp_path: Path, encode: Encode) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(encode(Image.new("1", (12000, 12000)), "PNG"))
    assert bomb.stat().st_size < 20_000
    script = (
        "import sys\n"
        "from client.classifier_client import ImageError, preprocessing\n"
        "try: preprocessing.load(sys.argv[1], name='bomb', size_px=224)\n"
        "except ImageError: print(*[line for line in open('/proc/self/status') if line.startswith('VmHWM')])\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script, bomb], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert int(printed.split()[1]) < 80_000  # kB; decoded it would take 432 MB


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_file_that_is_cut_short_is_refused(kind: str, share: float, encode: Encode) -> None:
    encoded = encode(palette() if kind == "GIF" else draw(), kind)
    assert "damaged" in refuse(encoded[: int(len(encoded) * share)])


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_file_gives_an_error_or_an_image(kind: str, encode: Encode) -> None:
    encoded = encode(draw(40, 30).quantize(32) if kind == "GIF" else draw(40, 30), kind, exif=oriented(6))
    rng = np.random.default_rng(2)
    num_refused = 0
    for _ in range(300):
        damaged = bytearray(encoded)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(min(len(damaged), 400))] = rng.integers(256)
        try:
            assert load(bytes(damaged), 16).shape == (16, 16, 3)
        except ImageError:
            num_refused += 1
    assert num_refused > 0
