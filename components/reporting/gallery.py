"""Photos on a page: those at some positions of a split, as small images."""

import io
from pathlib import Path

from PIL import Image, ImageOps

from components.artifacts.examples import read_encoded_at
from components.errors import ComponentError
from components.reporting import page

THUMBNAIL_PX = 160


def read_photos(examples_dir: Path, filenames: dict[int, str], split: str = "test") -> dict[int, bytes]:
    """Return the encoded photos at some positions of a split, given the file name expected at each.

    Raises:
        ComponentError: another photo is there.
    """
    # Without positions no photo is read, and no TensorFlow needed, which takes seconds to import.
    found = read_encoded_at(examples_dir, split, filenames)
    photos = {position: encoded for position, (filename, encoded) in found.items() if filename == filenames[position]}
    if lost := sorted(filenames.keys() - photos.keys()):
        raise ComponentError(
            "The predictions must be of the photos in the test shards, in their order. Received: "
            f"{filenames[lost[0]]!r} as prediction {lost[0]}, which is not the photo there. "
            "Evaluate these examples again with --force evaluator."
        )
    return photos


def to_thumbnail(encoded: bytes) -> str | None:
    """Return a photo as the data URI of a JPEG of at most 160 px a side; `None` if it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except OSError:  # TensorFlow decodes some files that Pillow does not.
        return None
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", quality=80, comment=b"")
    return page.to_data_uri(buffer.getvalue(), "image/jpeg")
