"""Every lock file installs with pip, on every Python that TensorFlow runs on."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ["requirements.txt", "requirements-scale.txt", "requirements-dev.txt", "serving/web/requirements.txt"]
TIMEOUT_S = 300


def find_python(version: str) -> str:
    """Return an interpreter of a version, on the path or among pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = which(f"python{version}"), *sorted(pyenv.glob(f"versions/{version}.*/bin/python"))
    for python in filter(None, found):
        # A shim of pyenv exists for versions that are not switched on, too.
        if subprocess.run([python, "--version"], capture_output=True, timeout=TIMEOUT_S, check=False).returncode == 0:
            return str(python)
    pytest.skip(f"Python {version} is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize("lock", LOCKS)
def test_pip_accepts_the_lock(lock: str, version: str, tmp_path: Path) -> None:
    """Pip resolves the pins among themselves, and every file that it would install has a hash in the lock.

    With `--require-hashes` it would do the same, and download a gigabyte each time to compute the hashes itself.
    """
    content = (ROOT / lock).read_text()
    (tmp_path / "pins.txt").write_text(re.sub(r" *\\\n +--hash=\S+", "", content))
    pip = [sys.executable, "-m", "pip", "--python", find_python(version), "install", "--dry-run", "--ignore-installed"]
    done = subprocess.run(
        [*pip, "--quiet", "--report", "report.json", "-r", "pins.txt"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files = json.loads((tmp_path / "report.json").read_text())["install"]
    hashes = {file["metadata"]["name"]: file["download_info"]["archive_info"]["hashes"]["sha256"] for file in files}
    assert len(files) > 20
    assert {name: found for name, found in hashes.items() if found not in content} == {}
