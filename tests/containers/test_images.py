"""Our images: what they carry, what they lack, with which rights they run, and that code changes without packages."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.containers.docker import RESTRICTED, ROOT, docker

pytestmark = pytest.mark.containers

AS_NOBODY = ("run", "--rm", "--user", "65534:65534", *RESTRICTED)
BASES = {"pipeline": "python:3.11-slim", "web": "python:3.12-slim"}
MAX_WEB_MB = 250


@pytest.fixture(params=["pipeline", "web"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def shell(images: dict[str, str], name: str) -> Callable[[str], str]:
    """Run a script in the image, with the rights that it has where it is used."""
    return lambda script: docker(*AS_NOBODY, "--entrypoint", "sh", images[name], "-c", script)


def inspect(tag: str) -> dict:
    return json.loads(docker("image", "inspect", tag))[0]


def test_an_image_says_what_it_is(images: dict[str, str], name: str) -> None:
    labels = inspect(images[name])["Config"]["Labels"]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    revision = labels.pop("org.opencontainers.image.revision")
    assert revision.removesuffix("-dirty") == commit.stdout.strip()
    assert labels == {
        "org.opencontainers.image.title": f"flowers-{name}",
        "org.opencontainers.image.version": images[name].split(":")[1],
        "org.opencontainers.image.licenses": "NOASSERTION",
    }


def test_an_image_is_nobodys_and_holds_no_compiler_cache_or_test(
    images: dict[str, str], name: str, shell: Callable[[str], str]
) -> None:
    assert inspect(images[name])["Config"]["User"] == "65534:65534"
    assert shell("for tool in gcc cc clang make; do command -v $tool; done; true") == ""
    assert shell("find /packages /app -type d -name tests") == ""
    assert shell("ls -d /root/.cache 2>/dev/null; find / -xdev -type d -path '*cache/pip' 2>/dev/null; true") == ""
    assert shell("touch /app/x /packages/x 2>/dev/null && echo writable; true") == ""


def test_what_an_image_imports_is_compiled_already(name: str, shell: Callable[[str], str]) -> None:
    """Nothing can be written there, so a file that is not compiled would be compiled at every start."""
    module = {"pipeline": "pipelines.__main__", "web": "serving.web.__main__"}[name]
    verbose = shell(f"python -v -c 'import {module}' 2>&1")
    read = set(re.findall(r"^# code object from '(/(?:app|packages)/.+)'$", verbose, re.MULTILINE))
    assert len(read) > 50
    assert {path for path in read if path.endswith(".py")} == set()


def test_the_page_is_small(images: dict[str, str]) -> None:
    above = inspect(images["web"])["Size"] - inspect(BASES["web"])["Size"]
    assert above < MAX_WEB_MB * 1e6


def test_every_command_of_the_pipeline_starts(images: dict[str, str]) -> None:
    assert "infer" in docker(*AS_NOBODY, images["pipeline"], "python", "-m", "pipelines", "--help")


def test_a_change_of_code_installs_nothing_again(images: dict[str, str], name: str, tmp_path: Path) -> None:
    """The layer with the packages stays as it is."""
    subprocess.run(["git", "clone", "-q", ROOT, tmp_path / "clone"], check=True)
    changed = tmp_path / "clone" / "serving" / "shared" / "machine.py"
    changed.write_text(changed.read_text() + "\n# changed\n")
    subprocess.run(["make", "images", "TAG=changed"], cwd=tmp_path / "clone", check=True, capture_output=True)
    before, after = (
        inspect(tag)["RootFS"]["Layers"] for tag in (images[name], images[name].split(":")[0] + ":changed")
    )
    base = len(inspect(BASES[name])["RootFS"]["Layers"])
    assert after[base] == before[base], "the packages are installed again"
    assert after[-1] != before[-1]
