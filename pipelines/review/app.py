"""The application: the page, the photos, the decisions, and the training."""

import asyncio
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from components.artifacts.labels import is_class_name
from components.errors import ComponentError
from components.storage.disk import explain
from pipelines.authorship import now
from pipelines.review.access import Access
from pipelines.review.desk import Desk
from pipelines.review.images import to_shown
from pipelines.review.items import as_text
from pipelines.review.ledger import MadeDecision, OvertakenError, as_json, is_of
from pipelines.review.training import BusyError
from serving.web.assets import STATIC_DIR as LOOK_DIR
from serving.web.assets import Assets
from serving.web.error_responses import to_json
from serving.web.errors import RequestError
from serving.web.headers import Headers
from serving.web.origins import Origins
from serving.web.settings import Settings

_FOLDER = Path(__file__).parent
_MAX_BODY_BYTES = 10_000
_MAX_HELD = 100
_RETRY_S = 2
# The pipeline's own report has its style within, and its images.
_REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; frame-ancestors 'none'; "
    "base-uri 'none'"
)


def make_app(desk: Desk, settings: Settings) -> Starlette:
    """Build the application of a desk."""
    review = _Review(desk, Access(settings.token))

    async def respond_to_error(request: Request, exc: Exception) -> Response:
        return to_json(_to_request_error(exc))

    hosts = (settings.host, *settings.allowed_hosts)
    app = Starlette(
        routes=review.routes,
        middleware=[
            Middleware(Headers, metrics=None, respond_to_failure=respond_to_error),
            Middleware(Origins, allowed_hosts=hosts, respond_to_error=respond_to_error),
        ],
        exception_handlers=dict.fromkeys(
            (RequestError, HTTPException, ComponentError, OSError, ClientDisconnect), respond_to_error
        ),
    )
    app.router.redirect_slashes = False
    return app


