"""The server's life: read the configuration, load the models, listen, and end in good order."""

import asyncio
import logging
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette

from serving.local_server import model_config, protos, tls
from serving.local_server.batching import BatchingOptions, Scheduler
from serving.local_server.errors import Code, StartError, StatusError
from serving.local_server.flags import Flags, read_channel_arguments
from serving.local_server.grpc_api import GrpcApi
from serving.local_server.manager import ManagerOptions, ModelManager
from serving.local_server.metrics import Metrics
from serving.local_server.model_config import ModelConfig
from serving.local_server.rest_api import RestApi
from serving.local_server.servable import LoadOptions, Servable, load
from serving.local_server.service import Service
from serving.local_server.warmup import warm_up

log = logging.getLogger(__name__)

# What was accepted gets so long to finish, and all of ending stays under the ten seconds that Docker gives.
_GRACE_S = 7.0
_END_S = 9.5


async def serve(flags: Flags, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        flags: the command line.
        on_ready: called once with one line, the addresses and versions, when requests are answered.

    Raises:
        StartError: a flag, a configuration file or a port cannot be used.
    """
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    configs = _read_models(flags)
    metrics = Metrics()
    manager = ModelManager(_make_loader(flags, metrics), _manager_options(flags))
    scheduler = Scheduler(_read_batching(flags), on_batch=metrics.count_batch)
    service = Service(
        manager,
        scheduler,
        metrics,
        max_tensor_bytes=flags.max_request_bytes,
        as_content=flags.enable_serialization_as_tensor_content,
    )
    ssl_config = protos.read(Path(flags.ssl_config_file), protos.SSLConfig) if flags.ssl_config_file else None
    # Ports are taken before models are loaded, so that a taken one is known at once, and answer only afterwards.
    grpc_api = GrpcApi(
        service,
        _grpc_addresses(flags),
        credentials=tls.grpc_credentials(ssl_config) if ssl_config else None,
        channel_arguments=_channel_arguments(flags),
        enable_reflection=flags.enable_grpc_reflection,
    )
    rest_api = RestApi(
        service,
        timeout_s=flags.rest_api_timeout_in_ms / 1000,
        max_body_bytes=flags.max_request_bytes,
        metrics_path=_read_metrics_path(flags),
        enable_cors=flags.enable_cors_support,
    )
    http = _HttpServer(rest_api.app, flags, tls.ssl_context(ssl_config) if ssl_config else None)

    background: list[asyncio.Task[None]] = []

    def start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        background.append(asyncio.create_task(work))
        return background[-1]

    stopped = start(_wait(stopping))
    await asyncio.wait([start(_configure(manager, configs)), stopped], return_when=asyncio.FIRST_COMPLETED)
    if not stopping.is_set():
        await grpc_api.start()
        await http.start()
        start(manager.watch())
        if flags.model_config_file and flags.model_config_file_poll_wait_seconds > 0:
            start(_watch_config(flags, manager))
        on_ready(_describe(flags, manager))
        await stopped
    log.info("stopping: no new requests, and those accepted are finished")
    _end_in_time()
    await asyncio.gather(grpc_api.stop(_GRACE_S), http.stop(_GRACE_S))
    for task in background:
        task.cancel()
    scheduler.close()
    await manager.close()


class _HttpServer:
    """uvicorn on a socket of its own, started and stopped by us instead of by signals."""

    def __init__(self, app: Starlette, flags: Flags, context: ssl.SSLContext | None) -> None:
        self._socket = _bind(flags.host, flags.rest_api_port) if flags.rest_api_port else None
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=int(_GRACE_S)
        )
        config.load()
        config.ssl = context
        self._server = _Uvicorn(config)
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._socket is None:
            return
        self._running = asyncio.create_task(self._server.serve([self._socket]))
        while not self._server.started and not self._running.done():
            await asyncio.sleep(0.01)

    async def stop(self, grace_s: float) -> None:
        if self._running:
            self._server.should_exit = True
            await asyncio.wait([self._running], timeout=grace_s + 1)


class _Uvicorn(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        raise StartError(
            f"The server listens for REST on {host}:{port}, and cannot: {exc.strerror}. Is another server running? "
            "Choose another --rest_api_port."
        ) from exc
    return listener


def _grpc_addresses(flags: Flags) -> list[str]:
    addresses = [f"{flags.host}:{flags.port}"] if flags.port else []
    if flags.grpc_socket_path:
        addresses.append(f"unix:{Path(flags.grpc_socket_path).absolute()}")
    return addresses


def _channel_arguments(flags: Flags) -> list[tuple[str, int | str]]:
    return [
        ("grpc.so_reuseport", 0),  # or a second server would take half of the first one's requests
        ("grpc.max_receive_message_length", flags.max_request_bytes),
        ("grpc.max_send_message_length", -1),
        *read_channel_arguments(flags.grpc_channel_arguments),
    ]


def _read_models(flags: Flags) -> tuple[ModelConfig, ...]:
    if not flags.model_config_file:
        return (ModelConfig(flags.model_name, Path(flags.model_base_path)),)
    try:
        return model_config.from_proto(protos.read(Path(flags.model_config_file), protos.ModelServerConfig))
    except StatusError as exc:
        raise StartError(f"{flags.model_config_file} is not a valid ModelServerConfig: {exc.message}") from exc


def _read_batching(flags: Flags) -> BatchingOptions | None:
    if not flags.enable_batching:
        return None
    if not flags.batching_parameters_file:
        return BatchingOptions()
    path = Path(flags.batching_parameters_file)
    try:
        return BatchingOptions.from_proto(protos.read(path, protos.BatchingParameters))
    except ValueError as exc:
        raise StartError(f"{path}: {exc}") from exc


def _read_metrics_path(flags: Flags) -> str:
    if not flags.monitoring_config_file:
        return ""
    path = Path(flags.monitoring_config_file)
    config = protos.read(path, protos.MonitoringConfig).prometheus_config
    if config.enable and not config.path.startswith("/"):
        raise StartError(f"{path}: prometheus_config needs a path that begins with '/'. Received: {config.path!r}")
    return config.path if config.enable else ""


def _manager_options(flags: Flags) -> ManagerOptions:
    return ManagerOptions(
        poll_wait_s=flags.file_system_poll_wait_seconds,
        max_num_load_retries=flags.max_num_load_retries,
        load_retry_interval_s=flags.load_retry_interval_micros / 1e6,
        num_load_threads=flags.num_load_threads or os.cpu_count() or 1,
        allow_labels_for_unavailable=flags.allow_version_labels_for_unavailable_models,
        force_labels_for_unavailable=flags.force_allow_any_version_labels_for_unavailable_models,
    )


def _make_loader(flags: Flags, metrics: Metrics) -> Callable[[str, Path], Servable]:
    options = LoadOptions(
        tags=tuple(flags.saved_model_tags.split(",")),
        prefer_litert=flags.prefer_tflite_model or flags.use_tflite_model,
        num_intra_op_threads=flags.tensorflow_intra_op_parallelism or flags.tensorflow_session_parallelism,
        num_inter_op_threads=flags.tensorflow_inter_op_parallelism or flags.tensorflow_session_parallelism,
    )

    def load_warm(model_name: str, version_dir: Path) -> Servable:
        with metrics.timed_load(version_dir):
            servable = load(version_dir, options)
        if flags.enable_model_warmup:
            try:
                with metrics.timed_warmup(version_dir):
                    warm_up(servable, model_name, version_dir, num_iterations=flags.num_request_iterations_for_warmup)
            except StatusError:
                servable.close()
                raise
        return servable

    return load_warm


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def _configure(manager: ModelManager, configs: Sequence[ModelConfig]) -> None:
    """Load what there is; what is broken or missing is in the log, and is served as soon as it is there."""
    try:
        await manager.configure(configs)
    except StatusError as exc:
        if exc.code is Code.FAILED_PRECONDITION:
            raise StartError(
                f"Failed to start server. Error: {exc}. Labels may name versions that are still to come with "
                "--allow_version_labels_for_unavailable_models."
            ) from exc
        log.warning("%s", exc.message)


async def _watch_config(flags: Flags, manager: ModelManager) -> None:
    """Read the configuration file again and again; a bad one is reported and changes nothing."""
    last = None
    while True:
        try:
            configs = _read_models(flags)
            if configs != last:
                await manager.configure(configs)
            last = configs
        except (StartError, StatusError) as exc:
            log.error("the configuration stays as it was: %s", exc)
        await asyncio.sleep(flags.model_config_file_poll_wait_seconds)


def _describe(flags: Flags, manager: ModelManager) -> str:
    parts = [f"gRPC {', '.join(_grpc_addresses(flags))}"]
    if flags.rest_api_port:
        parts.append(f"REST {'https' if flags.ssl_config_file else 'http'}://{flags.host}:{flags.rest_api_port}")
    return f"ready: {'; '.join(parts)}; serving {manager.describe()}"


def _end_in_time() -> None:
    """End the process when something does not let go: a model's operation cannot be interrupted."""

    def end() -> None:
        time.sleep(_END_S)
        log.error("ending with requests unfinished")
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
