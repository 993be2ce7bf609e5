"""Run the page: listen, and end in good order, the training with it."""

import asyncio
import logging
import signal
from collections.abc import Callable

from components.errors import ComponentError
from pipelines.review.app import make_app
from pipelines.review.desk import Desk
from serving.shared.http_server import HttpServer
from serving.shared.process import GRACE_S, bracket, raise_file_limit, take_port
from serving.web.settings import Settings

_HEAD_TIMEOUT_S = 10
_MAX_CONNECTIONS = 1000

log = logging.getLogger(__name__)


class ReviewError(ComponentError):
    """The page cannot be shown."""


async def serve(desk: Desk, settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        desk: what the page works with; closed at the end.
        settings: the address, and the token.
        on_ready: called once with the URL, when requests are accepted.

    Raises:
        ReviewError: the port is taken.
    """
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    raise_file_limit()
    try:
        bound = take_port(settings.host, settings.port)
        http = HttpServer(
            make_app(desk, settings),
            bound,
            None,
            head_timeout_s=_HEAD_TIMEOUT_S,
            grace_s=GRACE_S,
            max_connections=_MAX_CONNECTIONS,
        )
        await http.start()
    except OSError as exc:
        raise ReviewError(
            f"The review page listens on {settings.host}:{settings.port}, and cannot: {exc.strerror}. Is it running "
            "already? Choose another --port, or another --host."
        ) from exc
    on_ready(f"http://{bracket(settings.host)}:{bound.getsockname()[1]}")
    await stopping.wait()
    log.info("review: stopping")
    await http.stop()
    await asyncio.to_thread(desk.close)
