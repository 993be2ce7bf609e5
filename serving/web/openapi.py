"""The API's description, in OpenAPI 3.1, with the limits of the service."""

from collections.abc import Mapping
from typing import TypeAlias

from client.classifier_client.preprocessing import MAX_PIXELS
from serving.web.settings import Limits, Settings
from serving.web.unreadable import CODES

Json: TypeAlias = Mapping[str, object]

_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
_CLASSIFIED = {
    "type": "object",
    "required": ["image", "label", "probability", "probabilities", "is_sure", "model_version", "latency_ms"],
    "properties": {
        "image": {"type": "string", "description": "The file's name, cleaned, or the photo's position."},
        "label": {"type": "string", "description": "The most probable class."},
        "probability": _PROBABILITY,
        "probabilities": {
            "type": "object",
            "additionalProperties": _PROBABILITY,
            "description": "Every class, the most probable first.",
        },
        "is_sure": {"type": "boolean", "description": "Whether the probability reaches the service's threshold."},
        "model_version": {"type": "string"},
        "latency_ms": {"type": "number", "description": "From the photo's last byte to its prediction."},
    },
}
_UNREADABLE = {
    "type": "object",
    "required": ["image", "code", "error"],
    "properties": {
        "image": {"type": "string"},
        "code": {"type": "string", "enum": list(CODES)},
        "error": {"type": "string", "description": "The message for a person."},
    },
}
_RESULTS = {
    "type": "object",
    "required": ["results"],
    "properties": {
        "results": {
            "type": "array",
            "description": "One for each photo, in their order.",
            "items": {
                "anyOf": [{"$ref": "#/components/schemas/Classified"}, {"$ref": "#/components/schemas/Unreadable"}]
            },
        }
    },
}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}


def describe(settings: Settings) -> Json:
    """Return the description of a service with these settings."""
    schemas = {"Classified": _CLASSIFIED, "Unreadable": _UNREADABLE, "Error": _ERROR}
    needs_token = settings.token is not None
    security: Json = {"security": [{"token": []}]} if needs_token else {}
    refused: Json = {"401": _error("The bearer token is missing, or another one.")} if needs_token else {}
    schemes: Json = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}} if needs_token else {}
    metrics: Json = {
        "summary": "Counters, in Prometheus' text format.",
        "responses": {"200": {"description": "The counters.", "content": {"text/plain": {}}}, **refused},
        **security,
    }
    health = {"summary": "The service is up.", "responses": {"200": {"description": "It is."}}}
    readiness = {
        "summary": "The model responds.",
        "responses": {"200": {"description": "It does."}, "503": _error("It does not.", retry=True)},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Photo classifier", "version": "1.0.0"},
        "paths": {
            "/api/classify": {"post": {**_describe_classify(settings.limits, refused), **security}},
            "/healthz": {"get": health},
            "/readyz": {"get": readiness},
            "/metrics": {"get": metrics},
        },
        "components": {"schemas": schemas, **schemes},
    }


def _describe_classify(limits: Limits, refused: Json) -> Json:
    binary: Json = {"schema": {}}
    form = {
        "type": "object",
        "properties": {"photo": {"type": "array", "items": {"contentMediaType": "application/octet-stream"}}},
    }
    return {
        "summary": "Classify photos.",
        "description": (
            f"JPEG, PNG, GIF, BMP or WebP, each of at most {limits.max_photo_bytes / 1e6:.0f} MB and "
            f"{MAX_PIXELS / 1e6:.0f} megapixels. "
            f"A form holds up to {limits.max_photos}, in fields of any name; any other body is itself one photo. "
            "Photos stay in memory and are not kept."
        ),
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}, "image/*": binary, "application/octet-stream": binary},
        },
        "responses": {
            "200": {"description": "At least one photo has a prediction.", "content": _content(_RESULTS)},
            "422": {"description": "None of the photos can be read.", "content": _content(_RESULTS)},
            **refused,
            "400": _error("There is no photo in the request, or its form is damaged."),
            "408": _error("The request arrives too slowly."),
            "413": _error("A photo, or the request, is too large, or holds too many photos."),
            "415": _error("The request is packed (Content-Encoding)."),
            "429": _error(
                f"A client may send {limits.photos_per_minute} photos a minute, {limits.burst_photos} at once.",
                retry=True,
            ),
            "503": _error("Too many requests are in progress, or the model does not respond.", retry=True),
        },
    }


def _content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _error(description: str, *, retry: bool = False) -> Json:
    content = _content({"$ref": "#/components/schemas/Error"})
    return {"description": description, "content": content, **({"headers": _RETRY_AFTER} if retry else {})}
