import logging
from dataclasses import fields

import pytest

from serving.local_server import flags as flags_module
from serving.local_server.errors import StartError
from serving.local_server.flags import Flags, parse, read_channel_arguments, write_table
from tests.serving.local_server.conftest import ROOT

# Those of TensorFlow Serving's model_servers/main.cc.
MAIN_CC = """
allow_version_labels_for_unavailable_models batching_parameters_file enable_batching enable_grpc_healthcheck_service
enable_model_warmup enable_per_model_batching_parameters enable_profiler enable_serialization_as_tensor_content
enable_signature_method_name_check file_system_poll_wait_seconds flush_filesystem_caches
force_allow_any_version_labels_for_unavailable_models grpc_channel_arguments grpc_max_threads grpc_socket_path
load_retry_interval_micros max_num_load_retries mixed_precision model_base_path model_config_file
model_config_file_poll_wait_seconds model_name monitoring_config_file num_load_threads
num_request_iterations_for_warmup num_tflite_interpreters_per_pool num_tflite_pools num_unload_threads
per_process_gpu_memory_fraction platform_config_file port prefer_tflite_model
remove_unused_fields_from_bundle_metagraph rest_api_enable_cors_support rest_api_num_threads rest_api_port
rest_api_timeout_in_ms saved_model_tags skip_initialize_tpu ssl_config_file tensorflow_inter_op_parallelism
tensorflow_intra_op_parallelism tensorflow_session_config_file tensorflow_session_parallelism
thread_pool_factory_config_file use_alts_credentials version xla_cpu_compilation_enabled xla_gpu_compilation_enabled
"""
MODEL = ["--model_name=m", "--model_base_path=/models/m"]


def test_defaults_are_tensorflow_servings() -> None:
    flags = parse(MODEL)
    assert flags == Flags(model_name="m", model_base_path="/models/m")
    assert (flags.port, flags.rest_api_port, flags.rest_api_timeout_in_ms) == (8500, 0, 30_000)
    assert (flags.max_num_load_retries, flags.load_retry_interval_micros) == (5, 60_000_000)
    assert (flags.enable_batching, flags.enable_model_warmup, flags.file_system_poll_wait_seconds) == (False, True, 1)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--enable_batching"], True),
        (["--enable_batching=true"], True),
        (["--enable_batching=True"], True),
        (["--enable_batching=1"], True),
        (["--enable_batching", "true"], True),
        (["--enable_batching", "--port=8500"], True),
        (["--enable_batching=false"], False),
        (["--enable_batching=0"], False),
        (["--enable_batching=true", "--enable_batching=false"], False),
    ],
)
def test_a_switch_is_given_with_or_without_a_value(arguments: list[str], expected: bool) -> None:
    assert parse([*MODEL, *arguments]).enable_batching is expected


def test_values_follow_an_equals_sign_or_a_space() -> None:
    flags = parse([*MODEL, "--port=1", "--rest_api_port", "2", "--file_system_poll_wait_seconds=0.5"])
    assert (flags.port, flags.rest_api_port, flags.file_system_poll_wait_seconds) == (1, 2, 0.5)


