"""Drawn images, encoded in every kind of file; TensorFlow's decoding of them, and how close Pillow's must be."""

import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from components.data import drawn_flowers
from export import preprocessing

Encode = Callable[..., bytes]

decode_graph = tf.function(preprocessing.decode, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


def load(encoded: bytes, size_px: int) -> NDArray[np.uint8]:
    """Decode and resize as the served graph does."""
    pixels: NDArray[np.uint8] = preprocessing.resize(decode_graph(tf.constant(encoded)), size_px).numpy()
    return pixels


def assert_close(received: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    """Allow 2 grey levels on 99.9 % of the samples: Pillow rounds between its two passes, TensorFlow once."""
    difference = np.abs(received.astype(int) - expected.astype(int))
    assert np.mean(difference <= 2) >= 0.999, f"{np.mean(difference <= 2):.5f} within 2, largest {difference.max()}"


def draw(width: int = 250, height: int = 180) -> Image.Image:
    flower = Image.fromarray(drawn_flowers.draw(drawn_flowers.CLASS_NAMES[0], seed=3, size_px=128))
    return flower.resize((width, height), Image.Resampling.BICUBIC)


def noise(width: int = 120, height: int = 90) -> Image.Image:
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8))


def palette() -> Image.Image:
    return draw().quantize(64)


def translucent(mode: str = "RGBA") -> Image.Image:
    image = draw().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image.convert(mode)


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_head(size: tuple[int, int], *, depth: int = 8, kind: int = 2, interlace: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", *size, depth, kind, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)


def write_png(rows: NDArray[np.uint8], **head: Any) -> bytes:
    """Write a PNG that Pillow cannot: `rows` are the packed scanlines, each after its filter byte."""
    data = zlib.compress(rows.tobytes(), 9)
    return png_head(**head) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def write_16_bit_png(samples: NDArray[np.uint16], kind: int) -> bytes:
    """Write `[height, width, channels]`."""
    height, width = samples.shape[:2]
    rows = np.insert(samples.astype(">u2").view(np.uint8).reshape(height, -1), 0, 0, axis=1)
    return write_png(rows, size=(width, height), depth=16, kind=kind)


def _deep(mode: str) -> NDArray[np.uint16]:
    """Return the image with 16 bits a sample, the lower ones at random."""
    samples = np.asarray(translucent().convert(mode)).astype(np.uint16) << 8
    samples = samples.reshape(*samples.shape[:2], -1)
    return samples | np.random.default_rng(1).integers(0, 256, samples.shape, dtype=np.uint16)


_XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'

PLAIN_KINDS: dict[str, Callable[[Encode], bytes]] = {
    "JPEG": lambda encode: encode(draw(), "JPEG"),
    "progressive JPEG": lambda encode: encode(draw(), "JPEG", progressive=True),
    "grey JPEG": lambda encode: encode(draw().convert("L"), "JPEG"),
    "CMYK JPEG": lambda encode: encode(draw().convert("CMYK"), "JPEG"),
    "JPEG of several images": lambda encode: encode(draw(), "MPO", save_all=True, append_images=[draw().rotate(90)]),
    "PNG": lambda encode: encode(draw(), "PNG"),
    "animated PNG": lambda encode: encode(draw(), "PNG", save_all=True, append_images=[draw().rotate(90)]),
    "1-bit PNG": lambda encode: encode(draw().convert("1"), "PNG"),
    "grey PNG": lambda encode: encode(draw().convert("L"), "PNG"),
    "grey and alpha PNG": lambda encode: encode(translucent("LA"), "PNG"),
    "RGBA PNG": lambda encode: encode(translucent(), "PNG"),
    "palette PNG": lambda encode: encode(palette(), "PNG"),
    "palette PNG with a transparent colour": lambda encode: encode(palette(), "PNG", transparency=3),
    "palette PNG with alphas": lambda encode: encode(palette(), "PNG", transparency=bytes(range(0, 256, 4))),
    "GIF": lambda encode: encode(palette(), "GIF"),
    "interlaced GIF": lambda encode: encode(palette(), "GIF", interlace=1),
    "animated GIF": lambda encode: encode(
        palette(), "GIF", save_all=True, append_images=[draw().rotate(90).quantize(64)]
    ),
    "BMP": lambda encode: encode(draw(), "BMP"),
    "32-bit BMP": lambda encode: encode(draw().convert("RGBA"), "BMP"),
    "grey BMP": lambda encode: encode(draw().convert("L"), "BMP"),
    "palette BMP": lambda encode: encode(palette(), "BMP"),
    "WebP": lambda encode: encode(draw(251, 181), "WEBP"),
    "lossless WebP": lambda encode: encode(draw(), "WEBP", lossless=True),
    "translucent WebP": lambda encode: encode(translucent(), "WEBP"),
    "translucent lossless WebP": lambda encode: encode(translucent(), "WEBP", lossless=True),
    "animated WebP": lambda encode: encode(draw(), "WEBP", save_all=True, append_images=[draw().rotate(90)]),
    "animated translucent WebP": lambda encode: encode(
        translucent(), "WEBP", save_all=True, append_images=[translucent().rotate(90)]
    ),
}
"""Files that Pillow decodes as the project does, but for transparency, which is laid over white."""

KINDS = {
    **PLAIN_KINDS,
    "JPEG with an orientation in XMP alone": lambda encode: encode(draw(), "JPEG", xmp=_XMP),
    "PNG with an orientation": lambda encode: encode(draw(), "PNG", exif=oriented(6)),
    "translucent WebP with an orientation": lambda encode: encode(translucent(), "WEBP", exif=oriented(6)),
    "animated WebP with an orientation": lambda encode: encode(
        draw(), "WEBP", save_all=True, append_images=[draw().rotate(90)], exif=oriented(8)
    ),
    "16-bit grey PNG": lambda encode: write_16_bit_png(_deep("L"), 0),
    "16-bit RGB PNG": lambda encode: write_16_bit_png(_deep("RGB"), 2),
    "16-bit grey and alpha PNG": lambda encode: write_16_bit_png(_deep("LA"), 4),
    "16-bit RGBA PNG": lambda encode: write_16_bit_png(_deep("RGBA"), 6),
    "GIF with a transparent colour": lambda encode: encode(palette(), "GIF", transparency=3),
    "translucent 32-bit BMP": lambda encode: encode(translucent(), "BMP"),
} | {
    f"JPEG of orientation {number}": lambda encode, number=number: encode(draw(), "JPEG", exif=oriented(number))
    for number in range(1, 9)
}
"""Files that the client and the graph must decode to the same pixels."""
