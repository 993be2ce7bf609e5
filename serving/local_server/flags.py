"""TensorFlow Serving's command line (tensorflow_model_server --help), as far as it means something here."""

import argparse
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from serving.local_server.errors import StartError
from serving.shared.folders import url_complaint

log = logging.getLogger(__name__)

IGNORED = {
    "enable_grpc_healthcheck_service": "gRPC's health service is always there",
    "enable_profiler": "there is no profiler to call",
    "flush_filesystem_caches": "the operating system frees its caches by itself",
    "grpc_max_threads": "gRPC calls take no threads",
    "mixed_precision": "it is for GPUs and TPUs",
    "num_tflite_interpreters_per_pool": "a LiteRT model has an interpreter for each core",
    "num_tflite_pools": "a LiteRT model has an interpreter for each core",
    "num_unload_threads": "versions are unloaded by the threads that load them",
    "per_process_gpu_memory_fraction": "write it into a --tensorflow_session_config_file",
    "platform_config_file": "batching and sessions have files of their own",
    "remove_unused_fields_from_bundle_metagraph": "of a graph only what runs it is kept",
    "rest_api_num_threads": "REST calls take no threads",
    "skip_initialize_tpu": "there is no TPU",
    "thread_pool_factory_config_file": "each model has threads of its own",
    "use_alts_credentials": "they work in Google's cloud alone: take an --ssl_config_file",
    "xla_cpu_compilation_enabled": "TensorFlow's environment variable TF_XLA_FLAGS does it",
    "xla_gpu_compilation_enabled": "TensorFlow's environment variable TF_XLA_FLAGS does it",
}
"""Flags of TensorFlow Serving that mean nothing here, each with the reason. They are taken with a warning."""

OWN = (
    "host",
    "max_request_bytes",
    "enable_grpc_reflection",
    "request_log_inputs",
    "request_log_max_mb",
    "request_log_max_age_days",
    "log_level",
    "verify_key",
)
"""The flags that TensorFlow Serving does not have."""

_LOG_LEVELS = ("debug", "info", "warning", "error")
_AT_LEAST = {
    "max_request_bytes": 1,
    "max_num_load_retries": 0,
    "num_load_threads": 0,
    "tensorflow_session_parallelism": 0,
    "tensorflow_intra_op_parallelism": 0,
    "tensorflow_inter_op_parallelism": 0,
    "request_log_max_mb": 1,
    "request_log_max_age_days": 1,
}


