"""The one decoding and resizing, compared with Pillow, which the client uses, and on damaged and hostile files."""

import doctest
import io
import resource
import struct
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, ImageOps

from export import preprocessing
from tests.export.encoded_images import (
    PLAIN_KINDS,
    Encode,
    assert_close,
    decode_graph,
    draw,
    load,
    noise,
    png_chunk,
    png_head,
    write_16_bit_png,
    write_png,
)


def decode(encoded: bytes) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = decode_graph(tf.constant(encoded)).numpy()
    return pixels


def decode_with_pillow(encoded: bytes) -> Image.Image:
    """Decode as the client does: the first frame, upright, transparency over white."""
    with Image.open(io.BytesIO(encoded)) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.has_transparency_data:
            white = Image.new("RGBA", upright.size, "white")
            white.alpha_composite(upright.convert("RGBA"))
            upright = white
        return upright.convert("RGB")


def assert_resized_as_pillow_does(encoded: bytes, size_px: int) -> None:
    expected = decode_with_pillow(encoded).resize((size_px, size_px), Image.Resampling.BILINEAR)
    assert_close(load(encoded, size_px), np.asarray(expected))


# --- what the pixels are


@pytest.mark.parametrize("size_px", [32, 96, 224])
@pytest.mark.parametrize("size", [(500, 375), (97, 333), (224, 224), (40, 30), (16, 700)])
@pytest.mark.parametrize("make", [draw, noise])
def test_resizing_agrees_with_pillow(make: Any, size: tuple[int, int], size_px: int, encode: Encode) -> None:
    assert_resized_as_pillow_does(encode(make(*size), "PNG"), size_px)


@pytest.mark.parametrize("make", [draw, noise])
@pytest.mark.parametrize(
    "options",
    [{"subsampling": s, "progressive": p} for s in (0, 1, 2) for p in (False, True)] + [{"keep_rgb": True}],
    ids=str,
)
def test_jpeg_agrees_with_pillow(make: Any, options: dict[str, Any], encode: Encode) -> None:
    assert_resized_as_pillow_does(encode(make(160, 120), "JPEG", quality=75, **options), 224)


@pytest.mark.parametrize("kind", PLAIN_KINDS)
def test_every_kind_of_file_decodes_to_the_pixels_of_pillow(kind: str, encode: Encode) -> None:
    encoded = PLAIN_KINDS[kind](encode)
    expected = np.asarray(decode_with_pillow(encoded)).astype(int)
    # Blending over white is rounded once here and by Pillow in fixed point.
    assert np.abs(decode(encoded) - expected).max() <= 1


