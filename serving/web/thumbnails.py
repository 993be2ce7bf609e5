"""Small copies of photos for pages without a script, which cannot show what was chosen by themselves."""

import base64
import io

from PIL import Image, ImageOps

SIZE_PX = 352


def make_thumbnail(content: bytes) -> str:
    """Give a photo that the model could read as the data URI of a small JPEG; empty where that fails."""
    buffer = io.BytesIO()
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.thumbnail((SIZE_PX, SIZE_PX))
            ImageOps.exif_transpose(image).convert("RGB").save(buffer, "JPEG", quality=80)
    except (OSError, ValueError):
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
