"""The server's life: load the models, listen, and end in good order."""

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import config_pb2

from serving.local_server import protos
from serving.local_server.batching import Scheduler
from serving.local_server.batching_options import BatchingOptions
from serving.local_server.errors import Code, StartError, StatusError, invalid_argument
from serving.local_server.flags import Flags
from serving.local_server.grpc_api import GrpcApi
from serving.local_server.loading import load
from serving.local_server.manager import ManagerOptions, ModelManager
from serving.local_server.metrics import Metrics
from serving.local_server.model_config import ModelConfig
from serving.local_server.request_log import RequestLog
from serving.local_server.rest_api import RestApi
from serving.local_server.servable import LoadOptions, Servable
from serving.local_server.service import Service
from serving.local_server.settings import Settings, port_error, read_batching, read_models
from serving.local_server.warmup import warm_up
from serving.shared.http_server import HttpServer
from serving.shared.process import GRACE_S, bracket, end_in_time

log = logging.getLogger(__name__)

# Where requests have none.
_HEAD_TIMEOUT_S = 30.0
_BATCHING_FILE = "batching_params.pbtxt"


async def serve(settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: what to serve, and how.
        on_ready: called once with one line, the addresses and versions, when the server is ready.

    Raises:
        StartError: a port was taken meanwhile, or a label names a version that is not available.
    """
    flags = settings.flags
    gc.freeze()  # TensorFlow's hundred thousands of objects stay: no collection need walk through them.
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    metrics = Metrics()
    scheduler = Scheduler(settings.batching, on_batch=metrics.count_batch)
    load_version = _make_loader(settings, scheduler, metrics)
    if settings.verify_key:
        from serving.local_server.verification import verifying  # most servers need no cryptography

        load_version = verifying(load_version, settings.verify_key)
    request_log = RequestLog(flags, metrics)
    manager = ModelManager(load_version, _manager_options(flags), on_configured=request_log.configure)
    service = Service(
        manager,
        scheduler,
        metrics,
        max_tensor_bytes=flags.max_request_bytes,
        as_content=flags.enable_serialization_as_tensor_content,
        check_methods=flags.enable_signature_method_name_check,
        log=request_log,
    )
    # The port is taken before models are loaded, so that a taken one is known at once; requests are served afterwards.
    grpc_api = GrpcApi(
        service,
        settings.grpc_addresses,
        credentials=settings.grpc_credentials,
        channel_arguments=settings.grpc_options,
        enable_reflection=flags.enable_grpc_reflection,
    )
    timeout_s = flags.rest_api_timeout_in_ms / 1000 if flags.rest_api_timeout_in_ms > 0 else None
    rest_api = RestApi(
        service,
        timeout_s=timeout_s,
        max_body_bytes=flags.max_request_bytes,
        metrics_path=settings.metrics_path,
        enable_cors=flags.rest_api_enable_cors_support,
    )
    http = None
    if settings.rest_socket:
        http = HttpServer(
            rest_api.app,
            settings.rest_socket,
            settings.rest_context,
            head_timeout_s=timeout_s or _HEAD_TIMEOUT_S,
            grace_s=GRACE_S,
        )

    background: list[asyncio.Task[None]] = []

    def start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        background.append(asyncio.create_task(work))
        return background[-1]

    stopped = start(_wait(stopping))
    configured = start(_configure(manager, settings.models))
    await asyncio.wait([configured, stopped], return_when=asyncio.FIRST_COMPLETED)
    if not stopping.is_set():
        configured.result()
        await grpc_api.start()
        if http:
            try:
                await http.start()
            except OSError as exc:
                raise port_error(flags.host, flags.rest_api_port, "rest_api_port", exc) from exc
        start(manager.watch())
        if flags.model_config_file and flags.model_config_file_poll_wait_seconds > 0:
            start(_watch_config(settings, manager))
        on_ready(_describe(settings, manager))
        await stopped
    log.info("stopping: no new requests, and those accepted are finished")
    end_in_time()
    await asyncio.gather(grpc_api.stop(GRACE_S), *([http.stop()] if http else []))
    for task in background:
        task.cancel()
    scheduler.close()
    await manager.close()
    request_log.close()


def _manager_options(flags: Flags) -> ManagerOptions:
    return ManagerOptions(
        poll_wait_s=flags.file_system_poll_wait_seconds,
        max_num_load_retries=flags.max_num_load_retries,
        load_retry_interval_s=flags.load_retry_interval_micros / 1e6,
        num_load_threads=flags.num_load_threads or os.cpu_count() or 1,
        allow_labels_for_unavailable=flags.allow_version_labels_for_unavailable_models,
        force_labels_for_unavailable=flags.force_allow_any_version_labels_for_unavailable_models,
    )


def read_session_config(flags: Flags) -> Any:
    """Return the `ConfigProto` of every session: the file's, with the threads that the flags name.

    As in TensorFlow Serving, one flag for both numbers counts only where neither is given alone.

    Raises:
        StartError: the file cannot be read, or is no `ConfigProto`.
    """
    config = config_pb2.ConfigProto()
    if flags.tensorflow_session_config_file:
        config = protos.read(Path(flags.tensorflow_session_config_file), config_pb2.ConfigProto)
    intra, inter = flags.tensorflow_intra_op_parallelism, flags.tensorflow_inter_op_parallelism
    if not (intra or inter):
        intra = inter = flags.tensorflow_session_parallelism
    config.intra_op_parallelism_threads = intra or config.intra_op_parallelism_threads
    config.inter_op_parallelism_threads = inter or config.inter_op_parallelism_threads
    return config


def _make_loader(settings: Settings, scheduler: Scheduler, metrics: Metrics) -> Callable[[str, Path], Servable]:
    flags = settings.flags
    options = LoadOptions(
        tags=tuple(flags.saved_model_tags.split(",")),
        prefer_litert=flags.prefer_tflite_model or flags.use_tflite_model,
        session_config=read_session_config(flags).SerializeToString(),
    )

    def load_warm(model_name: str, version_dir: Path) -> Servable:
        with metrics.timed_load(version_dir):
            batching = _choose_batching(settings, version_dir)
            servable = load(version_dir, options)
        if batching != settings.batching:
            scheduler.add(servable, batching)
        if flags.enable_model_warmup:
            try:
                with metrics.timed_warmup(version_dir):
                    num_records = warm_up(
                        servable, model_name, version_dir, num_iterations=flags.num_request_iterations_for_warmup
                    )
                metrics.warmup_records_read.labels(str(version_dir)).inc(num_records)
            except BaseException:
                servable.close()
                raise
        return servable

    return load_warm


def _choose_batching(settings: Settings, version_dir: Path) -> BatchingOptions | None:
    """Return how a version is batched: as all are, or as its own file says; the threads are never its own to choose."""
    common, path = settings.batching, version_dir / _BATCHING_FILE
    if common is None or not settings.flags.enable_per_model_batching_parameters:
        return common
    if not path.is_file():
        return None
    try:
        own = read_batching(path)
    except StartError as exc:
        raise invalid_argument(str(exc)) from exc
    return replace(own, num_batch_threads=common.num_batch_threads, thread_pool_name=common.thread_pool_name)


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


async def _watch_config(settings: Settings, manager: ModelManager) -> None:
    """Read the configuration file again and again; a bad one is reported and changes nothing."""
    last = settings.models
    while True:
        await asyncio.sleep(settings.flags.model_config_file_poll_wait_seconds)
        try:
            configs = read_models(settings.flags)
            if configs != last:
                await manager.configure(configs)
        except (StartError, StatusError) as exc:
            if not isinstance(exc, StatusError) or exc.code is not Code.UNKNOWN:
                log.error("the configuration stays as it was: %s", exc)
                continue
            log.warning("%s", exc.message)  # applied, and a model is still missing
        last = configs


def _describe(settings: Settings, manager: ModelManager) -> str:
    flags = settings.flags
    parts = [f"gRPC {', '.join(settings.grpc_addresses)}"]
    if flags.rest_api_port:
        scheme = "https" if settings.rest_context else "http"
        parts.append(f"REST {scheme}://{bracket(flags.host)}:{flags.rest_api_port}")
    return f"ready: {'; '.join(parts)}; serving {manager.describe()}"
