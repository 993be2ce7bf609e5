"""Classify images with a served model or a LiteRT file: decoding and resizing here, as the model was trained with.

    with Client(RestTransport("localhost:8501", model="flowers")) as client:
        for prediction in client.classify(["daisy.jpg", "tulip.jpg"]):
            print(prediction)

A transport is imported when it is first named: each needs a library of its own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .client import Client, Prediction
from .errors import (
    AnswerError,
    ClassifierError,
    DeadlineError,
    ImageError,
    MissingLibraryError,
    ModelFileError,
    ModelNotFoundError,
    RefusedError,
    ServerError,
    SignatureError,
    UnavailableError,
)
from .transports import Answer, Transport
from .transports.connection import ConnectionOptions

if TYPE_CHECKING:
    from .transports.grpc import GrpcTransport
    from .transports.litert import LiteRTTransport
    from .transports.rest import RestTransport

__all__ = [
    "Answer",
    "AnswerError",
    "ClassifierError",
    "Client",
    "ConnectionOptions",
    "DeadlineError",
    "GrpcTransport",
    "ImageError",
    "LiteRTTransport",
    "MissingLibraryError",
    "ModelFileError",
    "ModelNotFoundError",
    "Prediction",
    "RefusedError",
    "RestTransport",
    "ServerError",
    "SignatureError",
    "Transport",
    "UnavailableError",
]

_MODULES = {"RestTransport": "rest", "GrpcTransport": "grpc", "LiteRTTransport": "litert"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f".transports.{_MODULES[name]}", __name__)
    except ModuleNotFoundError as exc:
        extra = "" if name == "RestTransport" else f"[{_MODULES[name]}]"
        raise MissingLibraryError(
            f"{name} needs the library {exc.name}, which is not installed. Run: pip install 'classifier-client{extra}'",
            name=exc.name,
        ) from exc
    return getattr(module, name)
