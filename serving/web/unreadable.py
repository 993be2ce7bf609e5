"""The error of a photo that cannot be classified: a code for programs, and a sentence or two for a person."""

import re
from dataclasses import dataclass

from client.classifier_client import ImageError
from client.classifier_client.decoding import MAX_JPEG_PIXELS

TOO_LARGE = "too_large"
TOO_MANY_PIXELS = "too_many_pixels"
TOO_COMPLEX = "too_complex"

_SENTENCES = {
    TOO_LARGE: "This photo is larger than {max_mb:.0f} MB. Send a smaller copy.",
    "empty": "This file is empty. Choose the photo again.",
    TOO_MANY_PIXELS: "This photo has {megapixels}. Send a smaller copy.",
    TOO_COMPLEX: (
        "This photo is built so unusually that reading it takes too long. Save it anew as a JPEG, and send that."
    ),
    "damaged": "This photo is damaged, or was cut short on its way. Send the original again.",
    "heic": "This is a HEIC or AVIF picture, or a film, which cannot be read here. Send the photo as a JPEG.",
    "not_an_image": "This file is not a photo that can be read here. Send a JPEG, PNG, GIF, BMP or WebP picture.",
    "unreadable": "This photo cannot be read. Save it as a JPEG, and send that.",
}
CODES = tuple(_SENTENCES)

_JPEG = b"\xff\xd8"
# The client's reason has the limit of the photo's format.
_MOST_PIXELS = re.compile(r"at most ([\d,]+) pixels")
_ISO_MEDIA = b"ftyp"  # ISO/IEC 14496-12, which HEIC, AVIF and MP4 share: it stands after the four bytes of a size.


@dataclass(frozen=True)
class Unreadable:
    """A photo that cannot be classified.

    Attributes:
        image: its name.
        code: one of `CODES`.
        error: the message for a person.
    """

    image: str
    code: str
    error: str


def too_large(image: str, max_bytes: int) -> Unreadable:
    """Return the error of a photo that is too large to be read."""
    return Unreadable(image, TOO_LARGE, _SENTENCES[TOO_LARGE].format(max_mb=max_bytes / 1e6))


def explain(image: str, content: bytes, error: ImageError) -> Unreadable:
    """Return the error of a photo that the client cannot read."""
    code = error.code if error.code in _SENTENCES else "unreadable"
    if code == "not_an_image" and content[4:8] == _ISO_MEDIA:
        code = "heic"
    return Unreadable(image, code, _SENTENCES[code].format(megapixels=_describe_limit(content, error.reason)))


def _describe_limit(content: bytes, reason: str) -> str:
    found = _MOST_PIXELS.search(reason)
    if not found:
        return "too many pixels"
    limit = f"more than {int(found[1].replace(',', '')) / 1e6:g} megapixels"
    if content.startswith(_JPEG):
        return f"{limit}, or more than {MAX_JPEG_PIXELS / 1e6:.0f} in a JPEG that is not progressive"
    return limit
