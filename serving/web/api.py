"""The API: photos in, JSON out; and what an operator queries."""

from dataclasses import asdict

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.web import metrics, openapi
from serving.web.errors import RequestError
from serving.web.service import Service, status_of

HUNG_UP = 499
"""The status counted for a client that hung up, as proxies do; nobody receives it."""


class Api:
    """The API.

    Args:
        service: classifies the photos.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._description = openapi.describe(service.settings)

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/api/classify", self._classify, methods=["POST"]),
            Route("/openapi.json", self._describe),
            Route("/healthz", _healthz),
            Route("/readyz", self._readyz),
            Route("/metrics", self._show_metrics),
        ]

    async def _classify(self, request: Request) -> Response:
        try:
            results = await self._service.handle(request, self._service.classify)
        except ClientDisconnect:
            return Response(status_code=HUNG_UP)
        return JSONResponse({"results": [asdict(result) for result in results]}, status_code=status_of(results))

    async def _describe(self, request: Request) -> Response:
        return JSONResponse(self._description)

    async def _readyz(self, request: Request) -> Response:
        classifier = self._service.classifier
        if not classifier.is_ready:
            raise RequestError(503, "The model does not answer. The log says why.", retry_after_s=5)
        return JSONResponse({"status": "ready", "model": classifier.info.name, "version": classifier.info.version})

    async def _show_metrics(self, request: Request) -> Response:
        self._service.check_token(request)
        return Response(self._service.metrics.page(), headers={"Content-Type": metrics.CONTENT_TYPE})


async def _healthz(request: Request) -> Response:
    return JSONResponse({"status": "ok"})
