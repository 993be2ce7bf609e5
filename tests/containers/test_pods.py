"""The cluster's containers without a cluster: as the rendered manifests say, to ready, and to their end."""

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from serving import launcher
from tests.containers.conftest import has_image
from tests.containers.docker import ROOT, docker
from tests.containers.pods import Container, Pod, find
from tests.serving.kustomize import build

pytestmark = pytest.mark.containers

KUBERNETES = Path(launcher.__file__).parent / "kubernetes"
SAMPLES = ROOT / "client" / "samples"
BULK_S = 120
NOT_READY_S = 30
BUILD_S = 600
KILLED = 137


@pytest.fixture
def models(tmp_path: Path, export_dir: Path, artifact: Callable[[str], Path]) -> Path:
    """What is on the claim `flowers-models`: laid out as `make train` pushes."""
    folder = tmp_path / "models"
    shutil.copytree(export_dir, folder / "flowers" / "1")
    litert = next(artifact("litert").rglob("*int8.tflite")).parent
    shutil.copytree(litert, folder / "tflite" / "1")
    return folder


@pytest.fixture
def network(engine: None) -> Iterator[str]:
    """A network whose names are those of Services."""
    name = f"pods-{secrets.token_hex(4)}"
    docker("network", "create", name)
    yield name
    docker("network", "rm", name)


@pytest.fixture
def pod(images: dict[str, str], network: str, models: Path, tmp_path: Path) -> Iterator[Callable[..., Pod]]:
    """Return the function that starts a pod of a folder of manifests."""
    pods: list[Pod] = []

    def start(folder: str, kind: str, name: str, *, network: str = network, **claims: Path) -> Pod:
        own = tmp_path / name
        own.mkdir()
        named = {"flowers-models": models, **{claim.replace("_", "-"): path for claim, path in claims.items()}}
        pods.append(Pod(build(KUBERNETES / folder), kind, name, claims=named, folder=own))
        return pods[-1].start(images["web"], network=network)

    yield start
    for each in reversed(pods):
        each.remove()


def assert_ready_and_ends(container: Container) -> None:
    assert container.passes("readinessProbe"), container.log()
    assert container.passes("livenessProbe"), container.log()
    assert container.stop() in (0, 143), container.log()


@pytest.fixture
def server(serving_image: str, pod: Callable[..., Pod]) -> Container:
    server = pod("overlays/volume", "Deployment", "server").container("server").start()
    server.wait_until_started()
    return server


def test_the_server_is_ready_predicts_by_its_label_and_ends_in_time(server: Container) -> None:
    command = [sys.executable, "client/predict.py", "--target", f"{server._pod.address}:8501", SAMPLES]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    status = requests.get(f"http://{server._pod.address}:8501/v1/models/flowers/labels/stable", timeout=10).json()
    assert status["model_version_status"][0]["state"] == "AVAILABLE"
    assert_ready_and_ends(server)


def test_the_page_is_ready_while_the_server_is_and_ends_in_time(server: Container, pod: Callable[..., Pod]) -> None:
    web = pod("overlays/volume", "Deployment", "web").container("web").start()
    web.wait_until_started()
    assert web.passes("readinessProbe"), web.log()
    photo = (SAMPLES / "rose.jpg").read_bytes()
    url = f"http://{web._pod.address}:8080/api/classify"
    response = requests.post(url, files={"photo": photo}, timeout=30)
    assert response.ok, response.text
    docker("kill", server.name)
    end = time.monotonic() + NOT_READY_S
    while web.passes("readinessProbe"):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert web.passes("livenessProbe"), "a restart would not mend it"
    assert web.stop() in (0, 143), web.log()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """What is on the claim `flowers-bulk`: as a cluster hands it over, of the group `fsGroup`."""
    folder = tmp_path / "data"
    shutil.copytree(SAMPLES, folder / "photos")
    if os.getuid() == 0:
        os.chown(folder, 0, 65534)
        folder.chmod(0o2775)
    else:
        folder.chmod(0o777)
    return folder


def start_bulk(pod: Callable[..., Pod], data: Path) -> Container:
    # The job has no network.
    return pod("bulk", "Job", "bulk", network="none", flowers_bulk=data).container("bulk").start()


def test_the_job_for_many_photos_ends_with_a_table(pod: Callable[..., Pod], data: Path) -> None:
    import pyarrow.parquet

    bulk = start_bulk(pod, data)
    assert bulk.wait(BULK_S) == 0, bulk.log()
    rows = pyarrow.parquet.read_table(data / "predictions.parquet").to_pylist()
    assert [row["error"] for row in rows] == [None] * 5


def test_the_job_for_many_photos_ends_in_time_when_its_node_is_emptied(pod: Callable[..., Pod], data: Path) -> None:
    for number in range(2000):
        (data / "photos" / f"{number}.jpg").symlink_to("rose.jpg")
    bulk = start_bulk(pod, data)
    while not list(data.rglob("*.parquet")):
        assert bulk.is_running(), bulk.log()
    assert bulk.stop() != KILLED, "SIGTERM did nothing"
    assert not (data / "predictions.parquet" / "_SUCCESS").exists(), "it ended, and not by SIGTERM"


@pytest.fixture
def mirror_image(engine: None) -> Iterator[str]:
    """The mirror's image, or one of that name with Debian's rclone."""
    spec = find(build(KUBERNETES / "overlays" / "bucket"), "Deployment", "server")["spec"]["template"]["spec"]
    (image,) = {container["image"] for container in spec["initContainers"]}
    if has_image(image):
        yield image
        return
    options = os.environ.get("DOCKER_BUILD", "").split()
    docker("build", *options, "--tag", image, ROOT / "tests/containers/mirror", timeout_s=BUILD_S)
    yield image
    docker("image", "rm", "--force", image)


def test_the_mirror_copies_what_is_named_and_ends_in_time(
    mirror_image: str, pod: Callable[..., Pod], models: Path
) -> None:
    """From a folder, which rclone reads as it reads a bucket; test_mirror.py has one."""
    mirror_pod = pod("overlays/bucket", "Deployment", "server", network="none")
    mirror_pod.data["flowers-bucket"] |= {"MODELS": "/bucket", "RCLONE_CONFIG_BUCKET_TYPE": "local"}
    mirror = mirror_pod.container("mirror").start("--volume", f"{models}:/bucket:ro")
    mirror.wait_until_started()
    assert "Version 1 is here." in mirror.log()
    docker("exec", mirror.name, "test", "-f", "/models/flowers/1/saved_model.pb")
    assert mirror.stop() != KILLED