@pytest.mark.parametrize(
    "argument",
    ["--no_such_flag", "--no_such_flag=1", "--rest_port=1", "--port=many", "--port=", "--enable_batching=perhaps", "m"],
)
def test_a_wrong_command_line_exits_with_2(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse([*MODEL, argument])
    assert caught.value.code == 2
    assert argument.partition("=")[0] in capsys.readouterr().err


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for declared in fields(Flags):
        assert f"--{declared.name} " in text
    assert "(default: 8500)" in text


@pytest.mark.parametrize("value", ["", "=false", "=7"])
def test_flags_of_tensorflow_serving_that_mean_nothing_here_are_taken_with_one_warning(
    value: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name, reason in flags_module.IGNORED.items():
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert parse([*MODEL, f"--{name}{value}"]) == parse(MODEL)
        assert caplog.messages == [f"--{name} is without effect here: {reason}"]


def test_every_flag_of_tensorflow_serving_is_known() -> None:
    assert not set(MAIN_CC.split()) & set(flags_module.OWN)
    names = {declared.name for declared in fields(Flags)} - set(flags_module.OWN)
    assert names - {"use_tflite_model"} | set(flags_module.IGNORED) == set(MAIN_CC.split())


def test_the_docs_have_the_table_of_all_flags() -> None:
    assert write_table() in (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rest_api_timeout_in_ms", 0),
        ("load_retry_interval_micros", -1),
        ("model_config_file_poll_wait_seconds", -1),
        ("file_system_poll_wait_seconds", -1),
        ("num_request_iterations_for_warmup", 0),
    ],
)
def test_values_that_mean_none_or_never_are_taken(name: str, value: int) -> None:
    assert getattr(parse([*MODEL, f"--{name}={value}"]), name) == value


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["needs a model", "Received: --model_name=default --model_base_path=.", "Add"]),
        (["--model_name=m"], ["needs a model", "Received: --model_name=m --model_base_path=.", "Add"]),
        (["--model_name=", "--model_base_path=/m"], ["needs a model", "--model_name= --model_base_path=/m.", "Add"]),
        ([*MODEL, "--batching_parameters_file=b"], ["is for --enable_batching", "Received: --b", "Add"]),
        ([*MODEL, "--port=0"], ["needs a port", "Received --port=0", "give one, or a --grpc_socket_path"]),
        ([*MODEL, "--rest_api_port=8500"], ["--rest_api_port cannot be same as --port", "Received: 8500", "Change"]),
        ([*MODEL, "--port=70000"], ["--port must be 0 to 65535", "Received: 70000", "Choose"]),
        ([*MODEL, "--rest_api_port=-1"], ["--rest_api_port must be 0 to 65535", "Received: -1", "Choose"]),
        (
            [
                *MODEL,
                "--tensorflow_session_parallelism=1",
                "--tensorflow_intra_op_parallelism=1",
                "--tensorflow_inter_op_parallelism=1",
            ],
            ["stands for both", "Received: all three", "Leave it out"],
        ),
        ([*MODEL, "--max_request_bytes=4294967296"], ["below 2147483648", "Received: 4294967296", "Lower it"]),
        ([*MODEL, "--num_load_threads=-1"], ["--num_load_threads must be at least 0", "Received: -1", "Raise"]),
        ([*MODEL, "--log_level=loud"], ["--log_level must be one of debug, info", "Received: loud", "Take one"]),
        (
            [*MODEL, "--grpc_channel_arguments=grpc.a=1,grpc.b"],
            ["--grpc_channel_arguments must be key=value", "Received: grpc.b.", "Write grpc.b=value"],
        ),
    ],
)
def test_an_error_says_the_rule_what_was_received_and_what_to_do(arguments: list[str], parts: list[str]) -> None:
    with pytest.raises(StartError) as caught:
        parse(arguments)
    for part in parts:
        assert part in str(caught.value)


def test_what_is_enough_is_taken() -> None:
    assert parse(["--model_config_file=models.config"]).model_config_file == "models.config"
    assert parse([*MODEL, "--port=0", "--grpc_socket_path=/tmp/socket"]).port == 0
    assert parse([*MODEL, "--log_level=DEBUG"]).log_level == "DEBUG"
    assert parse(["--version"]).version


def test_channel_arguments_are_read() -> None:
    text = "grpc.max_connection_age_ms=2000,grpc.a=-1,grpc.name=x=y,,grpc.empty=,grpc.dashes=--5,grpc.part=²"
    assert read_channel_arguments(text) == [
        ("grpc.max_connection_age_ms", 2000),
        ("grpc.a", -1),
        ("grpc.name", "x=y"),
        ("grpc.empty", ""),
        ("grpc.dashes", "--5"),
        ("grpc.part", "²"),
    ]


def test_a_url_is_refused_with_the_command_that_brings_it_here() -> None:
    with pytest.raises(StartError, match=r"Received: gs://bucket/models/flowers\. .*python -m pipelines fetch"):
        parse(["--model_name=flowers", "--model_base_path=gs://bucket/models/flowers"])
