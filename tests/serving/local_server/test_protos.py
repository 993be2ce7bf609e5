from pathlib import Path

import pytest

from serving.local_server import protos
from serving.local_server.errors import StartError


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "file.config"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_every_message_is_read_from_text(tmp_path: Path) -> None:
    batching = protos.read(
        write(
            tmp_path,
            """
            max_batch_size { value: 128 }  # rows
            batch_timeout_micros { value: 0 }
            max_enqueued_batches { value: 1000000 }
            num_batch_threads { value: 8 }
            thread_pool_name { value: "pool" }
            allowed_batch_sizes: [1, 64, 128]
            pad_variable_length_inputs: true
            enable_large_batch_splitting { value: true }
            max_execution_batch_size { value: 64 }
            """,
        ),
        protos.BatchingParameters,
    )
    assert batching.max_batch_size.value == 128
    assert batching.HasField("batch_timeout_micros")
    assert list(batching.allowed_batch_sizes) == [1, 64, 128]
    monitoring = protos.read(
        write(tmp_path, 'prometheus_config { enable: true, path: "/metrics" }'), protos.MonitoringConfig
    )
    assert (monitoring.prometheus_config.enable, monitoring.prometheus_config.path) == (True, "/metrics")
    tls = protos.read(
        write(tmp_path, 'server_key: "k" "ey"\nserver_cert: "c\\nert"\ncustom_ca: ""\nclient_verify: false'),
        protos.SSLConfig,
    )
    assert (tls.server_key, tls.server_cert) == ("key", "c\nert")
    models = protos.read(
        write(tmp_path, 'model_config_list: { config: { name: "m", base_path: "/m" } }'), protos.ModelServerConfig
    )
    assert models.model_config_list.config[0].name == "m"


def test_what_is_left_out_is_not_set(tmp_path: Path) -> None:
    batching = protos.read(write(tmp_path, ""), protos.BatchingParameters)
    assert not batching.HasField("max_batch_size")
    assert not batching.pad_variable_length_inputs


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("ModelServerConfig", "model_config_list {", "1:19"),
        ("ModelServerConfig", 'model_config_list { config { nmae: "m" } }', "nmae"),
        ("ModelServerConfig", '{"model_config_list": {}}', "1:1"),
        ("BatchingParameters", "max_batch_size: 8", "1:"),
        ("BatchingParameters", "max_batch_size { value: many }", "many"),
        ("BatchingParameters", "max_batch_size { value: 1e99 }", "1:"),
        ("MonitoringConfig", "\nprometheus_config { enable: perhaps }", "2:"),
        ("SSLConfig", 'server_key: "never ends', "1:"),
    ],
)
def test_a_file_that_is_no_such_message_is_named_with_the_line(
    tmp_path: Path, kind: str, text: str, reason: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(StartError) as caught:
        protos.read(path, getattr(protos, kind))
    message = str(caught.value)
    assert message.startswith(f"Error parsing text-format tensorflow.serving.{kind}: ")
    assert reason in message
    assert f"Invalid protobuf file: '{path}'. Correct it" in message


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["missing", "binary"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "file.config"
    if content:
        path.write_bytes(content)
    with pytest.raises(StartError, match=rf"must be readable text\. Received: {path} \(.*\)\. Check the flag"):
        protos.read(path, protos.SSLConfig)
    with pytest.raises(StartError, match="must be readable text"):
        protos.read(tmp_path, protos.SSLConfig)
