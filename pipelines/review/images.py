"""Photos as browsers show them."""

import io

from client.classifier_client import ImageError
from client.classifier_client.decoding import decode
from components.errors import DataError

_QUALITY = 92
_SHOWN = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"GIF8", "image/gif"),
    (0, b"BM", "image/bmp"),
    (8, b"WEBP", "image/webp"),
)
"""Position, bytes and type of what every browser shows."""


def to_shown(encoded: bytes, photo: str) -> tuple[bytes, str]:
    """Return a photo and its type: as it is where every browser shows it, else as a JPEG.

    Raises:
        DataError: it cannot be read.
    """
    for position, begin, media_type in _SHOWN:
        if encoded.startswith(begin, position):
            return encoded, media_type
    try:
        image = decode(encoded, photo)
    except ImageError as exc:
        raise DataError(str(exc)) from exc
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue(), "image/jpeg"
