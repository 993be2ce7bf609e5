"""The error of a photo that cannot be classified: a code for programs, and a sentence or two for a person."""

from dataclasses import dataclass

from client.classifier_client import ImageError

TOO_LARGE = "too_large"
TOO_COMPLEX = "too_complex"

_SENTENCES = {
    TOO_LARGE: "This photo is larger than {max_mb:.0f} MB. Send a smaller copy.",
    "empty": "This file is empty. Choose the photo again.",
    "too_many_pixels": "This photo has more than 25 megapixels. Send a smaller copy.",
    TOO_COMPLEX: "This photo takes more time or memory to read than is allowed. Save it as a JPEG, and send that.",
    "damaged": "This photo is damaged, or was cut short on its way. Send the original again.",
    "heic": "This is a HEIC or AVIF picture, or a film, which cannot be read here. Send the photo as a JPEG.",
    "not_an_image": "This file is not a photo that can be read here. Send a JPEG, PNG, GIF, BMP or WebP picture.",
    "unreadable": "This photo cannot be read. Save it as a JPEG, and send that.",
}
CODES = tuple(_SENTENCES)

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
    code = error.code
    if code == "not_an_image" and content[4:8] == _ISO_MEDIA:
        code = "heic"
    return Unreadable(image, code, _SENTENCES[code])
