"""What is refused for its structure, with the rule; and that what cameras and programs write is not."""

import random
import re
import struct
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from client.classifier_client import ImageError, decoding, structure
from tests import hostile_images
from tests.export.encoded_images import KINDS, Encode, draw, oriented, palette, png_chunk


def segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: hostile_images.jpeg_of_scans(90, side_px=64), "a JPEG may have at most 80 scans of a component"),
        (lambda: hostile_images.jpeg_of_comments(10_000), "a JPEG may have at most 2,000 segments"),
        (lambda: hostile_images.jpeg_of_exif(1_000), "a JPEG may have at most 32 segments of Exif"),
        (
            lambda: hostile_images.jpeg_of_padding(70_000),
            "a JPEG may have at most 64,000 bytes outside of its segments",
        ),
        (hostile_images.jpeg_of_exif_headers, "a JPEG may have at most 8 headers of Exif"),
        (lambda: hostile_images.png_of_texts(300), "a PNG may have at most 256 chunks besides its pixels"),
        (lambda: hostile_images.png_of_nothing(100_001), "a PNG may have at most 100,000 chunks"),
        (lambda: hostile_images.gif_of_comments(3_000), "a GIF may have at most 1,000 blocks of comments"),
        (hostile_images.gif_of_extensions, "a GIF may have at most 100,000 blocks before its first frame"),
        (lambda: hostile_images.ppm_of_blanks(70_000), "a PPM may have at most 64,000 bytes in its head"),
        (lambda: hostile_images.ppm_of_comments(2_000), "a PPM may have at most 1,000 comments"),
        (hostile_images.tiff_of_entries, "a TIFF may have at most 2,000 entries in a directory"),
        (lambda: hostile_images.tiff_of_shared_data(50), "a TIFF may have at most 32 MB in a directory"),
        (hostile_images.tiff_of_tiles, "a TIFF may have at most 200,000 values in an entry"),
        (hostile_images.jp2_of_tiles, "a JPEG 2000 may have at most 4,096 tiles"),
        (hostile_images.jp2_of_blocks, "a JPEG 2000 may have at most 80,000 code-blocks"),
        (lambda: hostile_images.jp2_of_boxes(1_001), "a JPEG 2000 may have at most 1,000 boxes"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_absurd_structure_is_refused_with_the_rule(make: Callable[[], bytes], rule: str) -> None:
    with pytest.raises(
        ImageError, match=rf"photo: too complex: {re.escape(rule)}.*; save it anew as a JPEG"
    ) as failure:
        decoding.open_encoded(make(), "photo")
    assert failure.value.code == "too_complex"


def test_exif_of_an_avif_whose_entries_share_their_data_is_refused(encode: Encode) -> None:
    """Pillow copies the data of each."""
    plain = b"II*\0\x08\0\0\0\0\0" + bytes(24_100)
    entries = b"".join(struct.pack("<HHII", 0x9000 + number, 7, 20_000, 0) for number in range(1900))
    avif = encode(draw(), "AVIF", exif=plain)
    assert plain in avif
    structure.check(avif, "photo")
    with pytest.raises(ImageError, match="AVIF may have at most 32 MB in a directory"):
        structure.check(
            avif.replace(plain, (b"II*\0\x08\0\0\0" + struct.pack("<H", 1900) + entries).ljust(len(plain), b"\0")),
            "photo",
        )


def test_camera_photo_with_much_metadata_is_taken(encode: Encode) -> None:
    jpeg = encode(draw(), "JPEG", progressive=True, exif=oriented(6))
    maker_note = segment(0xE1, b"Exif\0\0" + b"MakerNote" * 7_000)
    xmp = segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000))
    profile = [segment(0xE2, b"ICC_PROFILE\0" + bytes([number + 1, 40]) + bytes(60_000)) for number in range(40)]
    photoshop = segment(0xED, b"Photoshop 3.0\0" + bytes(65_000))
    large = with_segments(jpeg, *[xmp] * 300, *profile, *[photoshop] * 50, segment(0xFE, b"comment"))
    assert decoding.decode(large, "photo").size == (180, 250)
    start = jpeg.index(b"\xff\xdb")
    assert decoding.decode(jpeg[:start] + maker_note * 3 + jpeg[start:], "photo").size == (180, 250)


def test_png_in_thousands_of_chunks_and_long_animations_are_taken(encode: Encode) -> None:
    png = encode(Image.effect_noise((800, 800), 90), "PNG")
    start, end = png.index(b"IDAT") - 4, png.rindex(b"IEND") - 4
    data = b"".join(part.group(1) for part in [re.match(rb"....IDAT(.*)....", png[start:end], re.DOTALL)] if part)
    pieces = [png_chunk(b"IDAT", data[at : at + 60]) for at in range(0, len(data), 60)]
    assert len(pieces) > 5_000
    structure.check(png[:start] + b"".join(pieces) + png[end:], "photo")
    structure.check(hostile_images.png_of_frames(500), "photo")
    structure.check(hostile_images.gif_of_frames(500), "photo")
    xmp = b"\x21\xff\x0bXMP DataXMP" + b"<" + b"x" * 60
    gif = encode(palette(), "GIF", comment=b"x" * 10_000)
    assert decoding.decode(gif.replace(b"\x21\xfe", xmp + b"\0\x21\xfe", 1), "photo").size == (250, 180)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_is_taken(kind: str, encode: Encode) -> None:
    structure.check(KINDS[kind](encode), "photo")


@pytest.mark.parametrize("kind", ["TIFF", "JPEG2000", "AVIF", "PPM", "BMP", "WEBP"])
def test_image_of_another_format_is_taken(kind: str, encode: Encode) -> None:
    structure.check(encode(draw(1000, 800), kind), "photo")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "JPEG2000", "AVIF", "PPM", "BMP"])
def test_damaged_file_is_walked_without_any_other_error(kind: str, encode: Encode) -> None:
    encoded = encode(draw(40, 30), kind, **({"exif": oriented(6)} if kind != "GIF" else {}))
    rng = random.Random(0)
    for _ in range(500):
        damaged = bytearray(encoded[: rng.randrange(len(encoded) + 1)])
        for _ in range(min(len(damaged), 4)):
            damaged[rng.randrange(len(damaged))] = rng.choice((0, 1, 0xFF, rng.randrange(256)))
        with suppress(ImageError):
            structure.check(bytes(damaged), "photo")


def test_walk_of_an_ordinary_photo_takes_little_time(encode: Encode) -> None:
    noise = np.random.default_rng(0).integers(-8, 9, (3000, 4000, 3))
    photo = Image.fromarray((np.asarray(draw(4000, 3000)) + noise).clip(0, 255).astype(np.uint8))
    jpeg = encode(photo, "JPEG", quality=90)
    assert len(jpeg) > 1_500_000
    seconds = []
    for _ in range(5):
        start = time.process_time()
        structure.check(jpeg, "photo")
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.01  # 1 to 2 ms; ten times that is noise of the machine.


def test_pixels_of_all_frames_of_a_gif_are_counted() -> None:
    most = 10**9
    assert structure.count_gif_pixels(hostile_images.gif_of_frames(9), most=most) == 9 * (64 + 2_500)
    assert structure.count_gif_pixels(hostile_images.gif_of_large_frames(3), most=30_000_000) > 30_000_000
    assert structure.count_gif_pixels(b"GIF89a", most=most) == 0
