from pathlib import Path

import pytest

from serving.local_server import settings
from serving.local_server.errors import StartError
from serving.local_server.flags import parse


@pytest.mark.parametrize(
    ("flag", "text", "error"),
    [
        ("model_config_file", "model_config_list { config { name: 3 } }", "tensorflow.serving.ModelServerConfig"),
        ("model_config_file", 'model_config_list { config { name: "x" } }', "base_path"),
        ("model_config_file", 'model_config_list { config { name: "m" base_path: "/m" } }', "Illegal setting neither"),
        ("model_config_file", "custom_model_config { }", "custom_model_config"),
        ("model_config_file", b"\xff\xfe\0", "must be readable"),
        ("model_config_file", None, "must be readable"),
        ("batching_parameters_file", "max_batch_size 0", "tensorflow.serving.BatchingParameters"),
        ("batching_parameters_file", "max_batch_size { value: 0 }", "max_batch_size must be at least 1"),
        ("monitoring_config_file", 'prometheus_config { enable: true path: "x" }', "begins with '/'"),
        ("ssl_config_file", "server_key", "tensorflow.serving.SSLConfig"),
        ("ssl_config_file", 'server_key: "x" server_cert: "y"', "PEM"),
        ("ssl_config_file", "client_verify: true", "custom_ca"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, flag: str, text: str | bytes | None, error: str) -> None:
    path = tmp_path / "file"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    arguments = ["--port=0", f"--grpc_socket_path={tmp_path}/socket", f"--model_base_path={tmp_path}"]
    with pytest.raises(StartError) as caught:
        settings.read(parse([*arguments, "--enable_batching", f"--{flag}={path}"]))
    assert error in str(caught.value)
    assert str(path) in str(caught.value) or flag == "ssl_config_file"
