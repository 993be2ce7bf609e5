"""The check of a photo: its header first, then the very decoding that training and serving use.

A photo that passes becomes a `Candidate` with what is known of it, any other an `Exclusion` with the reason.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from client.classifier_client import ImageError, decoding, structure
from components.artifacts.examples import Exclusion, PhotoRow
from components.data import duplicates
from components.data.sources.source import Photo

if TYPE_CHECKING:
    import tensorflow as tf

_SERVED_FORMATS = {"JPEG": "jpeg", "PNG": "png", "GIF": "gif", "BMP": "bmp", "WEBP": "webp"}
_MAX_ANIMATION_PIXELS = 4 * decoding.MAX_PIXELS
"""Of all frames of a GIF together. TensorFlow's own decoder reads each of them, in 6 ns and a byte a pixel; the served
graph cuts them off."""

_REDUCED_QUALITY = 95
_BATCH_SIZE = 64
_TRACING = Lock()
_SMALL_SIZE_PX = 32


@dataclass(frozen=True, slots=True)
class Candidate:
    """A photo that can be learned from, on its way into a split.

    Attributes:
        name: its path below the source.
        label: index into the class names.
        split: the one it is in so far.
        sha256: of its file as it was found.
        format: `jpeg`, `png`, `gif`, `bmp` or `webp`.
        width: in pixels, upright.
        height: in pixels, upright.
        brightness: mean of the grey values, 0–1.
        contrast: standard deviation of the grey values, 0–1.
        hash: difference hash, 16 bytes.
        colour: mean RGB, 0–255.
        offset: where its encoded bytes are kept meanwhile.
        length: their number.
    """

    name: str
    label: int
    split: str
    sha256: str
    format: str
    width: int
    height: int
    brightness: float
    contrast: float
    hash: bytes
    colour: tuple[int, int, int] = (0, 0, 0)
    offset: int = 0
    length: int = 0

    def to_row(self) -> PhotoRow:
        """Return its row of the index."""
        return {
            "filename": self.name,
            "split": self.split,
            "label": self.label,
            "sha256": self.sha256,
            "format": self.format,
            "width": self.width,
            "height": self.height,
            "brightness": self.brightness,
            "contrast": self.contrast,
            "hash": self.hash.hex(),
            "colour": list(self.colour),
        }

    @staticmethod
    def from_row(row: PhotoRow) -> "Candidate":
        """Return the candidate that became a row of the index."""
        red, green, blue = row["colour"]
        return Candidate(
            name=row["filename"],
            label=row["label"],
            split=row["split"],
            sha256=row["sha256"],
            format=row["format"],
            width=row["width"],
            height=row["height"],
            brightness=row["brightness"],
            contrast=row["contrast"],
            hash=bytes.fromhex(row["hash"]),
            colour=(red, green, blue),
        )


Examined = tuple[Candidate | Exclusion, bytes]
"""The result for one photo, and its encoded bytes in a format that is served; none where it is excluded."""


def examine(
    photos: Iterable[Photo], *, recall: Callable[[Photo], Examined | None] = lambda photo: None
) -> Iterator[Examined]:
    """Examine photos with all processors, in their order.

    Args:
        photos: are read as they are needed.
        recall: returns what is known of a photo from an earlier examination, or `None`.
    """

    def examine_one(photo: Photo) -> Examined:
        return recall(photo) or make_examiner()(photo)

    remaining = iter(photos)
    with ThreadPoolExecutor() as threads:
        while batch := list(islice(remaining, _BATCH_SIZE)):
            yield from threads.map(examine_one, batch)


def describe_looks(candidates: Sequence[Candidate]) -> duplicates.Looks:
    """Return what candidates look like, a row each."""
    return duplicates.Looks(
        hashes=np.frombuffer(b"".join(c.hash for c in candidates), np.uint32).reshape(-1, 4),
        colours=np.array([c.colour for c in candidates], np.int16).reshape(-1, 3),
        contrasts=np.array([c.contrast for c in candidates], np.float64),
    )


def make_examiner() -> Callable[[Photo], Examined]:
    """Make the check of one photo; tracing its graph takes seconds, so one thread does that, once in a process."""
    with _TRACING:
        return _trace_examiner()


@cache
def _trace_examiner() -> Callable[[Photo], Examined]:
    import tensorflow as tf

    measure = _trace_measurement()
    # The first call makes the graph ready to run: of several threads that are first at once, each would do that.
    measure(tf.io.encode_png(tf.zeros([1, 1, 3], tf.uint8)))

    def examine_one(photo: Photo) -> Examined:
        def exclude(rule: str, reason: str) -> Examined:
            return Exclusion(file=photo.name, split=photo.split, rule=rule, reason=reason), b""

        if not photo.encoded:
            return exclude("unreadable", photo.reason or "empty")
        try:
            encoded, format_name = _to_served_format(photo)
            shape, grey, tiny, colour = measure(tf.constant(encoded))
        except ImageError as exc:
            return exclude("too_large" if exc.code == "too_many_pixels" else "unreadable", exc.reason)
        except tf.errors.InvalidArgumentError as exc:
            # A traceback and the node's name surround the message.
            return exclude("unreadable", exc.message.split("\n\t [[")[0].splitlines()[-1][:200])
        height, width, _ = shape.numpy().tolist()
        candidate = Candidate(
            name=photo.name,
            label=photo.label,
            split=photo.split,
            sha256=photo.sha256,
            format=format_name,
            width=width,
            height=height,
            brightness=round(float(grey.numpy().mean()) / 255, 4),
            contrast=round(float(grey.numpy().std()) / 255, 4),
            hash=duplicates.difference_hash(tiny.numpy()).tobytes(),
            colour=tuple(colour.numpy().tolist()),
        )
        return candidate, encoded

    return examine_one


def _trace_measurement() -> "Callable[[tf.Tensor], tuple[tf.Tensor, ...]]":
    """Make the function that decodes a photo to its shape, a small grey copy, the tiny one to hash, and its colour."""
    import tensorflow as tf

    from export import preprocessing

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def measure(encoded: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image = preprocessing.decode(encoded)
        small = preprocessing.resize(image, _SMALL_SIZE_PX)
        grey = tf.image.rgb_to_grayscale(small)
        colour = tf.reduce_mean(tf.cast(small, tf.float32), axis=[0, 1])
        tiny = preprocessing.resize(grey, duplicates.GRID + 1)[..., 0]
        return tf.shape(image), grey[..., 0], tiny, tf.cast(tf.round(colour), tf.int32)

    return measure.get_concrete_function()


def _to_served_format(photo: Photo) -> tuple[bytes, str]:
    """Return a photo in a format that is served: as it is, or as the client decodes it.

    Any other format (TIFF, AVIF, JPEG 2000 …) becomes a PNG without loss, a JPEG of more than
    `decoding.MAX_PIXELS` a smaller JPEG, a GIF of very many or large frames a PNG of its first; all upright.

    Raises:
        ImageError: it cannot be read.
    """
    with decoding.open_encoded(photo.encoded, photo.name) as image:
        kind = image.format
        if kind in _SERVED_FORMATS and image.width * image.height <= decoding.MAX_PIXELS:
            most = _MAX_ANIMATION_PIXELS
            if kind != "GIF" or structure.count_gif_pixels(photo.encoded, most=most) <= most:
                return photo.encoded, _SERVED_FORMATS[kind]
    rgb = decoding.decode(photo.encoded, photo.name)
    rgb.info.clear()  # Its colour profile, say, is of other colours.
    buffer = io.BytesIO()
    if kind == "JPEG":
        rgb.save(buffer, "JPEG", quality=_REDUCED_QUALITY, subsampling="4:4:4")
        return buffer.getvalue(), "jpeg"
    rgb.save(buffer, "PNG")
    return buffer.getvalue(), "png"
