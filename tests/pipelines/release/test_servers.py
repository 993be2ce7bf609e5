"""A release and the proxy's control port: a plan belongs to one release of the model that the proxy manages."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from components.errors import ReleaseError
from pipelines.release.servers import Proxy
from serving.proxy.control import make_app
from serving.proxy.plan import Board
from serving.shared.http_server import HttpServer
from serving.shared.process import take_port

PLAN = {"model_name": "flowers", "mode": "shadow", "stable": 1, "canary": 2, "salt": "mine"}


@contextmanager
def control_port(board: Board) -> Iterator[Proxy]:
    bound = take_port("127.0.0.1", 0)
    http = HttpServer(make_app(board, "flowers"), bound, None, head_timeout_s=10, grace_s=5)
    with start_blocking_portal() as portal:
        portal.call(http.start)
        try:
            yield Proxy(f"127.0.0.1:{bound.getsockname()[1]}")
        finally:
            portal.call(http.stop)


def test_release_begins_reads_and_ends_its_plan() -> None:
    board = Board()
    with control_port(board) as proxy:
        assert proxy.begin(PLAN) == 0
        assert board.plan
        board.add(board.plan, {"photo": "a"})
        assert proxy.begin(PLAN) == 1  # it was killed, and goes on
        assert [seen["photo"] for seen in proxy.observations(0, "mine")["observations"]] == ["a"]
        proxy.end("mine")
        assert board.plan is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_name": "trees"}, "Received: trees"),
        ({"salt": "other"}, "Another release"),
        ({"mode": "mirror"}, "mode"),
    ],
)
def test_plan_that_the_proxy_cannot_follow_is_refused(change: dict[str, Any], reason: str) -> None:
    board = Board()
    with control_port(board) as proxy:
        proxy.begin(PLAN)
        with pytest.raises(ReleaseError, match=reason):
            proxy.begin({**PLAN, "canary": 3, **change})
        assert board.plan
        assert board.plan.canary == 2


def test_release_reads_and_ends_no_other_plan() -> None:
    board = Board()
    with control_port(board) as proxy:
        proxy.begin(PLAN)
        assert board.plan
        board.add(board.plan, {"photo": "a"})
        document = proxy.observations(0, "other")
        assert (document["has_plan"], document["observations"]) == (False, [])
        proxy.end("other")
        assert board.plan
