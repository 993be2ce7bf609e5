"""The API's description, in OpenAPI 3.1, with the limits of the service."""

from collections.abc import Mapping
from typing import TypeAlias, cast

from client.classifier_client.decoding import MAX_JPEG_PIXELS, MAX_PIXELS
from serving.web.capture import describe as describe_kept
from serving.web.settings import Limits, Settings
from serving.web.unreadable import CODES

Json: TypeAlias = Mapping[str, object]

_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
_CLASSIFIED = {
    "type": "object",
    "required": [
        *("image", "label", "probability", "probabilities", "is_sure", "model_version", "latency_ms"),
        *("p_value", "is_known", "prediction_set"),
    ],
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
        "p_value": {
            **_PROBABILITY,
            "type": ["number", "null"],
            "description": "Of the photos that the model knows, the share that looks as unlike the others, or more so: "
            "a conformal p-value. Null, as are the next two, where the model does not tell.",
        },
        "is_known": {
            "type": ["boolean", "null"],
            "description": "False where the photo looks like none of the classes; `label` is the closest all the same.",
        },
        "prediction_set": {
            "type": ["array", "null"],
            "items": {"type": "string"},
            "description": "The classes that together hold the right one for 95 of 100 photos, the closest first.",
        },
    },
    "examples": [
        {
            "image": "bouquet.jpg",
            "label": "roses",
            "probability": 0.53,
            "probabilities": {"roses": 0.53, "tulips": 0.44, "daisy": 0.03},
            "is_sure": True,
            "model_version": "7",
            "latency_ms": 41.5,
            "p_value": 0.38,
            "is_known": True,
            "prediction_set": ["roses", "tulips"],
        },
    ],
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
_HEALTH = {"type": "object", "required": ["status"], "properties": {"status": {"const": "ok"}}}
_READINESS = {
    "type": "object",
    "required": ["status", "model", "version"],
    "properties": {"status": {"const": "ready"}, "model": {"type": "string"}, "version": {"type": "string"}},
}
_TEXT: Json = {"schema": {"type": "string"}}
_BINARY: Json = {"schema": {}}
_HTML = "text/html"
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}


def describe(settings: Settings) -> Json:
    """Return the description of a service with these settings.

    It has every status that a route responds with, also those of the HTTP server beneath it. A client that hangs up
    gets none; `/metrics` counts it as 499.
    """
    schemas = {"Classified": _CLASSIFIED, "Unreadable": _UNREADABLE, "Error": _ERROR}
    needs_token = settings.token is not None
    security: Json = {"security": [{"token": []}]} if needs_token else {}
    schemes: Json = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}} if needs_token else {}
    limits = settings.limits
    guarded = {"401": _error("The token is missing, or another one."), "429": _too_many(limits)} if needs_token else {}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Photo classifier", "version": "1.0.0"},
        "paths": {
            "/api/classify": {
                "post": {
                    "summary": "Classify photos.",
                    "description": f"{_describe_photos(limits)} {describe_kept(settings.capture)}",
                    "requestBody": _describe_body(),
                    "responses": {
                        "200": {"description": "At least one photo has a prediction.", "content": _json(_RESULTS)},
                        "422": {"description": "None of the photos can be read.", "content": _json(_RESULTS)},
                        **_refusals(limits, needs_token=needs_token),
                    },
                    **security,
                }
            },
            "/healthz": _get("The service is up.", _ok(_json(_HEALTH))),
            "/readyz": _get(
                "The model responds.",
                {**_ok(_json(_READINESS)), "503": _error("It does not, or the service is ending.", retry=True)},
            ),
            "/metrics": _get(
                "Counters, in Prometheus' text format.", {**_ok({"text/plain": _TEXT}), **guarded}, security=security
            ),
            "/openapi.json": _get("This description.", _ok(_json({"type": "object"}))),
            **_describe_pages(limits, needs_token=needs_token),
        },
        "components": {"schemas": schemas, **schemes},
    }


