"""A Docker engine and the images that the tests of containers run in.

They build our own images with `make images`. TensorFlow Serving's is taken as it is where the engine has it; where it
has not, and cannot pull it, the local server stands in under the same name, for as long as the tests last.
"""

import subprocess
from collections.abc import Iterator

import pytest

from serving.launcher import IMAGE
from tests.containers.docker import CALL_S, ROOT, docker

BUILD_S = 1200


def has_image(name: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", name], capture_output=True, timeout=CALL_S).returncode == 0


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine that responds."""
    try:
        subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as exc:
        pytest.skip(f"no Docker engine responds: {exc}")


@pytest.fixture(scope="session")
def images(engine: None) -> dict[str, str]:
    """The images that `make images` builds: tag by name."""
    done = subprocess.run(["make", "images"], capture_output=True, text=True, timeout=BUILD_S, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return {"pipeline": "flowers-pipeline:1.0.0", "web": "flowers-web:1.0.0"}


@pytest.fixture(scope="session")
def serving_image(images: dict[str, str]) -> Iterator[str]:
    """TensorFlow Serving's image, or one of that name made of the local server."""
    if has_image(IMAGE):
        yield IMAGE
        return
    base = f"BASE={images['pipeline']}"
    docker("build", "--tag", IMAGE, "--build-arg", base, ROOT / "tests/containers/serving", timeout_s=BUILD_S)
    yield IMAGE
    docker("image", "rm", "--force", IMAGE)