class _Review:
    """The routes."""

    def __init__(self, desk: Desk, access: Access) -> None:
        self._desk = desk
        self._access = access
        self._look = Assets(LOOK_DIR, url="/look")
        self._static = Assets(_FOLDER / "static", url="/static")
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.globals |= {"look": self._look.url, "static": self._static.url}
        self._template = environment.get_template("review.html.j2")

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/", self._show_page),
            Route("/look/{name}", self._look.serve),
            Route("/static/{name}", self._static.serve),
            Route("/favicon.ico", _no_content),
            Route("/api/token", self._access.enter, methods=["POST"]),
            Route("/api/next", self._next),
            Route("/api/decisions", self._decide, methods=["POST"]),
            Route("/api/training", self._training, methods=["GET", "POST"]),
            Route("/photos/{sha256}", self._show_photo),
            Route("/report", self._show_report),
        ]

    async def _show_page(self, request: Request) -> Response:
        task = self._desk.task
        labels = str(task.labels.absolute())
        # What a browser keeps of decisions that are not saved yet never goes into another file.
        place = hashlib.sha256(labels.encode("utf-8", "replace")).hexdigest()[:16]
        page = self._template.render(
            who=task.who if self._access.is_open else "", place=place, is_open=self._access.is_open
        )
        return HTMLResponse(page)

    async def _next(self, request: Request) -> Response:
        self._access.check(request)
        client = _read_text(request.query_params.get("client"), "client")
        held = request.query_params.get("held", "").split(",")[:_MAX_HELD]
        item, progress = await asyncio.to_thread(self._desk.queue.take, client, held)
        selection = self._desk.selection
        return JSONResponse(
            {
                **asdict(progress),
                "item": item
                and {
                    "sha256": item.sha256,
                    "photo": item.photo,
                    "why": item.why,
                    "given": item.given_label,
                    "suggested": item.suggested_label,
                    "score": item.score,
                },
                "choosing": bool(selection and selection.is_going_on),
                "choice_error": selection.error if selection else "",
            }
        )

    async def _show_photo(self, request: Request) -> Response:
        self._access.check(request)
        item = self._desk.queue.find(request.path_params["sha256"])
        if item is None:
            raise RequestError(404, "There is no such photo any more.")
        try:
            content, media_type = await asyncio.to_thread(lambda: to_shown(item.read(), item.photo))
        except (ComponentError, OSError) as exc:
            self._desk.queue.pass_over(item.sha256)
            reason = explain(exc) if isinstance(exc, OSError) else str(exc)
            raise RequestError(410, f"A photo is passed over: {reason}") from exc
        return Response(content, media_type=media_type)

    async def _decide(self, request: Request) -> Response:
        self._access.check(request)
        body = await _read_json(request)
        sha256 = _read_text(body.get("sha256"), "sha256")
        item = self._desk.queue.find(sha256)
        decision = MadeDecision(
            sha256=sha256,
            photo=item.photo if item else as_text(str(body.get("photo", ""))),
            decision=_read_text(body.get("decision"), "decision"),
            label=body.get("label"),
            who=_read_text(body.get("who"), "who"),
            when=now(),
            why=item.why if item else "",
            id=_read_text(body.get("id"), "id"),
        )
        undoes = _read_text(body.get("undoes", "-"), "undoes")
        try:
            before = await asyncio.to_thread(self._desk.ledger.add, decision, undoes=undoes)
        except OvertakenError as exc:
            return JSONResponse({"error": "Another decision counts now.", "other": as_json(exc.by)}, status_code=409)
        except ValueError as exc:
            raise RequestError(400, str(exc)) from exc
        client = decision["id"].partition(".")[0]
        mine = decision["decision"], decision["label"]
        is_other = before is not None and not is_of(before, client) and (before["decision"], before["label"]) != mine
        progress = await asyncio.to_thread(self._desk.queue.measure)
        return JSONResponse(
            {**asdict(progress), "saved": decision["id"], "other": as_json(before) if is_other else None}
        )

    async def _training(self, request: Request) -> Response:
        self._access.check(request)
        training = self._desk.training
        if request.method == "POST":
            action = (await _read_json(request)).get("action")
            if action not in ("start", "stop"):
                raise RequestError(400, f"action must be start or stop. Received: {action!r}")
            try:
                await asyncio.to_thread(self._desk.train if action == "start" else training.stop)
            except BusyError as exc:
                raise RequestError(409, str(exc)) from exc
        first = request.query_params.get("first", "0")
        progress = training.read(int(first) if first.isascii() and first.isdigit() and len(first) < 10 else 0)
        return JSONResponse({**asdict(progress), "has_report": self._find_report().is_file()})

    async def _show_report(self, request: Request) -> Response:
        self._access.check(request)
        path = self._find_report()
        if not path.is_file():
            raise RequestError(404, "There is no report yet. Train first.")
        policy = {"Content-Security-Policy": _REPORT_POLICY, "Cache-Control": "no-store"}
        return FileResponse(path, media_type="text/html", headers=policy)

    def _find_report(self) -> Path:
        return self._desk.task.run_dir / "report.html"


async def _no_content(request: Request) -> Response:
    return Response(status_code=204)


async def _read_json(request: Request) -> dict[str, Any]:
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > _MAX_BODY_BYTES:
            raise RequestError(413, f"A request may have {_MAX_BODY_BYTES} bytes, and this one has more.")
    try:
        body = json.loads(content)
    except ValueError as exc:
        raise RequestError(400, f"A request must be a JSON object. {exc}") from exc
    if not isinstance(body, dict):
        raise RequestError(400, "A request must be a JSON object.")
    return body


def _read_text(value: object, name: str) -> str:
    if not (isinstance(value, str) and is_class_name(value)):
        raise RequestError(
            400, f"{name} must be printable text without a space at either end. Received: {value!r}"[:300]
        )
    return value


def _to_request_error(exc: Exception) -> RequestError:
    if isinstance(exc, RequestError):
        return exc
    if isinstance(exc, (ComponentError, OSError)):
        reason = explain(exc) if isinstance(exc, OSError) else str(exc)
        return RequestError(503, reason, retry_after_s=_RETRY_S)
    if isinstance(exc, HTTPException):
        allow = ", ".join(sorted((exc.headers or {}).get("Allow", "").split(", ")))
        sentences = {404: "There is no such page. Begin at the front page.", 405: "This address takes another method."}
        return RequestError(exc.status_code, sentences.get(exc.status_code, "The request cannot be met."), allow=allow)
    if isinstance(exc, ClientDisconnect):
        return RequestError(400, "The request was not sent to its end.")
    return RequestError(500, "The server failed; its log says more.", retry_after_s=_RETRY_S)