def _describe_pages(limits: Limits, *, needs_token: bool) -> dict[str, Json]:
    """Return what people see. An error is the page with a sentence in it."""
    html: Json = {_HTML: _TEXT}
    name: Json = {"parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]}
    missing = {"404": _error("There is no such file.", kind=_HTML)}
    cached = {"304": {"description": "It is as in `If-None-Match`."}, **missing}
    form = {
        "summary": "Classify the photos of a form, for a person.",
        "requestBody": _describe_body(),
        "responses": {
            "200": {"description": "At least one photo has a prediction.", "content": html},
            "422": {"description": "None of the photos can be read.", "content": html},
            **_refusals(limits, needs_token=needs_token, kind=_HTML),
        },
    }
    return {
        "/": {**_get("The page.", _ok(html), kind=_HTML), "post": form},
        "/model": _get("The model card.", _ok(html), kind=_HTML),
        "/model/plots/{name}.png": {
            **_get("A plot of the card.", {**_ok({"image/png": _BINARY}), **missing}, kind=_HTML),
            **name,
        },
        "/static/{name}": {**_get("A file of the page.", {**_ok({"*/*": _BINARY}), **cached}, kind=_HTML), **name},
        "/samples/{name}": {
            **_get("A sample photo.", {**_ok({"image/jpeg": _BINARY}), **cached}, kind=_HTML),
            **name,
        },
        "/device/{name}": {
            **_get(
                "A file for browsers that run the model themselves; model.json names the others.",
                {**_ok({"*/*": _BINARY}), **cached},
                kind=_HTML,
            ),
            **name,
        },
        "/favicon.ico": _get("Nothing.", {"204": {"description": "The page names its icon."}}, kind=_HTML),
    }


def _describe_photos(limits: Limits) -> str:
    return (
        f"JPEG, PNG, GIF, BMP or WebP, each of at most {limits.max_photo_bytes / 1e6:.0f} MB and "
        f"{MAX_PIXELS / 1e6:.0f} megapixels, a JPEG that is not progressive {MAX_JPEG_PIXELS / 1e6:.0f}. "
        f"A form holds up to {limits.max_photos}, in fields of any name; any other body is itself one photo."
    )


def _describe_body() -> Json:
    form = {
        "type": "object",
        "properties": {"photo": {"type": "array", "items": {"contentMediaType": "application/octet-stream"}}},
    }
    return {
        "required": True,
        "content": {"multipart/form-data": {"schema": form}, "image/*": _BINARY, "application/octet-stream": _BINARY},
    }


def _refusals(limits: Limits, *, needs_token: bool, kind: str = "application/json") -> Json:
    """Return the errors of a request that should hold photos."""
    return {
        **({"401": _error("The token is missing, or another one.", kind=kind)} if needs_token else {}),
        **_failures(kind),
        "400": _malformed("There is no photo in the request, or its form is damaged.", kind=kind),
        "403": _error("A page of another site sent the request.", kind=kind),
        "408": _error("The request arrives too slowly.", kind=kind),
        "413": _error("A photo, or the request, is too large, or holds too many photos.", kind=kind),
        "415": _error("The request is packed (Content-Encoding).", kind=kind),
        "429": _too_many(limits, kind=kind),
        "503": _error(
            "Too many requests are in progress, the model does not respond, or the service is ending.",
            kind=kind,
            retry=True,
        ),
    }


def _failures(kind: str) -> dict[str, Json]:
    """Return the errors of any request."""
    return {
        "400": _malformed("The request is malformed.", kind=kind),
        "414": {"description": "The address is longer than 64 KB."},
        "421": _error("The service is not known by the host's name (`--allowed-host`).", kind=kind),
        "431": {"description": "The headers are larger than 64 KB."},
        "500": _error("The service failed; its log says more.", kind=kind),
        "503": _error("The service is ending.", kind=kind),
    }


def _get(
    summary: str,
    responses: Mapping[str, Json],
    *,
    kind: str = "application/json",
    security: Json | None = None,
) -> dict[str, Json]:
    responses = {**_failures(kind), **responses}
    return {"get": {"summary": summary, "responses": responses, **(security or {})}}


def _ok(content: Json) -> dict[str, Json]:
    return {"200": {"description": "OK", "content": content}}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _error(description: str, *, kind: str = "application/json", retry: bool = False) -> Json:
    # Whatever a path is, the server beneath responds in JSON while it ends, and to a name it is not known by.
    content = {**_json({"$ref": "#/components/schemas/Error"}), **({_HTML: _TEXT} if kind == _HTML else {})}
    return {"description": description, "content": content, **({"headers": _RETRY_AFTER} if retry else {})}


def _malformed(description: str, *, kind: str) -> Json:
    """Return the error of the service, or of the HTTP server, which responds in plain text."""
    error = _error(description, kind=kind)
    return {**error, "content": {**cast(Json, error["content"]), "text/plain": _TEXT}}


def _too_many(limits: Limits, *, kind: str = "application/json") -> Json:
    rate = (
        f"A client may send {limits.photos_per_minute} photos a minute, {limits.burst_photos} at once, "
        "and not many requests at the same time."
    )
    return _error(rate, kind=kind, retry=True)
