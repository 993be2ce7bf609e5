"""The signatures that a LiteRT file may carry in its metadata, where TensorFlow Serving looks for them.

They are an entry of the metadata (tensorflow/lite/tools/signature/signature_def_util.h): a FlexBuffer map of serialized
`SignatureDef`s by name, which give aliases to the tensors of the main graph. The converter of today writes a table of
signatures instead, which the interpreter reads.
"""

import struct
from typing import Any

from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import meta_graph_pb2

from serving.local_server.errors import invalid_argument

METADATA_NAME = b"signature_defs_metadata"


def read_signatures(content: bytes) -> dict[str, Any]:
    """Return the `SignatureDef`s in a file's metadata by name; none where it has no such entry.

    Raises:
        StatusError: the entry is there and cannot be read.
    """
    model = schema.Model.GetRootAsModel(content, 0)
    entries = [model.Metadata(i) for i in range(model.MetadataLength())]
    found = next((entry for entry in entries if entry.Name() == METADATA_NAME), None)
    if found is None:
        return {}
    try:
        serialized = flexbuffers.GetRoot(model.Buffers(found.Buffer()).DataAsNumpy().tobytes()).AsMap
        pairs = zip(serialized.Keys, serialized.Values, strict=True)
        return {key.AsKey: meta_graph_pb2.SignatureDef.FromString(value.AsStringBytes) for key, value in pairs}
    except (ValueError, TypeError, LookupError, AttributeError, struct.error, DecodeError) as exc:
        raise invalid_argument(f"Invalid SignatureDefs found in TfLite model: {exc}") from exc
