"""How a release talks to the proxy, on a port of its own that only this machine reaches.

PUT /plan                          begin or renew a plan: its fields and `model_name`; returns the number of the last
                                   observation
DELETE /plan?salt=S                everything goes to stable
GET /observations?after=N&salt=S   what was seen after observation N; renews the plan

A plan belongs to the release that drew its salt: while it is in force, no other release replaces, reads or ends it.
"""

import json

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from serving.proxy.plan import Board, Plan


def make_app(board: Board, model_name: str) -> Starlette:
    """Return the application of the control port of a proxy that manages requests for a model."""

    async def begin(request: Request) -> JSONResponse:
        try:
            fields = json.loads(await request.body())
            name = fields.pop("model_name")
            plan = Plan(**fields)
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            return JSONResponse({"error": f"A plan must have model_name and the fields of Plan. {exc}"}, 400)
        if name != model_name:
            words = f"This proxy manages requests for {model_name}. Received: {name}. Give another one with --proxy."
            return JSONResponse({"error": words}, 409)
        if board.plan and board.plan.salt != plan.salt:
            words = "Another release goes on at this proxy. Wait until it ends, or give another one with --proxy."
            return JSONResponse({"error": words}, 409)
        board.begin(plan)
        return JSONResponse({"num_observed": board.num_observed})

    async def end(request: Request) -> JSONResponse:
        if is_own(request):
            board.end()
        return JSONResponse({})

    async def observations(request: Request) -> JSONResponse:
        if not is_own(request):
            return JSONResponse({"has_plan": False, "num_skipped": 0, "observations": []})
        board.renew()
        after = request.query_params.get("after", "0")
        seen = board.after(int(after) if after.isdecimal() else 0)
        return JSONResponse({"has_plan": True, "num_skipped": board.num_skipped, "observations": seen})

    def is_own(request: Request) -> bool:
        return board.plan is not None and board.plan.salt == request.query_params.get("salt", "")

    return Starlette(
        routes=[
            Route("/plan", begin, methods=["PUT"]),
            Route("/plan", end, methods=["DELETE"]),
            Route("/observations", observations, methods=["GET"]),
        ]
    )
