"""What follows a push, with the server in a container: a release beside eight clients, signed versions, capture."""

import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import requests

from components.artifacts.release import read_releases, releases_dir
from export.signing import read_signer
from pipelines.release.models_config import read_labels
from serving.launcher import IMAGE
from serving.shared.capture import read_captured
from tests.containers.docker import CALL_S, docker
from tests.pipelines.release.site import Site, clients, open_site
from tests.pipelines.release.versions import CRASHING, NAME, OTHER, SAME, write_version
from tests.serving.local_server.conftest import free_ports
from tests.signing_keys import write_key

pytestmark = [pytest.mark.containers, pytest.mark.usefixtures("serving_image")]

READY_S = 60
CHANGED = OTHER
"""A version that is not as it was signed."""


@pytest.fixture(scope="module")
def is_ours(serving_image: str) -> bool:
    """Whether the local server stands in: TensorFlow Serving itself neither captures nor verifies."""
    return docker("run", "--rm", "--entrypoint", "head", IMAGE, "-c", "2", "/usr/bin/tensorflow_model_server") == "#!"


@pytest.fixture(scope="module")
def site(is_ours: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A container that polls its configuration, captures all and takes signed versions alone; before it the proxy."""
    folder = tmp_path_factory.mktemp("site")
    models_dir, config_dir = folder / "models", folder / "config"
    for path in (config_dir, folder / "captured"):
        path.mkdir()
    pair = write_key(folder)
    (config_dir / "public.pem").write_bytes(pair.public.read_bytes())
    for kind in (1, SAME, CRASHING, CHANGED):
        write_version(models_dir / NAME / str(kind), kind)
        read_signer(pair.private).sign(models_dir / NAME / str(kind), f"{NAME}/{kind}")
    (models_dir / NAME / str(CHANGED) / "fingerprint.pb").unlink()
    config = config_dir / "models.config"
    capture = (
        'logging_config { log_collector_config { type: "file" filename_prefix: "/captured/server" } '
        "sampling_config { sampling_rate: 1 } }"
    )
    config.write_text(
        f'model_config_list {{ config {{ name: "{NAME}" base_path: "/models/{NAME}" model_platform: "tensorflow" '
        f"model_version_policy {{ specific {{ versions: 1 }} }} {capture if is_ours else ''} }} }}"
    )
    port, rest_port = free_ports(2)
    name = f"release-{secrets.token_hex(4)}"
    docker(
        *("run", "--detach", "--name", name, "--publish", f"127.0.0.1:{port}:8500"),
        *("--publish", f"127.0.0.1:{rest_port}:8501", "--volume", f"{models_dir}:/models:ro"),
        *("--volume", f"{config_dir}:/config:ro", "--volume", f"{folder / 'captured'}:/captured"),
        *("--env", f"MODEL_NAME={NAME}", IMAGE, "--model_config_file=/config/models.config"),
        *("--model_config_file_poll_wait_seconds=1", "--max_num_load_retries=0"),
        *(["--verify_key=/config/public.pem"] if is_ours else []),
    )
    try:
        wait_until_available(rest_port, name)
        with open_site(port, rest_port, models_dir=models_dir, config=config) as made:
            yield made
    finally:
        docker("rm", "--force", name)


def wait_until_available(rest_port: int, name: str) -> None:
    end = time.monotonic() + READY_S
    with requests.Session() as session:
        session.trust_env = False
        while True:
            with suppress(requests.ConnectionError):
                if "AVAILABLE" in session.get(f"http://127.0.0.1:{rest_port}/v1/models/{NAME}", timeout=5).text:
                    return
            printed = subprocess.run(["docker", "logs", name], capture_output=True, text=True, timeout=CALL_S).stderr
            is_running = docker("inspect", "--format", "{{.State.Running}}", name) == "true"
            assert is_running, printed
            assert time.monotonic() < end, printed
            time.sleep(0.2)


@pytest.mark.parametrize(
    ("candidate", "mode", "status", "reason"),
    [
        (CRASHING, "shadow", 3, "errors"),
        (CRASHING, "split", 3, "errors"),
        (CHANGED, "shadow", 3, "cannot load"),
        (SAME, "shadow", 0, "no test speaks against it"),
    ],
)
def test_release_in_front_of_a_container_loses_no_request(
    site: Site, is_ours: bool, candidate: int, mode: str, status: int, reason: str
) -> None:
    if candidate == CHANGED and not is_ours:
        pytest.skip("TensorFlow Serving does not verify")
    with clients(site) as seen:
        assert site.release("--candidate", str(candidate), "--mode", mode, "--share", "0.5") == status
    assert seen.num_requests
    assert seen.failures == []
    record = read_releases(releases_dir(site.models_dir, NAME))[-1]
    assert reason in record["reason"]
    assert read_labels(site.config, NAME)["stable"] == (candidate if status == 0 else 1)


def test_what_was_asked_of_the_container_was_captured(site: Site, is_ours: bool) -> None:
    if not is_ours:
        pytest.skip("TensorFlow Serving does not capture")
    end = time.monotonic() + READY_S
    while not (found := {captured.version for captured in read_captured(site.config.parents[1] / "captured")}):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert 1 in found
