"""The pages: one that classifies photos, also without JavaScript, and the model card."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from client.classifier_client.decoding import MAX_JPEG_PIXELS, MAX_PIXELS
from serving.web.api import HUNG_UP
from serving.web.assets import STATIC_DIR, Assets
from serving.web.capture import describe
from serving.web.card import find_run, read_card, read_plot
from serving.web.classifier import Classified
from serving.web.device import Device
from serving.web.error_responses import error_headers
from serving.web.errors import RequestError
from serving.web.service import Result, Service, status_of
from serving.web.uploads import Photo

ACCEPT = "image/jpeg,image/png,image/gif,image/bmp,image/webp"
"""The types that a file chooser offers. Phones convert their HEIC photos to JPEG where only that is accepted."""

_PLOT_CACHE = "no-cache"
_NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_COVERAGE = 0.95


@dataclass(frozen=True)
class Shown:
    """A result with its photo, as a page without a script shows it.

    Attributes:
        result: of the photo.
        thumbnail: a small copy of it, a data URI; empty where there is none.
    """

    result: Result
    thumbnail: str = ""


class Pages:
    """The pages.

    Args:
        service: classifies photos.
        samples: the sample photos.
        device: the files for browsers that run the model themselves.
    """

    def __init__(self, service: Service, samples: Assets, device: Device) -> None:
        self._service = service
        self._device = device
        self._samples = samples
        self._static = Assets(STATIC_DIR, url="/static")
        self._environment = _make_environment()
        self._environment.globals |= {"static": self._static.url, "sample": samples.url}

    @property
    def routes(self) -> list[Route]:
        return [
            # One route, so that `Allow` names both methods.
            Route("/", self._respond, methods=["GET", "POST"]),
            Route("/model", self._show_card),
            Route("/model/plots/{name}.png", self._show_plot),
            Route("/static/{name}", self._static.serve),
            Route("/samples/{name}", self._samples.serve),
            Route("/device/{name}", self._device.serve),
            Route("/favicon.ico", _no_content),
        ]

    def show_error(self, error: RequestError) -> Response:
        """Show the page with what went wrong."""
        return self._render(
            "index", status=error.status, headers=error_headers(error), error=f"{error.message} {error.advice}".strip()
        )

    def _find_run(self) -> Path:
        return find_run(self._service.settings.runs_dir, self._service.classifier.info)

    async def _respond(self, request: Request) -> Response:
        return await self._classify(request) if request.method == "POST" else self._render("index")

    async def _classify(self, request: Request) -> Response:
        try:
            shown = await self._service.handle(request, self._classify_photo, is_form=True)
        except ClientDisconnect:
            return Response(status_code=HUNG_UP)
        return self._render("index", status=status_of([each.result for each in shown]), shown=shown)

    async def _classify_photo(self, photo: Photo) -> Shown:
        result = await self._service.classify(photo)
        if not isinstance(result, Classified) or photo.content is None:
            return Shown(result)
        return Shown(result, await self._service.classifier.make_thumbnail(photo.content))

    async def _show_card(self, request: Request) -> Response:
        card = await asyncio.to_thread(read_card, self._find_run())
        return self._render("model", card=card)

    async def _show_plot(self, request: Request) -> Response:
        plot = await asyncio.to_thread(read_plot, self._find_run(), request.path_params["name"])
        if plot is None:
            raise RequestError(404, "There is no such plot.")
        return Response(plot, media_type="image/png", headers={"Cache-Control": _PLOT_CACHE})

    def _render(
        self, name: str, *, status: int = 200, headers: dict[str, str] | None = None, **context: Any
    ) -> HTMLResponse:
        settings, classifier = self._service.settings, self._service.classifier
        page = self._environment.get_template(f"{name}.html.j2").render(
            model=classifier.info,
            is_ready=classifier.is_ready,
            threshold=classifier.threshold,
            coverage=classifier.info.spec["limits"]["coverage"] if "limits" in classifier.info.spec else _COVERAGE,
            limits=settings.limits,
            max_megapixels=MAX_PIXELS // 1_000_000,
            max_jpeg_megapixels=MAX_JPEG_PIXELS // 1_000_000,
            needs_token=settings.token is not None,
            samples=list(self._samples.files),
            accept=ACCEPT,
            kept=describe(settings.capture),
            is_kept=settings.capture is not None,
            device=self._device,
            **{"error": "", "shown": [], **context},
        )
        return HTMLResponse(page, status_code=status, headers=headers)


async def _no_content(request: Request) -> Response:
    return Response(status_code=204)


def _make_environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "list_names": _list_names, "name_all": _name_all}
    return environment


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%"


def _name_all(num_classes: int) -> str:
    """Return all classes as a person names them, such as `the five`."""
    return f"the {_NUMBERS[num_classes] if num_classes < len(_NUMBERS) else f'{num_classes} classes'}"


def _list_names(names: tuple[str, ...]) -> str:
    """Return names as a person lists them; of many, the first ones."""
    if len(names) > 12:
        return f"{', '.join(names[:12])} and {len(names) - 12} more"
    return " or ".join(filter(None, (", ".join(names[:-1]), "".join(names[-1:]))))
