"""Small copies of photos, for pages without a script: a browser alone does not show chosen files."""

import base64
import io

from PIL import Image, ImageOps

SIZE_PX = 352


def make_thumbnail(content: bytes) -> str:
    """Return the data URI of a small JPEG of a photo; empty where that fails."""
    buffer = io.BytesIO()
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.thumbnail((SIZE_PX, SIZE_PX))
            ImageOps.exif_transpose(image).convert("RGB").save(buffer, "JPEG", quality=80)
    except (OSError, ValueError):
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
