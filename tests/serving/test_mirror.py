"""The sidecar that copies models from a bucket, run with the real rclone against a server that speaks S3."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.s3 import S3
from tests.serving.kustomize import build, identify

BUCKET = Path(__file__).parents[2] / "serving" / "kubernetes" / "overlays" / "bucket"
MODELS_CONFIG = """
# Comments may say `versions: 8`.
model_config_list { config { model_version_policy { specific {
        versions: 1
        %s
} } } }
"""
WAIT_S = 30


MANIFESTS = {identify(manifest): manifest for manifest in build(BUCKET)}
VARIABLES = MANIFESTS["ConfigMap", "flowers-bucket"]["data"]


def test_the_mirror_writes_where_the_server_reads() -> None:
    spec = MANIFESTS["Deployment", "server"]["spec"]["template"]["spec"]
    (mirror,), (server,) = spec["initContainers"], spec["containers"]
    assert mirror["restartPolicy"] == "Always", "it runs as long as the server"
    shell, script, source, target, config, poll_s = mirror["command"]
    assert (shell, script) == ("sh", "/mirror/mirror.sh")
    assert source == "bucket:$(MODELS)/flowers"
    assert "MODELS" in VARIABLES
    assert float(poll_s) > 0
    writes = {m["name"]: m["mountPath"] for m in mirror["volumeMounts"] if not m.get("readOnly")}
    reads = {m["name"]: m["mountPath"] for m in server["volumeMounts"] if m.get("readOnly")}
    assert target == f"{writes['models']}/flowers"
    assert reads["models"] == writes["models"]
    assert f"--model_config_file={config}" in server["args"]
    assert any(m["mountPath"] == str(Path(config).parent) for m in mirror["volumeMounts"])
    assert mirror["startupProbe"]["exec"]["command"][-1].startswith(f"ls {target} ")


@contextmanager
def mirror(endpoint_url: str, bucket: str, target: Path, config: Path, log: Path) -> Iterator[subprocess.Popen]:
    """Run the script as the sidecar does, with its variables for another bucket."""
    variables = VARIABLES | {
        "RCLONE_CONFIG_BUCKET_PROVIDER": "Other",
        "RCLONE_CONFIG_BUCKET_REGION": "us-east-1",
        "RCLONE_CONFIG_BUCKET_ENDPOINT": endpoint_url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "HOME": str(target.parent),
        "PATH": os.environ["PATH"],
    }
    command = ["sh", str(BUCKET / "mirror.sh"), f"bucket:{bucket}/models/flowers", str(target), str(config), "0.2"]
    with (
        log.open("w") as file,
        subprocess.Popen(command, env=variables, stdout=file, stderr=file, start_new_session=True) as process,
    ):
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # rclone with it


def wait(condition: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


@pytest.mark.skipif(not shutil.which("rclone"), reason="rclone is not installed")
def test_a_version_is_copied_when_it_is_complete_and_named(s3: S3, tmp_path: Path) -> None:
    target, config, log = tmp_path / "flowers", tmp_path / "models.config", tmp_path / "log"
    config.write_text(MODELS_CONFIG % "")
    for name in ("1/saved_model.pb", "1/variables/variables.index", "2/variables/variables.index", "8/saved_model.pb"):
        s3.put(f"models/flowers/{name}", name.encode())
    with mirror(s3.client.meta.endpoint_url, s3.name, target, config, log) as process:
        wait((target / "1").is_dir, log)
        assert (target / "1" / "saved_model.pb").read_text() == "1/saved_model.pb"
        assert (target / "1" / "variables" / "variables.index").is_file()
        config.write_text(MODELS_CONFIG % "versions: 2")
        wait(lambda: "must hold version 2 with its saved_model.pb" in log.read_text(), log)
        assert sorted(path.name for path in target.glob("[0-9]*")) == ["1"], "an incomplete version is not visible"
        s3.put("models/flowers/2/saved_model.pb", b"model")
        wait((target / "2" / "saved_model.pb").is_file, log)
        assert process.poll() is None
    assert sorted(path.name for path in target.iterdir()) == ["1", "2"]


@pytest.mark.skipif(not shutil.which("rclone"), reason="rclone is not installed")
def test_a_bucket_that_cannot_be_reached_is_tried_again(tmp_path: Path) -> None:
    target, config, log = tmp_path / "flowers", tmp_path / "models.config", tmp_path / "log"
    config.write_text(MODELS_CONFIG % "versions: 2")
    (target / "1").mkdir(parents=True)  # copied before
    with mirror("http://127.0.0.1:9", "bucket", target, config, log) as process:
        wait(lambda: log.read_text().count("Trying again") == 2, log)
        assert process.poll() is None
    assert (target / "1").is_dir()
