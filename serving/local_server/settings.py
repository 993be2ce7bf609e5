"""The flags and the files they name, read and checked before TensorFlow, which takes seconds to import."""

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from serving.local_server import model_config, protos, tls
from serving.local_server.batching_options import BatchingOptions
from serving.local_server.errors import StartError, StatusError
from serving.local_server.flags import Flags, read_channel_arguments
from serving.local_server.model_config import ModelConfig
from serving.shared.process import bracket, take_port

if TYPE_CHECKING:
    from client.classifier_client.signing import VerifyKey

# TensorFlow Serving's own, where a MonitoringConfig names none.
_METRICS_PATH = "/monitoring/prometheus/metrics"


@dataclass(frozen=True)
class Settings:
    """How the server runs.

    Attributes:
        flags: the command line.
        models: to serve.
        batching: `None` runs every request for itself.
        metrics_path: where Prometheus reads; empty for nowhere.
        grpc_addresses: to listen on, `host:port` or `unix:path`.
        grpc_options: gRPC's own.
        grpc_credentials: for TLS; `None` listens without.
        rest_socket: bound, and not yet listening; `None` for no REST.
        rest_context: for TLS; `None` listens without.
        verify_key: what versions must be signed with; `None` serves any.
    """

    flags: Flags
    models: tuple[ModelConfig, ...]
    batching: BatchingOptions | None
    metrics_path: str
    grpc_addresses: tuple[str, ...]
    grpc_options: tuple[tuple[str, int | str], ...]
    grpc_credentials: grpc.ServerCredentials | None
    rest_socket: socket.socket | None
    rest_context: ssl.SSLContext | None
    verify_key: "VerifyKey | None"


def read(flags: Flags) -> Settings:
    """Read all files that the flags name, and take the ports.

    Raises:
        StartError: a flag, a configuration file or a port cannot be used.
    """
    ssl_config = protos.read(Path(flags.ssl_config_file), protos.SSLConfig) if flags.ssl_config_file else None
    models = read_models(flags)
    verify_key = _read_verify_key(flags)
    batching = _read_batching(flags)
    metrics_path = _read_metrics_path(flags)
    # The context first: its error names what is wrong with a key, gRPC's only that something is.
    rest_context = tls.ssl_context(ssl_config) if ssl_config else None
    grpc_credentials = tls.grpc_credentials(ssl_config) if ssl_config else None
    if flags.port:
        # gRPC takes its port itself, seconds later.
        _take_port(flags.host, flags.port, flag="port").close()
    return Settings(
        flags=flags,
        models=models,
        batching=batching,
        metrics_path=metrics_path,
        grpc_addresses=_name_grpc_addresses(flags),
        grpc_options=(
            ("grpc.so_reuseport", 0),  # or a second server would take half of the first one's requests
            ("grpc.max_receive_message_length", flags.max_request_bytes),
            ("grpc.max_send_message_length", -1),
            *read_channel_arguments(flags.grpc_channel_arguments),
        ),
        grpc_credentials=grpc_credentials,
        rest_socket=_take_port(flags.host, flags.rest_api_port, flag="rest_api_port") if flags.rest_api_port else None,
        rest_context=rest_context,
        verify_key=verify_key,
    )


def read_models(flags: Flags) -> tuple[ModelConfig, ...]:
    """Read which models are to be served.

    Raises:
        StartError: the configuration file cannot be read, or is not a valid one.
    """
    if not flags.model_config_file:
        return (ModelConfig(flags.model_name, Path(flags.model_base_path)),)
    try:
        return model_config.from_proto(protos.read(Path(flags.model_config_file), protos.ModelServerConfig))
    except StatusError as exc:
        raise StartError(f"{flags.model_config_file} is not a valid ModelServerConfig: {exc.message}") from exc


def _read_verify_key(flags: Flags) -> "VerifyKey | None":
    if not flags.verify_key:
        return None
    try:
        from client.classifier_client.signing import read_verify_key

        return read_verify_key(Path(flags.verify_key))
    except (ValueError, ImportError) as exc:
        raise StartError(f"{exc} The flag is --verify_key.") from exc


def _read_batching(flags: Flags) -> BatchingOptions | None:
    if not flags.enable_batching:
        return None
    return read_batching(Path(flags.batching_parameters_file)) if flags.batching_parameters_file else BatchingOptions()


def read_batching(path: Path) -> BatchingOptions:
    """Read a file of `BatchingParameters`.

    Raises:
        StartError: it cannot be read, or what it says cannot be done.
    """
    try:
        return BatchingOptions.from_proto(protos.read(path, protos.BatchingParameters))
    except ValueError as exc:
        raise StartError(f"{path}: {exc}") from exc


def _read_metrics_path(flags: Flags) -> str:
    if not flags.monitoring_config_file:
        return ""
    path = Path(flags.monitoring_config_file)
    config = protos.read(path, protos.MonitoringConfig).prometheus_config
    metrics_path = config.path or _METRICS_PATH
    if config.enable and not metrics_path.startswith("/"):
        raise StartError(f"{path}: prometheus_config needs a path that begins with '/'. Received: {metrics_path!r}")
    return metrics_path if config.enable else ""


def _name_grpc_addresses(flags: Flags) -> tuple[str, ...]:
    addresses = [f"{bracket(flags.host)}:{flags.port}"] if flags.port else []
    if flags.grpc_socket_path:
        addresses.append(f"unix:{Path(flags.grpc_socket_path).absolute()}")
    return tuple(addresses)


def _take_port(host: str, port: int, *, flag: str) -> socket.socket:
    try:
        return take_port(host, port)
    except OSError as exc:
        raise port_error(host, port, flag, exc) from exc


def port_error(host: str, port: int, flag: str, exc: OSError) -> StartError:
    """Return the error for a port that the server cannot listen on."""
    return StartError(
        f"The server listens on {host}:{port} (--{flag}), and cannot: {exc.strerror}. Is another server running? "
        f"Choose another --{flag}, or another --host."
    )
