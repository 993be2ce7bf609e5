"""How a release talks to the proxy, on a port of its own that only this machine reaches.

PUT /plan                   begin or renew a plan: its fields as JSON; returns the number of the last observation
DELETE /plan                everything goes to stable
GET /observations?after=N   what was seen after observation N; renews the plan
"""

import json

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from serving.proxy.plan import Board, Plan


def make_app(board: Board) -> Starlette:
    """Return the application of the control port."""

    async def begin(request: Request) -> JSONResponse:
        try:
            board.begin(Plan(**json.loads(await request.body())))
        except (ValueError, TypeError) as exc:
            return JSONResponse({"error": f"A plan must have the fields of Plan. {exc}"}, 400)
        return JSONResponse({"num_observed": board.num_observed})

    async def end(request: Request) -> JSONResponse:
        board.end()
        return JSONResponse({})

    async def observations(request: Request) -> JSONResponse:
        if board.plan:
            board.renew()
        after = request.query_params.get("after", "0")
        seen = board.after(int(after) if after.isdecimal() else 0)
        return JSONResponse(
            {"has_plan": board.plan is not None, "num_skipped": board.num_skipped, "observations": seen}
        )

    return Starlette(
        routes=[
            Route("/plan", begin, methods=["PUT"]),
            Route("/plan", end, methods=["DELETE"]),
            Route("/observations", observations, methods=["GET"]),
        ]
    )
