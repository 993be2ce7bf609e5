"""What many tests share: encoded images, and small artifacts that the real runner makes once a session."""

import io
import logging
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests import tiny_pipeline
from tests.s3 import S3

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

ROOT = Path(__file__).resolve().parent
LONG = (
    "pipelines/test_kill.py",
    "notebooks/test_notebooks.py",
    "components/test_trainer.py",
    "pipelines/test_compare.py",
    "serving/local_server/test_robustness.py",
    "serving/local_server/test_load.py",
    "benchmarks/test_benchmarks.py",
    "components/training/test_replicas.py",
    "components/test_report.py",
    "serving/web/test_hostile_clients.py",
    "pipelines/test_kubeflow.py",
    "client/test_command.py",
    "export/test_structure.py",
    "serving/web/test_browser.py",
    "pipelines/review/test_browser.py",
    "pipelines/review/test_app.py",
    "components/bulk_inference/test_runner.py",
    "components/data/test_examination_beam.py",
)
"""Files that take longest, in that order."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let several processes begin with the long files, so that no one is left with one of them in the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        first = {ROOT / name: number for number, name in enumerate(LONG)}
        items.sort(key=lambda item: first.get(item.path, len(LONG)))


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Return the function that encodes a Pillow image, or an array, as a file of a format."""

    def encode(image: Any, kind: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        image = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def shared_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this test session share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def artifact(shared_dir: Path) -> Callable[..., Path]:
    """Return the function that makes the artifact of a step of the flowers pipeline: drawn flowers, a tiny network.

    The real runner makes it, with what it is made from; other tests, in any process, find it in the cache. It is read
    only: a test that changes files copies them.
    """
    from pipelines import local_runner
    from pipelines.config import Config
    from pipelines.folders import Folders

    folders = Folders(runs=shared_dir / "pipeline" / "runs", models=shared_dir / "pipeline" / "models")

    @cache
    def artifact(step: str, config: Config = tiny_pipeline.CONFIG) -> Path:
        steps = tiny_pipeline.steps_to(step)
        return local_runner.run(steps, config, folders=folders)[1][step].path

    return artifact


@pytest.fixture(scope="session")
def inputs(artifact: Callable[[str], Path]) -> Callable[[str], dict[str, Path]]:
    """Return the function that makes what a step of the flowers pipeline reads: folders by parameter."""

    def inputs(step: str) -> dict[str, Path]:
        return {parameter: artifact(name) for parameter, name in tiny_pipeline.steps_to(step)[-1].inputs.items()}

    return inputs


@pytest.fixture(scope="session")
def examples_dir(artifact: Callable[[str], Path]) -> Path:
    """Drawn flowers, 7 to train on, 1 to validate and 2 to test with of each of the five kinds."""
    return artifact("examples")


@pytest.fixture(scope="session")
def model_dir(artifact: Callable[[str], Path]) -> Path:
    """A `small_cnn` with random weights."""
    return artifact("model")


@pytest.fixture(scope="session")
def features_dir(artifact: Callable[[str], Path]) -> Path:
    """Features of `examples_dir`, one clean and one augmented view."""
    return artifact("features")


@pytest.fixture(scope="session")
def training_dir(artifact: Callable[[str], Path]) -> Path:
    """A classifier trained for two epochs."""
    return artifact("trainer")


@pytest.fixture(scope="session")
def tuned_dir(artifact: Callable[..., Path]) -> Path:
    """A classifier that fine-tuning for two epochs has made better."""
    return artifact("trainer", tiny_pipeline.TUNED)


@pytest.fixture(scope="session")
def export_dir(artifact: Callable[[str], Path]) -> Path:
    """The SavedModel of `training_dir`."""
    return artifact("export")


@pytest.fixture(scope="session")
def evaluation_dir(artifact: Callable[[str], Path]) -> Path:
    """The evaluation of `export_dir`, blessed whatever its accuracy."""
    return artifact("evaluator")


@pytest.fixture(scope="session")
def litert_dir(artifact: Callable[[str], Path]) -> Path:
    """The LiteRT files of `training_dir`."""
    return artifact("litert")


@pytest.fixture(scope="session")
def colour_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with one version, an int8 LiteRT file that tells red, green and blue apart."""
    import itertools

    from tests.client import litert_files

    shape = (16, 16, 3)
    corners = [np.broadcast_to(np.float32(corner), (1, *shape)) for corner in itertools.product((-1, 1), repeat=3)]
    content = litert_files.convert(shape, representative=corners)
    folder = tmp_path_factory.mktemp("models")
    file = folder / "tflite" / "3" / "colours_int8.tflite"
    file.parent.mkdir(parents=True)
    file.write_bytes(litert_files.with_metadata(content, normalization=None))
    return folder


@pytest.fixture(scope="session")
def s3_client() -> Iterator[Any]:
    """Yield a client of a server that speaks S3."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    yield boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys)
    server.stop()


@pytest.fixture
def s3(s3_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """An empty bucket, which `s3://` leads to, and a cache of its own."""
    import s3fs

    settings = {
        "AWS_ENDPOINT_URL": s3_client.meta.endpoint_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "PIPELINE_CACHE": str(tmp_path / "cache"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    yield S3(s3_client, f"bucket-{secrets.token_hex(4)}")
    if os.environ["AWS_ENDPOINT_URL"] != s3_client.meta.endpoint_url:
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Restore logging afterwards: the command line configures it."""
    root, absl = logging.getLogger(), logging.getLogger("absl")
    handlers, level, absl_level = root.handlers[:], root.level, absl.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    absl.setLevel(absl_level)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Return the function that mounts a small disk on the folder of that name in `tmp_path`."""
    mounted = []

    def mount(name: str, *, size: str = "256k") -> None:
        folder = tmp_path / name
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as exc:
            pytest.skip(f"no small disk can be mounted here: {exc}")
        mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def chromium() -> "Iterator[WebDriver]":
    """A headless Chromium; tests that take it are marked `tests.serving.web.browser.needs_browser`."""
    from serving.web.screenshots import open_browser

    with open_browser() as opened:
        yield opened