def _flag(default: Any, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True)
class Flags:
    """The flags that do something, each with TensorFlow Serving's name and default; those in `OWN` are our own."""

    port: int = _flag(8500, "TCP port to listen on for gRPC; 0 with --grpc_socket_path listens on the socket alone")
    rest_api_port: int = _flag(0, "port for HTTP/REST; 0 switches it off")
    rest_api_timeout_in_ms: int = _flag(30_000, "timeout for a REST request; 0 or less for none")
    rest_api_enable_cors_support: bool = _flag(False, "let pages of other sites call the REST API")
    model_name: str = _flag("default", "name of the model; ignored with --model_config_file")
    model_base_path: str = _flag("", "folder of the model's version folders; ignored with --model_config_file")
    model_config_file: str = _flag(
        "", "a ModelServerConfig in protobuf's text format: several models, policies, labels"
    )
    model_config_file_poll_wait_seconds: int = _flag(0, "how often that file is read again; 0 or less reads it once")
    file_system_poll_wait_seconds: float = _flag(
        1.0, "how often the version folders are looked at; 0 or less looks once"
    )
    enable_batching: bool = _flag(False, "run several requests at once")
    batching_parameters_file: str = _flag("", "BatchingParameters in text format, with --enable_batching")
    enable_per_model_batching_parameters: bool = _flag(
        False,
        "with --enable_batching, batch each version as its own batching_params.pbtxt says, or not where it has none",
    )
    monitoring_config_file: str = _flag("", "a MonitoringConfig in text format: Prometheus' path")
    ssl_config_file: str = _flag("", "an SSLConfig in text format: TLS for gRPC and REST")
    enable_model_warmup: bool = _flag(True, "replay assets.extra/tf_serving_warmup_requests before a model is served")
    num_request_iterations_for_warmup: int = _flag(0, "how often each of them is replayed; 0 replays it once")
    saved_model_tags: str = _flag("serve", "tags of the graph to serve, with commas between")
    prefer_tflite_model: bool = _flag(False, "serve model.tflite where a version holds one, else its SavedModel")
    use_tflite_model: bool = _flag(False, "the older name of --prefer_tflite_model")
    grpc_socket_path: str = _flag("", "also listen for gRPC on this Unix socket")
    grpc_channel_arguments: str = _flag("", "gRPC's own options: key=value with commas between")
    allow_version_labels_for_unavailable_models: bool = _flag(False, "a new label may name a version not yet available")
    force_allow_any_version_labels_for_unavailable_models: bool = _flag(False, "so may a label in use")
    max_num_load_retries: int = _flag(5, "how often a version that cannot be loaded is tried again")
    load_retry_interval_micros: int = _flag(
        60_000_000, "between two of these, less than 0 for no wait; a version whose files change: at once"
    )
    num_load_threads: int = _flag(0, "versions loaded at the same time; 0 chooses")
    tensorflow_session_parallelism: int = _flag(
        0, "threads inside an operation and operations at once, where neither has a flag of its own; 0 chooses"
    )
    tensorflow_intra_op_parallelism: int = _flag(0, "threads inside one operation; 0 chooses")
    tensorflow_inter_op_parallelism: int = _flag(0, "operations at once; 0 chooses")
    tensorflow_session_config_file: str = _flag(
        "", "a ConfigProto in text format for every session; the three flags above it win where they are given"
    )
    enable_serialization_as_tensor_content: bool = _flag(False, "return tensors as bytes instead of typed fields")
    enable_signature_method_name_check: bool = _flag(
        False, "classify and regress with signatures made for it alone; TensorFlow 2 makes all of them for predict"
    )
    version: bool = _flag(False, "print the version and exit")
    host: str = _flag("0.0.0.0", "address to listen on")
    max_request_bytes: int = _flag(1 << 26, "of one request, over gRPC and REST, unpacked")
    enable_grpc_reflection: bool = _flag(False, "let gRPC tools list the services")
    request_log_inputs: bool = _flag(True, "false: of a model with a logging_config only the responses are logged")
    request_log_max_mb: int = _flag(1000, "of all files of a filename_prefix; the oldest are deleted first")
    request_log_max_age_days: int = _flag(30, "after which a logged request is deleted, at the latest")
    log_level: str = _flag("info", "debug, info, warning or error")
    verify_key: str = _flag("", "PEM public key or root certificate: refuse versions that are not signed with it")


def parse(arguments: Sequence[str]) -> Flags:
    """Read a command line.

    Raises:
        StartError: two flags contradict each other, or one is missing.
        SystemExit: a flag is unknown or has a wrong value (2), or is --help (0).
    """
    parser = argparse.ArgumentParser(
        prog="python -m serving.local_server",
        description="Serve models as TensorFlow Serving does: same protocol, flags and error texts.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    for declared in fields(Flags):
        kind: dict[str, Any] = {"type": declared.type}
        if declared.type is bool:
            kind = {"type": _read_bool, "nargs": "?", "const": True, "metavar": "true|false"}
        help_text = declared.metadata["help"] + (" [not in TensorFlow Serving]" if declared.name in OWN else "")
        parser.add_argument(f"--{declared.name}", default=declared.default, help=help_text, **kind)
    for name in IGNORED:
        parser.add_argument(f"--{name}", nargs="?", const="true", help=argparse.SUPPRESS)
    given = vars(parser.parse_args(arguments))
    for name, reason in IGNORED.items():
        if given.pop(name) is not None:
            log.warning("--%s is without effect here: %s", name, reason)
    flags = Flags(**given)
    if not flags.version:
        _check(flags)
    return flags


def write_table() -> str:
    """Write all flags as a table in Markdown: TensorFlow Serving's in the order of their names, then our own."""
    rows = {f.name: f"{f.metadata['help']} (default: {_show(f.default)})" for f in fields(Flags)}
    own = {name: f"*not in TensorFlow Serving:* {rows.pop(name)}" for name in OWN}
    rows |= {name: f"*without effect:* {reason}" for name, reason in IGNORED.items()}
    lines = [f"| `--{name}` | {text} |" for name, text in (*sorted(rows.items()), *own.items())]
    return "\n".join(["| flag | meaning here |", "|---|---|", *lines]) + "\n"


def _show(default: Any) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default) or "none"


