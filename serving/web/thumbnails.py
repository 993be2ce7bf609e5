"""Small copies of photos, for pages without a script: a browser alone does not show chosen files."""

import base64
import io

from client.classifier_client import ClassifierError
from client.classifier_client.decoder_pool import DecoderPool

SIZE_PX = 352


def make_thumbnail(decoders: DecoderPool, content: bytes) -> str:
    """Return the data URI of a small JPEG of a photo; empty where that fails."""
    try:
        small = decoders.shrink(content, name="", size_px=SIZE_PX)
    except ClassifierError:
        return ""
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
