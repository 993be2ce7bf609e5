"""The real pipeline with its photos, runs and models in a bucket, then once more on a machine that has nothing yet."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.data.sources.factory import open_source
from tests import tiny_pipeline
from tests.pipelines.test_kill import ORDER, ROOT
from tests.s3 import S3

STATE = {"validator", "baseline", "pusher"}
TIMEOUT_S = 600


class Machine:
    """A process of the command line with a cache of its own."""

    def __init__(self, s3: S3, cache: Path) -> None:
        self.s3 = s3
        self.cache = cache
        self.out = self.log = ""

    def __call__(self, command: str, *arguments: str) -> float:
        """Run a command and return the seconds it took."""
        urls = ["--runs-dir", f"{self.s3.url}/runs", "--models-dir", f"{self.s3.url}/models"]
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "pipelines", command, *arguments, *urls],
            cwd=ROOT,
            env={**os.environ, "PIPELINE_CACHE": str(self.cache)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        self.out, self.log = done.stdout, done.stderr
        assert done.returncode == 0, self.log
        return time.monotonic() - started

    def run(self) -> float:
        settings = [s for s in tiny_pipeline.assignments() if not s.startswith("examples.")]
        return self("run", "--set", *settings, f"examples.source={self.s3.url}/photos")

    def metrics(self) -> bytes:
        return self.s3.get(f"runs/{self.s3.get('runs/latest').decode()}/metrics.json")


@pytest.mark.slow
def test_a_run_on_a_bucket_is_cached_on_a_machine_that_has_nothing(s3: S3, tmp_path):
    for photo in open_source("synthetic", num_synthetic_per_class=20, seed=0).photos:
        s3.put(f"photos/{photo.name}", photo.encoded)
    first, second = Machine(s3, tmp_path / "one"), Machine(s3, tmp_path / "two")

    seconds = first.run()
    assert f"Pushed: {s3.url}/models/flowers/1\n" in first.out
    metrics = first.metrics()
    pushed = set(s3.keys_below("models/"))
    assert {"flowers/1/saved_model.pb", "flowers/1/assets.extra/lineage.json", "tflite/1/model_spec.json"} < pushed
    artifacts = set(s3.keys_below("runs/artifacts/"))

    again = second.run()
    print(f"first run {seconds:.0f} s, from an empty cache {again:.0f} s")  # noqa: T201
    ran = set(re.findall(r" (\w+): started", second.log))
    assert ran == STATE, second.log
    assert set(re.findall(r" (\w+): cached", second.log)) == set(ORDER) - STATE
    assert second.metrics() == metrics
    assert set(s3.keys_below("models/")) == pushed
    assert set(s3.keys_below("runs/artifacts/")) == artifacts
    assert again < seconds / 2

    third = Machine(s3, tmp_path / "three")
    third("list")
    assert third.out.count("finished") == 2
    third("show", "--json")
    assert json.loads(third.out)["version"] == 1
    third("fetch", "--to", str(tmp_path / "models"))
    assert (tmp_path / "models" / "flowers" / "1" / "saved_model.pb").is_file()