def _read_bool(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise argparse.ArgumentTypeError(f"must be true or false. Received: {text}")
    return text.lower() in ("true", "1")


def _check(flags: Flags) -> None:
    if not flags.model_config_file and not (flags.model_name and flags.model_base_path):
        raise StartError(
            "The server needs a model: --model_name and --model_base_path, or --model_config_file. Received: "
            f"--model_name={flags.model_name} --model_base_path={flags.model_base_path}. Add what is missing."
        )
    if "://" in flags.model_base_path:
        raise StartError(url_complaint(flags.model_base_path))
    if flags.batching_parameters_file and not flags.enable_batching:
        raise StartError(
            "--batching_parameters_file is for --enable_batching, which is not given. Received: "
            f"--batching_parameters_file={flags.batching_parameters_file}. Add --enable_batching."
        )
    if (
        flags.tensorflow_session_parallelism
        and flags.tensorflow_intra_op_parallelism
        and flags.tensorflow_inter_op_parallelism
    ):
        raise StartError(
            "--tensorflow_session_parallelism stands for both --tensorflow_intra_op_parallelism and "
            "--tensorflow_inter_op_parallelism. Received: all three. Leave it out, or the two others."
        )
    if not flags.port and not flags.grpc_socket_path:
        raise StartError("The server needs a port for gRPC. Received --port=0: give one, or a --grpc_socket_path.")
    if flags.rest_api_port and flags.rest_api_port == flags.port:
        raise StartError(f"--rest_api_port cannot be same as --port. Received: {flags.port} for both. Change one.")
    for name in ("port", "rest_api_port"):
        if not 0 <= getattr(flags, name) < 1 << 16:
            raise StartError(f"--{name} must be 0 to 65535. Received: {getattr(flags, name)}. Choose another port.")
    if flags.max_request_bytes >= 1 << 31:
        raise StartError(
            f"--max_request_bytes must be below 2147483648 for gRPC. Received: {flags.max_request_bytes}. Lower it."
        )
    for name, least in _AT_LEAST.items():
        if getattr(flags, name) < least:
            raise StartError(f"--{name} must be at least {least}. Received: {getattr(flags, name)}. Raise it.")
    if flags.log_level.lower() not in _LOG_LEVELS:
        raise StartError(f"--log_level must be one of {', '.join(_LOG_LEVELS)}. Received: {flags.log_level}. Take one.")
    read_channel_arguments(flags.grpc_channel_arguments)


def read_channel_arguments(text: str) -> list[tuple[str, int | str]]:
    """Read gRPC's options, `key=value` with commas between; whole numbers become integers.

    Raises:
        StartError: one has no value.
    """
    options: list[tuple[str, int | str]] = []
    for argument in filter(None, text.split(",")):
        key, separator, value = argument.partition("=")
        if not separator:
            raise StartError(
                f"--grpc_channel_arguments must be key=value with commas between. Received: {argument}. Write "
                f"{argument}=value."
            )
        options.append((key, int(value) if re.fullmatch(r"-?\d+", value) else value))
    return options
