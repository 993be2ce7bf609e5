"""The configuration messages, and how they are read from text.

`tensorflow-serving-api` ships `ModelServerConfig` and leaves out the three others, so they are built here. Field names
follow TensorFlow Serving's monitoring_config.proto, ssl_config.proto and session_bundle_config.proto; field numbers
do not matter, as these messages are only ever read from text.
"""

from pathlib import Path
from typing import Any

from google.protobuf import message, text_format, wrappers_pb2
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.local_server.errors import StartError
from serving.shared.protobuf import build_messages

__all__ = ["BatchingParameters", "ModelServerConfig", "MonitoringConfig", "SSLConfig", "read"]

_PACKAGE = "serving.local_server"
_FIELDS = {
    "PrometheusConfig": {"enable": "bool", "path": "string"},
    "MonitoringConfig": {"prometheus_config": f".{_PACKAGE}.PrometheusConfig"},
    "SSLConfig": {"server_key": "string", "server_cert": "string", "custom_ca": "string", "client_verify": "bool"},
    "BatchingParameters": {
        "max_batch_size": ".google.protobuf.Int64Value",
        "batch_timeout_micros": ".google.protobuf.Int64Value",
        "max_enqueued_batches": ".google.protobuf.Int64Value",
        "num_batch_threads": ".google.protobuf.Int64Value",
        "thread_pool_name": ".google.protobuf.StringValue",
        "allowed_batch_sizes": "repeated int64",
        "pad_variable_length_inputs": "bool",
        "enable_large_batch_splitting": ".google.protobuf.BoolValue",
        "max_execution_batch_size": ".google.protobuf.Int64Value",
    },
}


_CLASSES = build_messages(
    _PACKAGE,
    {
        name: {field: (number, kind) for number, (field, kind) in enumerate(fields.items(), start=1)}
        for name, fields in _FIELDS.items()
    },
    dependency=wrappers_pb2.DESCRIPTOR.name,
)
MonitoringConfig = _CLASSES["MonitoringConfig"]
SSLConfig = _CLASSES["SSLConfig"]
BatchingParameters = _CLASSES["BatchingParameters"]


def read(path: Path, kind: type[message.Message]) -> Any:
    """Read a configuration file in protobuf's text format.

    Raises:
        StartError: the file cannot be read or is not a valid message, in TensorFlow Serving's words.
    """
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), kind())
    except (OSError, UnicodeDecodeError) as exc:
        raise StartError(
            f"A configuration file must be readable text. Received: {path} ({exc}). Check the flag that names it."
        ) from exc
    except text_format.ParseError as exc:
        name = kind.DESCRIPTOR.full_name.replace(_PACKAGE, "tensorflow.serving")
        raise StartError(
            f"Error parsing text-format {name}: {exc}\nInvalid protobuf file: '{path}'. Correct it at that line."
        ) from exc
