"""The command behind `make web`: `python -m serving.web` shows the page in the foreground.

Exit status: 0 when a signal ends it, 1 when it cannot start, 2 for a wrong command line.
"""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from client.browser.runtime import FOLDER
from client.classifier_client import ClassifierError, ConnectionOptions
from client.classifier_client.decoder_pool import DecoderPool
from client.classifier_client.transports.connection import TOKEN_VARIABLE
from serving.shared.capture.writer import CaptureOptions
from serving.shared.folders import local_folder
from serving.shared.machine import count_processors, read_memory_bytes
from serving.web.capture import NAME
from serving.web.errors import StartError
from serving.web.models import FileModel, Load, Model, PushedModel, ServerModel
from serving.web.settings import Limits, Settings, choose_num_workers

TOKEN = "CLASSIFIER_WEB_TOKEN"
ALLOWED_HOSTS = "CLASSIFIER_WEB_ALLOWED_HOSTS"

_EPILOG = f"""\
Without --rest, --grpc or --tflite it takes the newest version in <models-dir>/tflite, and follows newer ones.
{TOKEN} in the environment is the token that callers must send; {TOKEN_VARIABLE} the one that a server gets.
With a token the page asks for it; the API and /metrics want `Authorization: Bearer …`; the rest is open.
Addresses, localhost and the names of a local network reach it; {ALLOWED_HOSTS}, or --allowed-host, adds others.
Behind a proxy, FORWARDED_ALLOW_IPS names the addresses whose X-Forwarded-For is believed (default: 127.0.0.1).
"""
# A person waits: two attempts of a few seconds each are enough to know that a server is down.
_SERVER_TIMEOUT_S = 5
_SERVER_RETRIES = 1
# A look at a folder costs next to nothing; one at a server a prediction.
_SERVER_POLL_S = 5.0
_CAPTURE_RATE = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal ends it; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    # Our own log has a line for a connection that fails.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Each byte of a form, or of a connection, that is not as it should be would have a line, of whoever sends it.
    for name in ("python_multipart", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.ERROR)
    parser = _make_parser()
    options = parser.parse_args(arguments)
    try:
        settings = _read_settings(options)
    except ValueError as exc:
        parser.error(str(exc))
    except StartError as exc:
        return _fail(exc)
    with DecoderPool(settings.num_workers, num_spare=1) as decoders:
        try:
            model = _open_model(options, decoders.load)
        except ValueError as exc:
            parser.error(str(exc))
        except (StartError, ClassifierError) as exc:
            return _fail(exc)
        # Starlette takes a moment to import: not before all is known to be good.
        from serving.web.server import serve

        try:
            asyncio.run(serve(model, decoders, settings, on_ready=lambda line: print(line, flush=True)))
        except StartError as exc:
            return _fail(exc)
    return 0


