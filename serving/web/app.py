"""The application: the routes, and the responses when something fails."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from serving.web.api import Api
from serving.web.assets import SAMPLES_DIR, Assets
from serving.web.capture import PhotoLog
from serving.web.classifier import Classifier
from serving.web.device import Device
from serving.web.error_responses import to_json
from serving.web.errors import RequestError
from serving.web.headers import MODEL_POLICY, Headers
from serving.web.metrics import Metrics
from serving.web.origins import Origins
from serving.web.pages import Pages
from serving.web.service import Service
from serving.web.settings import Settings

_SENTENCES = {
    404: "There is no such page. Begin at the front page.",
    405: "This address is asked in another way. /openapi.json describes how.",
    500: "The service failed; its log says more. Try again later.",
}


def make_app(
    classifier: Classifier, settings: Settings, metrics: Metrics, photo_log: PhotoLog | None = None
) -> Starlette:
    """Build the application that serves a classifier.

    Args:
        classifier: classifies the photos.
        settings: of the service.
        metrics: count what happens.
        photo_log: captures photos, as `settings.capture` says; `None` for none.
    """
    samples = Assets(SAMPLES_DIR, url="/samples")
    service = Service(
        classifier,
        settings,
        metrics,
        samples={name: asset.content for name, asset in samples.files.items()},
        photo_log=photo_log,
    )
    api, pages = Api(service), Pages(service, samples, Device(classifier, settings))
    page_routes = pages.routes
    page_paths = {route.path for route in page_routes}

    def to_response(request: Request, error: RequestError) -> Response:
        """Send a page to a person, and JSON to a program."""
        is_page = getattr(request.scope.get("route"), "path", request.scope["path"]) in page_paths
        wants_page = "text/html" in request.headers.get("accept", "")
        return pages.show_error(error) if is_page or (wants_page and error.status == 404) else to_json(error)

    async def respond_to_error(request: Request, exc: Exception) -> Response:
        return to_response(request, _to_request_error(exc))

    app = Starlette(
        routes=[*api.routes, *page_routes],
        middleware=[
            Middleware(Headers, metrics=metrics, respond_to_failure=respond_to_error, policy=MODEL_POLICY),
            Middleware(
                Origins, allowed_hosts=(settings.host, *settings.allowed_hosts), respond_to_error=respond_to_error
            ),
        ],
        exception_handlers=dict.fromkeys((RequestError, HTTPException), respond_to_error),
    )
    # Starlette would redirect to whatever host a request names.
    app.router.redirect_slashes = False
    return app


def _to_request_error(exc: Exception) -> RequestError:
    if isinstance(exc, RequestError):
        return exc
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    methods = (getattr(exc, "headers", None) or {}).get("Allow", "")
    allow = ", ".join(sorted(methods.split(", ")))
    return RequestError(status, _SENTENCES.get(status, "The request cannot be answered."), allow=allow)
