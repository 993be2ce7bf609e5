"""What a user sees when something around a container is wrong: docs/containers.md has the table."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.containers.compose import project
from tests.containers.docker import CALL_S, RESTRICTED
from tests.serving.local_server.conftest import free_ports

pytestmark = pytest.mark.containers

RUN = ("docker", "run", "--rm", "--network", "none", *RESTRICTED)


def fail(*command: str, cwd: Path | None = None) -> str:
    """Run a command that fails; return what it says."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=CALL_S, check=False, cwd=cwd)
    assert done.returncode != 0, done.stdout
    return done.stderr


def test_the_page_without_models_says_how_to_get_one(images: dict[str, str]) -> None:
    assert "Run `make train` first" in fail(*RUN, images["web"])


@pytest.mark.skipif(os.geteuid() != 0, reason="a folder of another user needs root")
def test_the_page_says_that_it_may_not_read_its_models(images: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "models" / "tflite"
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    mount = ("--volume", f"{tmp_path / 'models'}:/models:ro")
    assert "user 65534 may not read /models/tflite. Let everybody read it: chmod" in fail(*RUN, *mount, images["web"])


def test_compose_without_a_models_folder_starts_nothing(serving_image: str, tmp_path: Path, export_dir: Path) -> None:
    ports = dict(zip(("GRPC", "REST", "WEB", "PROMETHEUS"), free_ports(4), strict=True))
    with project(tmp_path, f"flowers-test-faults-{os.getpid()}", ports, export_dir) as made:
        (tmp_path / "models" / "flowers").rename(tmp_path / "models" / "away")
        with pytest.raises(AssertionError, match=r"bind source path does not exist: .*/models/flowers"):
            made.compose("up", "--detach")
        assert not (tmp_path / "models" / "flowers").exists()
