"""`python -m serving.proxy --server localhost:8500 --rest-server localhost:8501`; ends with SIGTERM or SIGINT.

Exit status: 0 after a signal to end, 1 when it cannot start, 2 for a wrong command line.
"""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from client.classifier_client.transports.connection import check_certificates
from serving.proxy.control import make_app
from serving.proxy.forwarding import Forwarder
from serving.proxy.grpc_api import GrpcProxy
from serving.proxy.plan import Board
from serving.proxy.rest_api import RestProxy
from serving.shared.http_server import HttpServer
from serving.shared.process import GRACE_S, bracket, end_in_time, raise_file_limit, take_port

_HEAD_TIMEOUT_S = 30.0


def main() -> int:
    """Run the proxy and return its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    parser = _parser()
    options = parser.parse_args()
    try:
        if options.ca_file:
            check_certificates("--ca-file", options.ca_file)
    except ValueError as exc:
        parser.error(str(exc))
    raise_file_limit()
    try:
        asyncio.run(_serve(options))
    except (OSError, RuntimeError) as exc:
        print(f"error: The proxy listens on three ports, and cannot: {exc}. Choose others.", file=sys.stderr)
        return 1
    return 0


async def _serve(options: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    board = Board()
    forwarder = Forwarder(board)
    common = {
        "model_name": options.model_name,
        "stable_label": options.stable_label,
        "timeout_s": options.timeout_s,
        "tls": options.tls or options.ca_file is not None,
        "ca_file": options.ca_file,
    }
    rest = RestProxy(forwarder, options.rest_server, **common)
    host = bracket(options.host)
    grpc_proxy = GrpcProxy(forwarder, options.server, listens_on=f"{host}:{options.port}", **common)
    ports = (
        (rest.app, options.host, options.rest_port),
        (make_app(board, options.model_name), "127.0.0.1", options.control_port),
    )
    servers = [
        HttpServer(app, take_port(address, port), None, head_timeout_s=_HEAD_TIMEOUT_S, grace_s=GRACE_S)
        for app, address, port in ports
    ]
    for server in servers:
        await server.start()
    await grpc_proxy.start()
    print(
        f"ready: gRPC {host}:{options.port}; REST http://{host}:{options.rest_port}; "
        f"control 127.0.0.1:{options.control_port}",
        flush=True,
    )
    await stopping.wait()
    end_in_time()
    await asyncio.gather(grpc_proxy.stop(GRACE_S), *(server.stop() for server in servers))
    await forwarder.close()
    rest.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.proxy", description="Show a part of the requests to a second version of a model."
    )
    parser.add_argument("--model-name", default="flowers", help="default: flowers")
    parser.add_argument(
        "--server", default="localhost:8500", metavar="HOST:PORT", help="its gRPC (default: %(default)s)"
    )
    parser.add_argument(
        "--rest-server", default="localhost:8501", metavar="HOST:PORT", help="its REST API (default: %(default)s)"
    )
    parser.add_argument("--tls", action="store_true", help="speak TLS with the server, over both")
    parser.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="PEM certificates that vouch for the server; implies --tls"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8510, help="for gRPC (default: %(default)s)")
    parser.add_argument("--rest-port", type=int, default=8511, help="for REST (default: %(default)s)")
    parser.add_argument(
        "--control-port", type=int, default=8512, help="for the release, on 127.0.0.1 (default: %(default)s)"
    )
    parser.add_argument("--stable-label", default="stable", help="default: stable")
    parser.add_argument("--timeout-s", type=float, default=60.0, help="for the server (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
