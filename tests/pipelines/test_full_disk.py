"""On a disk that is too small for a run, every writer in turn fails clearly, and goes on when the disk has grown."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.storage.files import read_json
from pipelines import __main__ as command_line
from tests.tiny_pipeline import assignments

START_KB = {"runs": 64, "models": 64, "tmp": 16}
GROWTH = 1.25
MAX_ATTEMPTS = 60


@pytest.fixture
def folders(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[dict[str, Path]]:
    """Folders for a run, one of which is a small disk."""
    paths = {name: tmp_path / name for name in START_KB}
    for path in paths.values():
        path.mkdir()
    small = paths[request.param]
    command = ["mount", "-t", "tmpfs", "-o", f"size={START_KB[request.param]}k", "tmpfs", str(small)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        pytest.skip(f"no small disk can be mounted here: {exc}")
    yield {**paths, "small": small}
    subprocess.run(["umount", "--lazy", str(small)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("folders", ["runs", "models", "tmp"], indirect=True)
def test_a_disk_too_small_at_any_moment_of_a_run_loses_nothing(folders, tmp_path, monkeypatch, capsys, own_logging):
    monkeypatch.setenv("TMPDIR", str(folders["tmp"]))
    monkeypatch.setattr(tempfile, "tempdir", str(folders["tmp"]))
    small, name = folders["small"], folders["small"].name

    def run(runs: Path, models: Path) -> tuple[int, str]:
        arguments = ["run", "--runs-dir", str(runs), "--models-dir", str(models), "--set", *assignments()]
        status = command_line.main(arguments)
        return status, capsys.readouterr().err

    size_kb, messages = START_KB[name], []
    for _ in range(MAX_ATTEMPTS):
        status, printed = run(folders["runs"], folders["models"])
        if status == 0:
            break
        message = printed.splitlines()[-1]
        messages.append(message)
        assert status == 1, printed
        assert message.startswith("error: "), printed
        assert f"Free some space in {small}" in message, printed
        assert not (folders["models"] / ".staging").exists()
        size_kb = int(size_kb * GROWTH)
        subprocess.run(["mount", "-o", f"remount,size={size_kb}k", str(small)], check=True)
    assert status == 0, messages
    print(f"{name}: {len(messages)} of {len(messages)} failures were clear", *messages, sep="\n")  # noqa: T201
    subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
    status, printed = run(tmp_path / "undisturbed", tmp_path / "its_models")
    assert status == 0, printed
    steps, others = (
        read_json(runs / "latest" / "run.json")["steps"] for runs in (folders["runs"], tmp_path / "undisturbed")
    )
    for step in ("examples", "statistics", "model", "features", "trainer"):
        assert steps[step]["digest"] == others[step]["digest"], step