@pytest.mark.parametrize("depth", [2, 4])
def test_grey_png_of_few_bits_keeps_its_brightness(depth: int) -> None:
    rows = np.array([[0, 0b00011011], [0, 0b11100100]], np.uint8)
    encoded = write_png(rows, size=(8 // depth, 2), depth=depth, kind=0)
    np.testing.assert_array_equal(decode(encoded), np.asarray(decode_with_pillow(encoded)))


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_png_keeps_the_high_byte(kind: int, channels: int) -> None:
    samples = np.random.default_rng(1).integers(0, 2**16, (6, 5, channels), dtype=np.uint16)
    if channels in (2, 4):
        samples[..., -1] = 0xFFFF
    expected = np.broadcast_to((samples >> 8).astype(np.uint8)[..., : 1 if channels < 3 else 3], (6, 5, 3))
    np.testing.assert_array_equal(decode(write_16_bit_png(samples, kind)), expected)


def test_interlaced_png_is_assembled() -> None:
    # One pixel: the first of Adam7's seven passes is the whole image.
    encoded = write_png(np.array([[0, 10, 20, 30]], np.uint8), size=(1, 1), depth=8, kind=2, interlace=1)
    assert decode(encoded).tolist() == [[[10, 20, 30]]]
    # Four by four pixels: passes 1, 4, 5, 6 and 7 have 1, 1, 2, 4 and 8 of them.
    image = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16
    passes = [image[0:1, 0:1], image[0:1, 2:3], image[2:3, 0:4:2], image[0:4:2, 1:4:2], image[1:4:2]]
    rows = np.concatenate([np.insert(p, 0, 0, axis=1).ravel() for p in passes])
    encoded = write_png(rows, size=(4, 4), depth=8, kind=0, interlace=1)
    np.testing.assert_array_equal(decode(encoded)[..., 0], image)
    np.testing.assert_array_equal(decode(encoded), np.asarray(decode_with_pillow(encoded)))


def test_animation_gives_its_first_frame(encode: Encode) -> None:
    frames = [draw().rotate(turn).quantize(64) for turn in (0, 90, 180)]
    animated = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(animated), np.asarray(frames[0].convert("RGB")))


def test_transparency_of_a_gif_is_black(encode: Encode) -> None:
    """TensorFlow's rule; it gives no alpha to lay over white with."""
    image = Image.new("P", (2, 1))
    image.putpalette([200, 10, 10, 10, 200, 10])
    image.putdata([0, 1])
    assert decode(encode(image, "GIF", transparency=0)).tolist() == [[[0, 0, 0], [10, 200, 10]]]


def test_bmp_stored_from_the_top_is_not_upside_down(encode: Encode) -> None:
    image = draw(40, 30)
    bottom_up = encode(image, "BMP")
    rows = np.frombuffer(bottom_up[54:], np.uint8).reshape(30, -1)
    top_down = bottom_up[:22] + struct.pack("<i", -30) + bottom_up[26:54] + rows[::-1].tobytes()
    np.testing.assert_array_equal(decode(bottom_up), np.asarray(image))
    np.testing.assert_array_equal(decode(top_down), np.asarray(image))


def test_load_is_decode_and_resize_in_eager_mode_in_a_function_and_in_a_data_set(encode: Encode) -> None:
    encoded = encode(draw(), "JPEG", exif=make_exif(6)[6:])
    expected = load(encoded, 32)
    np.testing.assert_array_equal(preprocessing.load(tf.constant(encoded), 32).numpy(), expected)
    mapped = tf.data.Dataset.from_tensors(encoded).map(lambda e: preprocessing.load(e, 32))
    assert mapped.element_spec == tf.TensorSpec([32, 32, 3], tf.uint8)
    np.testing.assert_array_equal(next(iter(mapped)).numpy(), expected)


# --- EXIF


def make_exif(orientation: int, order: str = "<", *, num_before: int = 2) -> bytes:
    """Return the content of an APP1 segment with an orientation after some other tags."""
    entries = [struct.pack(order + "HHI4s", 0x010E + n, 2, 4, b"abc\0") for n in range(num_before)]
    entries.append(struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return b"Exif\0\0" + head + struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)


def with_segments(jpeg: bytes, *segments: tuple[int, bytes]) -> bytes:
    """Insert segments, as (marker, content), before all others of a JPEG."""
    added = b"".join(struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content for marker, content in segments)
    return jpeg[:2] + added + jpeg[2:]


APP0, APP1, APP2, COM = 0xE0, 0xE1, 0xE2, 0xFE


@pytest.mark.parametrize("order", ["<", ">"], ids=["little endian", "big endian"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone_as_pillow_does(orientation: int, order: str, encode: Encode) -> None:
    encoded = with_segments(encode(draw(), "JPEG"), (APP1, make_exif(orientation, order)))
    np.testing.assert_array_equal(decode(encoded), np.asarray(decode_with_pillow(encoded)))
    assert decode(encoded).shape == ((180, 250, 3) if orientation < 5 else (250, 180, 3))
    assert_resized_as_pillow_does(encoded, 64)


@pytest.mark.parametrize(
    "others",
    [
        [(APP1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>")],
        [(APP2, b"ICC_PROFILE\0\1\1" + bytes(3000))],
        [(COM, b"a comment"), (COM, b"")],
        [(APP0, b"JFIF\0\1\1\0\0\1\0\1\0\0"), (COM, b"x" * 65533), (APP2, bytes(300))],
    ],
    ids=["XMP", "ICC", "comments", "several"],
)
def test_exif_is_found_behind_other_segments(others: list[tuple[int, bytes]], encode: Encode) -> None:
    encoded = with_segments(encode(draw(), "JPEG"), *others, (APP1, make_exif(6)))
    assert decode(encoded).shape == (250, 180, 3)
    np.testing.assert_array_equal(decode(encoded), np.asarray(decode_with_pillow(encoded)))


def with_chunk(png: bytes, name: bytes, content: bytes) -> bytes:
    """Insert a chunk behind a PNG's header."""
    return png[:33] + png_chunk(name, content) + png[33:]


@pytest.mark.parametrize("order", ["<", ">"], ids=["little endian", "big endian"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_png_is_undone_as_pillow_does(orientation: int, order: str, encode: Encode) -> None:
    encoded = with_chunk(encode(draw(), "PNG"), b"eXIf", make_exif(orientation, order)[6:])
    encoded = with_chunk(encoded, b"tEXt", b"Comment\0eXIf IDAT")
    np.testing.assert_array_equal(decode(encoded), np.asarray(decode_with_pillow(encoded)))
    assert decode(encoded).shape == ((180, 250, 3) if orientation < 5 else (250, 180, 3))


@pytest.mark.parametrize("prefix", [b"Exif\0\0", b""])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_webp_is_undone_as_pillow_does(orientation: int, prefix: bytes, encode: Encode) -> None:
    encoded = encode(draw(), "WEBP", exif=prefix + make_exif(orientation)[6:])
    np.testing.assert_array_equal(decode(encoded), np.asarray(decode_with_pillow(encoded)))
    assert decode(encoded).shape == ((180, 250, 3) if orientation < 5 else (250, 180, 3))


def test_orientation_of_a_webp_counts_where_its_head_says_so(encode: Encode) -> None:
    encoded = bytearray(encode(draw(), "WEBP", exif=make_exif(6)))
    encoded[20] &= ~0x08
    np.testing.assert_array_equal(decode(bytes(encoded)), np.asarray(decode_with_pillow(bytes(encoded))))
    assert decode(bytes(encoded)).shape == (180, 250, 3)


def test_animated_webp_without_alpha_writes_within_its_memory(encode: Encode) -> None:
    """TensorFlow's decoder writes four channels into the memory of three, if it is left to find their number."""
    frames = [noise(300, 200), noise(300, 200).rotate(180)]
    animated = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert animated[20] == 2  # An animation, no alpha.
    np.testing.assert_array_equal(decode(animated), np.asarray(frames[0]))


def test_orientation_behind_the_pixels_of_a_png_does_not_count(encode: Encode) -> None:
    plain = encode(draw(), "PNG")
    encoded = plain[:-12] + png_chunk(b"eXIf", make_exif(6)[6:]) + plain[-12:]
    np.testing.assert_array_equal(decode(encoded), decode(plain))


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xf4", b"\x7f\xff\xff\xff", b"\x80\0\0\0"])
def test_absurd_length_of_a_chunk_of_a_png_is_refused(length: bytes, encode: Encode) -> None:
    plain = encode(draw(), "PNG")
    assert_refused(plain[:33] + length + b"tEXt" + plain[33:])


SOUND = make_exif(6)
MALFORMED = {
    "empty": b"Exif\0\0",
    "cut in the header": SOUND[:11],
    "cut in the directory": SOUND[:20],
    "orientation 0": make_exif(0),
    "orientation 9": make_exif(9),
    "orientation 65535": make_exif(65535, ">"),
    "directory past the end": SOUND[:10] + struct.pack("<I", 1 << 20) + SOUND[14:],
    "directory far past the end": SOUND[:10] + b"\xff\xff\xff\xff" + SOUND[14:],
    "65535 entries": SOUND[:14] + b"\xff\xff" + bytes(12),
    "no orientation": SOUND.replace(struct.pack("<H", 0x0112), struct.pack("<H", 0x0113)),
    "not a TIFF head": b"Exif\0\0" + bytes(40),
}


@pytest.mark.parametrize("malformed", MALFORMED)
def test_malformed_exif_turns_nothing(malformed: str, encode: Encode) -> None:
    plain = encode(draw(), "JPEG")
    np.testing.assert_array_equal(decode(with_segments(plain, (APP1, MALFORMED[malformed]))), decode(plain))
    plain = encode(draw(), "PNG")
    np.testing.assert_array_equal(decode(with_chunk(plain, b"eXIf", MALFORMED[malformed][6:])), decode(plain))
    plain, turned = (encode(draw(), "WEBP", exif=exif) for exif in (b"", SOUND))
    assert SOUND[6:] in turned
    damaged = turned.replace(SOUND[6:], MALFORMED[malformed][6:].ljust(len(SOUND[6:]), b"\0"))
    np.testing.assert_array_equal(decode(damaged), decode(plain))


# --- what is refused


def assert_refused(encoded: bytes, message: str | None = None) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode(encoded)


@pytest.mark.parametrize("kind", ["AVIF", "TIFF"])
def test_format_that_is_not_served_is_refused_with_those_that_are(kind: str, encode: Encode) -> None:
    assert_refused(encode(draw(), kind), "An image must be a JPEG, PNG, GIF, BMP or WebP file. It begins with:")


@pytest.mark.parametrize("encoded", [b"", b"x", b"hello, I am a text file", bytes(100), b"\xff\xfe\x80\0" * 9])
def test_bytes_that_are_no_image_are_refused(encoded: bytes) -> None:
    assert_refused(encoded, "An image must be a JPEG, PNG, GIF, BMP or WebP file. It begins with:")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_file_that_is_cut_short_is_refused(kind: str, share: float, encode: Encode) -> None:
    encoded = encode(noise().quantize(32) if kind == "GIF" else noise(), kind)
    assert_refused(encoded[: max(4, int(len(encoded) * share))])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_flipped_bit_gives_an_error_or_an_image(kind: str, encode: Encode) -> None:
    """PNG has checksums; in the other formats many a flip is just another image."""
    encoded = encode(draw(24, 20).quantize(32) if kind == "GIF" else draw(24, 20), kind)
    rng = np.random.default_rng(2)
    num_refused = 0
    for _ in range(80):
        damaged = bytearray(encoded)
        damaged[rng.integers(len(damaged) // (1 if kind == "PNG" else 2))] ^= 1 << rng.integers(8)
        try:
            assert decode(bytes(damaged)).shape[-1] == 3
        except tf.errors.InvalidArgumentError:
            num_refused += 1
    assert num_refused >= (75 if kind == "PNG" else 1)  # a flip in a PNG's reserved bits may pass


TOO_MANY = "An image may have at most 25,000,000 pixels"


def gif(screen: tuple[int, int], *frames: tuple[int, int]) -> bytes:
    """Return a GIF of one-colour frames, each after an extension and a comment and with a colour table."""
    data = b"\x02\x02\x44\x01\x00"
    blocks = b"".join(
        b"!\xf9\x04\0\0\0\0\0!\xfe\x05,"
        + b"abcd\0"
        + b","
        + struct.pack("<HHHHB", 0, 0, *frame, 0x81)
        + bytes(12)
        + data
        for frame in frames
    )
    return b"GIF89a" + struct.pack("<HHBBB", *screen, 0x81, 0, 0) + bytes(12) + blocks + b";"


def webp(kind: bytes, chunk: bytes) -> bytes:
    """Return a WebP of one chunk."""
    return struct.pack("<4sI4s4sI", b"RIFF", 12 + len(chunk), b"WEBP", kind, len(chunk)) + chunk


# Only heads, without any pixels: had decoding begun, the message would be another.
CLAIMS = {
    "PNG": png_head((12000, 12000)),
    "JPEG": b"\xff\xd8\xff\xc0\0\x0b\x08"
    + struct.pack(">HH", 12000, 12000)
    + b"\1\1\x11\0\xff\xda\0\x08\1\1\0\0\x3f\0",
    "GIF screen": gif((12000, 12000)),
    "GIF frame larger than the screen": gif((1, 1), (12000, 12000)),
    "BMP": b"BM" + bytes(12) + struct.pack("<IiiHH", 40, 12000, 12000, 1, 24),
    "WebP": webp(b"VP8 ", bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", 12000, 12000)),
    "lossless WebP": webp(b"VP8L", b"\x2f" + struct.pack("<I", 11999 << 14 | 11999)),
    "extended WebP": webp(b"VP8X", bytes(4) + struct.pack("<I", 11999)[:3] * 2),
    "BMP from the top": b"BM" + bytes(12) + struct.pack("<IiiHH", 40, 12000, -12000, 1, 24),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_claim_of_too_many_pixels_is_refused_before_decoding(claim: str) -> None:
    assert_refused(CLAIMS[claim], TOO_MANY)


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
@pytest.mark.parametrize("size", [(-1, -1), (-(2**31), 2), (2**31 - 1, 2**31 - 1)])
def test_absurd_claim_is_refused(kind: str, size: tuple[int, int]) -> None:
    layout, position = (">ii", 16) if kind == "PNG" else ("<ii", 18)
    head = CLAIMS[kind]
    assert_refused(head[:position] + struct.pack(layout, *size) + head[position + 8 :])


def test_webp_may_have_fewer_pixels() -> None:
    assert_refused(webp(b"VP8X", bytes(4) + struct.pack("<I", 4000)[:3] * 2), f"{TOO_MANY}, a WebP 16,000,000")
    assert_refused(webp(b"VP8X", bytes(4) + struct.pack("<I", 3999)[:3] * 2), "Failed to decode WebP")


def test_small_file_that_unpacks_to_144_million_pixels_costs_no_memory(encode: Encode) -> None:
    encoded = encode(Image.new("1", (12000, 12000)), "PNG")
    assert len(encoded) < 20_000
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert_refused(encoded, TOO_MANY)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 100_000  # it would take 432 MB


def test_largest_allowed_claim_reaches_the_decoder() -> None:
    assert_refused(png_head((5000, 5000)), "PNG")


def test_examples_in_the_documentation_run() -> None:
    result = doctest.testmod(preprocessing)
    assert result.attempted
    assert not result.failed
