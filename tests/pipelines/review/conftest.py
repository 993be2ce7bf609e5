"""What the tests of the review page share: a server in a process of its own, on a run of drawn photos."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests

from components.artifacts.labels import Decision, read_decisions
from tests.pipelines.review.drawn_run import DrawnRun, write_run
from tests.ready import start_ready

CALL_S, STOP_S = 30, 30
NUMBERS = count(1)


@dataclass
class Review:
    """A server that is running."""

    url: str
    labels: Path
    process: "subprocess.Popen[str]"
    session: requests.Session

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(self.url + path, timeout=CALL_S, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.session.post(self.url + path, timeout=CALL_S, **options)

    def take(self, client: str, *held: str) -> Any:
        """Take the next photo; return what the server says."""
        response = self.get("/api/next", params={"client": client, "held": ",".join(held)})
        assert response.status_code == 200, response.text
        return response.json()

    def decide(self, client: str, sha256: str, label: str | None = None, **further: Any) -> requests.Response:
        """Send a decision: a label, or `decision`."""
        body = {
            "id": f"{client}.{next(NUMBERS)}",
            "sha256": sha256,
            "photo": "somewhere.jpg",
            "decision": "label",
            "label": label,
            "who": client,
            **further,
        }
        return self.post("/api/decisions", json=body)

    def decisions(self) -> list[Decision]:
        return read_decisions(self.labels)

    def stop(self) -> int:
        """End the server as a person does; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)


@contextmanager
def start_review(
    runs_dir: Path, labels: Path, *arguments: object, env: dict[str, str] | None = None, port: int = 0
) -> Iterator[Review]:
    """Run a server for as long as the block lasts; when it begins, the server is ready."""
    command = [sys.executable, "-m", "pipelines", "review", "--runs-dir", str(runs_dir), "--labels", str(labels)]
    command += ["--port", str(port), "--who", "Ada", *map(str, arguments)]
    with (
        start_ready(command, labels.with_name("review.log"), env=env) as (process, line),
        requests.Session() as session,
    ):
        session.trust_env = False
        yield Review(line.split()[1], labels, process, session)


@pytest.fixture
def run(tmp_path: Path) -> DrawnRun:
    """A run with ten doubted photos, five of them suspects."""
    return write_run(tmp_path / "runs", 10)


@pytest.fixture
def review(run: DrawnRun, tmp_path: Path) -> Iterator[Review]:
    with start_review(run.runs_dir, tmp_path / "labels.jsonl") as started:
        yield started
