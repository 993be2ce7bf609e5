"""Mutated LiteRT files: classified or refused, but where the interpreter itself ends the process."""

import collections
import hashlib
import json
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.classifier_client import LiteRTTransport, ModelFileError
from client.classifier_client.transports.litert_metadata import read_metadata
from tests.client import litert_files
from tests.client.mutated_files import mutate

ROOT = Path(__file__).parents[2]
SECONDS_A_FILE = 20
"""The slowest that one may be, on a busy machine."""


@pytest.fixture(scope="module", params=[litert_files.convert, litert_files.convert_with_limits], ids=["", "limits"])
def good(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "good.tflite"
    path.write_bytes(litert_files.with_metadata(request.param((16, 16, 3)), spec={"model_version": 1}))
    return path


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0))
def test_metadata_of_a_mutated_file_is_read_or_refused(seed: int, good: Path) -> None:
    path = good.with_name("mutated.tflite")
    path.write_bytes(mutate(good.read_bytes(), seed))
    with suppress(ModelFileError):
        assert read_metadata(path).class_names


def run_mutated(good: Path, first: int, count: int) -> "collections.Counter[str]":
    """Classify with mutated files; a crash of the interpreter is an outcome, a hang or another error a failure."""
    outcomes: collections.Counter[str] = collections.Counter()
    seed, stop = first, first + count
    while seed < stop:
        words = [sys.executable, "-m", "tests.client.mutated_files", str(good), str(seed), str(stop - seed)]
        with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout
            watch = _Watch(process)
            for line in process.stdout:
                watch.restart()
                outcomes[line.split(" ", 1)[1].strip()] += 1
                seed += 1
            watch.stop()
        if process.returncode:
            assert not watch.is_late, f"seed {seed} takes too long"
            assert process.returncode < 0, f"seed {seed} ends the process with {process.returncode}"
            outcomes[f"signal {-process.returncode}"] += 1
            seed += 1
    return outcomes


class _Watch:
    """Kills a process that prints nothing for too long."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.is_late = False
        self.restart()

    def restart(self) -> None:
        if hasattr(self, "_timer"):
            self._timer.cancel()
        self._timer = threading.Timer(SECONDS_A_FILE, self._end)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        self.is_late = True
        self._process.kill()


def check(outcomes: "collections.Counter[str]") -> None:
    others = [name for name in outcomes if name not in ("classified", "refused") and not name.startswith("signal")]
    assert not others, outcomes
    assert outcomes["classified"]
    assert outcomes["refused"]
    # The interpreter reads a damaged model without a check of everything: about one of a thousand ends the process.
    assert sum(outcomes.values()) - outcomes["classified"] - outcomes["refused"] <= sum(outcomes.values()) / 100 + 2


def test_mutated_file_is_classified_with_or_refused(good: Path) -> None:
    check(run_mutated(good, 0, 200))


@pytest.mark.slow
def test_ten_thousand_mutated_files(good: Path) -> None:
    outcomes = run_mutated(good, 1000, 10_000)
    print(dict(outcomes))  # noqa: T201
    check(outcomes)


def test_checksum_beside_a_file_keeps_every_mutation_from_the_interpreter(good: Path, tmp_path: Path) -> None:
    content = good.read_bytes()
    described = {"name": "good.tflite", "sha256": hashlib.sha256(content).hexdigest()}
    (tmp_path / "model_spec.json").write_text(json.dumps({"files": {"float32": described}}))
    path = tmp_path / "good.tflite"
    path.write_bytes(content)
    LiteRTTransport(path).close()
    for seed in range(100):
        if (mutated := mutate(content, seed)) != content:
            path.write_bytes(mutated)
            with pytest.raises(ModelFileError):
                LiteRTTransport(path)