def _fail(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 1


def _read_settings(options: argparse.Namespace) -> Settings:
    token = os.environ.get(TOKEN) or None
    if options.token_file:
        try:
            token = options.token_file.read_text(encoding="utf-8").strip()
        except OSError as exc:
            raise StartError(f"--token-file must be readable. {options.token_file}: {exc.strerror}.") from exc
    limits = Limits(
        max_at_work=options.max_at_work,
        max_requests_per_client=options.requests_per_client,
        photos_per_minute=options.photos_per_minute,
    )
    poll_s = options.poll_s
    if poll_s is None:
        poll_s = _SERVER_POLL_S if options.rest or options.grpc else Settings.poll_s
    return Settings(
        host=options.host,
        port=options.port,
        allowed_hosts=(*options.allowed_hosts, *os.environ.get(ALLOWED_HOSTS, "").replace(",", " ").split()),
        threshold=options.threshold,
        runs_dir=options.runs_dir,
        token=token,
        num_workers=choose_num_workers(count_processors(), read_memory_bytes())
        if options.workers is None
        else options.workers,
        poll_s=poll_s,
        limits=limits,
        capture=_read_capture(options),
        runtime_dir=options.runtime_dir if options.device else None,
    )


def _read_capture(options: argparse.Namespace) -> CaptureOptions | None:
    if options.capture is None:
        if options.capture_images:
            raise ValueError(
                "--capture-images keeps photos in the folder of --capture. Received: none. Give --capture DIR."
            )
        return None
    if "://" in options.capture:
        raise ValueError(
            f"--capture takes a folder of this machine. Received: {options.capture}. Name one, and copy it."
        )
    return CaptureOptions(
        folder=Path(options.capture),
        name=NAME,
        rate=options.capture_rate,
        with_inputs=options.capture_images,
        max_mb=options.capture_max_mb,
        max_age_days=options.capture_max_age_days,
    )


def _open_model(options: argparse.Namespace, load: Load) -> Model:
    verify_key = None
    if options.verify_key:
        from client.classifier_client.signing import read_verify_key

        verify_key = read_verify_key(options.verify_key)
    if options.tflite:
        return FileModel(options.tflite, load=load, verify_key=verify_key)
    if not (options.rest or options.grpc):
        return PushedModel(options.models_dir, options.model_name, load=load, verify_key=verify_key)
    if verify_key:
        raise ValueError("--verify-key is for LiteRT files. What a server serves is verified by the server.")
    server = ConnectionOptions(
        timeout_s=_SERVER_TIMEOUT_S,
        num_retries=_SERVER_RETRIES,
        tls=options.tls or options.ca_file is not None,
        ca_file=options.ca_file,
        token=os.environ.get(TOKEN_VARIABLE),
    )
    name, models_dir = options.model_name, options.models_dir
    if options.rest:
        from client.classifier_client import RestTransport

        transport = RestTransport(options.rest, name, options=server)
        return ServerModel(transport, name=name, origin=f"REST {options.rest}", models_dir=models_dir, load=load)
    from client.classifier_client import GrpcTransport

    channel = GrpcTransport(options.grpc, name, options=server)
    return ServerModel(channel, name=name, origin=f"gRPC {options.grpc}", models_dir=models_dir, load=load)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.web",
        description="Serve a page that classifies photos.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--rest", metavar="HOST:PORT", help="query a server over REST, such as localhost:8501")
    source.add_argument("--grpc", metavar="HOST:PORT", help="query a server over gRPC, such as localhost:8500")
    source.add_argument("--tflite", metavar="FILE", type=Path, help="run this LiteRT file")
    parser.add_argument(
        "--verify-key",
        metavar="FILE",
        type=Path,
        help="PEM public key or root certificate: refuse LiteRT files that are not signed with it",
    )
    parser.add_argument("--tls", action="store_true", help="speak TLS with the server")
    parser.add_argument(
        "--ca-file", metavar="FILE", type=Path, help="PEM certificates that vouch for the server; implies --tls"
    )
    parser.add_argument("--model-name", default="flowers", help="default: flowers")
    parser.add_argument(
        "--models-dir", type=local_folder, default=Path("models"), help="pushed models (default: models)"
    )
    parser.add_argument(
        "--runs-dir", type=Path, default=Path("runs"), help="runs of the pipeline, for the model card (default: runs)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--allowed-host",
        dest="allowed_hosts",
        metavar="NAME",
        action="append",
        default=[],
        help="a name by which browsers reach it, such as a proxy's; * is any (more than once for several)",
    )
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (default: 8080)")
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="below it the page says that it is not sure (default: 0.5)"
    )
    parser.add_argument("--token-file", metavar="FILE", type=Path, help="holds the token that callers must send")
    parser.add_argument(
        "--workers",
        type=int,
        help="photos decoded at once, each in a process of up to 335 MB (default: one a core that it may use, 2 to 16, "
        "as memory allows)",
    )
    parser.add_argument(
        "--max-at-work", type=int, default=Limits.max_at_work, help="photos at work or waiting (default: %(default)s)"
    )
    parser.add_argument(
        "--requests-per-client",
        type=int,
        default=Limits.max_requests_per_client,
        help="of one address, in progress at once; all who share a router's or a proxy's address count as one, unless "
        "FORWARDED_ALLOW_IPS names the proxy (default: %(default)s)",
    )
    parser.add_argument(
        "--photos-per-minute",
        type=int,
        default=Limits.photos_per_minute,
        help="of one client (default: %(default)s)",
    )
    parser.add_argument(
        "--poll-s",
        type=float,
        help="seconds between two looks for a newer version (default: 1), or at the server (default: 5)",
    )
    parser.add_argument(
        "--no-device",
        dest="device",
        action="store_false",
        help="do not let visitors run the model, which they would download, in their own browser",
    )
    parser.add_argument(
        "--runtime-dir",
        type=Path,
        default=FOLDER,
        help="the LiteRT runtime for browsers: python -m client.browser.runtime DIR (default: %(default)s)",
    )
    capture = parser.add_argument_group("capture", "what the page keeps; it says so to those who send photos")
    capture.add_argument("--capture", metavar="DIR", help="keep results in files of this folder")
    capture.add_argument(
        "--capture-rate", type=float, default=_CAPTURE_RATE, help="of the photos, 0 to 1 (default: %(default)s)"
    )
    capture.add_argument("--capture-images", action="store_true", help="keep the photos too, as they were sent")
    capture.add_argument(
        "--capture-max-mb",
        type=float,
        default=CaptureOptions.max_mb,
        help="of all these files; the oldest are deleted first (default: %(default)s)",
    )
    capture.add_argument(
        "--capture-max-age-days",
        type=float,
        default=CaptureOptions.max_age_days,
        help="after which what is kept is deleted, at the latest (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
