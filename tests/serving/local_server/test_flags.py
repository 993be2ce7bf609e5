import logging
from dataclasses import fields

import pytest

from serving.local_server import flags as flags_module
from serving.local_server.errors import StartError
from serving.local_server.flags import Flags, parse, read_channel_arguments

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
def test_flags_of_tensorflow_serving_that_mean_nothing_here_are_taken_with_a_warning(
    value: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name in flags_module._WITHOUT_EFFECT:
        with caplog.at_level(logging.WARNING):
            assert parse([*MODEL, f"--{name}{value}"]) == parse(MODEL)
        assert f"--{name} is without effect here" in caplog.messages[-1]


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
            [*MODEL, "--rest_api_timeout_in_ms=0"],
            ["--rest_api_timeout_in_ms must be at least 1", "Received: 0", "Raise"],
        ),
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
