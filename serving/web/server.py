"""Run the service: listen, keep the model up to date, and end in good order."""

import asyncio
import logging
import signal
from collections.abc import Callable
from functools import partial

from client.classifier_client.decoder_pool import DecoderPool
from serving.shared.capture.recorder import Recorder
from serving.shared.http_server import HttpServer
from serving.shared.process import GRACE_S, bracket, end_in_time, raise_file_limit, take_port
from serving.web.app import make_app
from serving.web.capture import PhotoLog
from serving.web.classifier import Classifier
from serving.web.errors import StartError
from serving.web.metrics import Metrics
from serving.web.models import Model
from serving.web.settings import Settings

log = logging.getLogger(__name__)

_HEAD_TIMEOUT_S = 10
# A head may have 64 KiB, and is held until it is complete.
_MAX_CONNECTIONS = 1000


async def serve(model: Model, decoders: DecoderPool, settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        model: predicts.
        decoders: decode photos; closed at the end.
        settings: of the service.
        on_ready: called once with one line, the URL and the model, when requests are accepted.

    Raises:
        StartError: the port is taken.
    """
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    raise_file_limit()
    metrics = Metrics()
    try:
        bound = take_port(settings.host, settings.port)
    except OSError as exc:
        raise _port_error(settings.host, settings.port, exc) from exc
    classifier = Classifier(
        model, decoders, threshold=settings.threshold, num_workers=settings.num_workers, metrics=metrics
    )
    recorder = Recorder(settings.capture, count=metrics.count_capture) if settings.capture else None
    if recorder:
        metrics.watch_capture(partial(getattr, recorder, "is_capturing"))
    http = HttpServer(
        make_app(classifier, settings, metrics, PhotoLog(recorder) if recorder else None),
        bound,
        None,
        head_timeout_s=_HEAD_TIMEOUT_S,
        grace_s=GRACE_S,
        max_connections=_MAX_CONNECTIONS,
    )
    await classifier.refresh()
    try:
        await http.start()
    except OSError as exc:
        raise _port_error(settings.host, settings.port, exc) from exc
    watching = asyncio.create_task(classifier.watch(settings.poll_s))
    on_ready(_describe(settings.host, bound.getsockname()[1], model))
    await stopping.wait()
    log.info("stopping: no new requests, and those accepted are finished")
    end_in_time()
    await http.stop()
    watching.cancel()
    classifier.close()
    if recorder:
        recorder.close()


def _describe(host: str, port: int, model: Model) -> str:
    version = f" version {model.info.version}" if model.info.version else ""
    return f"ready: http://{bracket(host)}:{port}  ({model.info.name}{version}, {model.info.origin})"


def _port_error(host: str, port: int, exc: OSError) -> StartError:
    return StartError(
        f"The web page listens on {host}:{port}, and cannot: {exc.strerror}. Is it running already? "
        "Choose another --port, or another --host."
    )
