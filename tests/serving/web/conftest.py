"""What the tests of the web page share: a model that tells colours apart, pictures, and services of their own."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.client.litert_files import CLASS_NAMES, convert, with_metadata

ROOT = Path(__file__).resolve().parents[3]
SIZE_PX = 8
CALL_S = 30
START_S = 60
STOP_S = 20
WAIT_S = 30


@dataclass
class Page:
    """A service that is running, and how it is reached."""

    process: "subprocess.Popen[str]"
    log_path: Path
    url: str
    ready_line: str
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def log(self) -> str:
        return self.log_path.read_text()

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(self.url + path, timeout=CALL_S, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.session.post(self.url + path, timeout=CALL_S, **options)

    def classify(self, *photos: tuple[str, bytes], **options: Any) -> requests.Response:
        """Send photos as a form, each a name and its bytes."""
        return self.post("/api/classify", files=[("photo", photo) for photo in photos], **options)

    def metric(self, name: str, **labels: str) -> float:
        from prometheus_client.parser import text_string_to_metric_families

        samples = [
            sample
            for family in text_string_to_metric_families(self.get("/metrics").text)
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        return samples[0].value if samples else 0.0

    def stop(self) -> int:
        """End the service as an operator does; give its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)


@contextmanager
def start_page(log_path: Path, *arguments: object, env: dict[str, str] | None = None) -> Iterator[Page]:
    """Run a service on a free port for as long as the block lasts; when it begins, it answers."""
    with log_path.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.web", "--port", "0", *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout
    # A service that never becomes ready is killed, and the line that is waited for ends with it.
    alarm = threading.Timer(START_S, process.kill)
    alarm.daemon = True
    alarm.start()
    try:
        ready_line = process.stdout.readline()
        alarm.cancel()
        assert ready_line.startswith("ready: "), log_path.read_text()
        page = Page(process, log_path, ready_line.split()[1], ready_line.strip())
        with page.session:
            page.session.trust_env = False
            yield page
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when a condition holds; fail when it does not in half a minute."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "what is waited for does not happen"
        time.sleep(0.05)


def picture(color: Any, *, size: tuple[int, int] = (40, 30), kind: str = "JPEG", **options: Any) -> bytes:
    """Draw a picture of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, kind, **options)
    return buffer.getvalue()


def push(
    models_dir: Path,
    content: bytes,
    version: int,
    *,
    class_names: tuple[str, ...] = CLASS_NAMES,
    kind: str = "int8",
    data: str = "photos",
) -> None:
    """Publish a version by rename, as the pipeline does."""
    spec = {
        "model_name": "flowers",
        "class_names": class_names,
        "image_size_px": SIZE_PX,
        "backbone": "tiny",
        "data": {"source": data, "resolved": data, "fallback": None},
        "weights": {"source": "none", "fallback": None},
    }
    staged = models_dir / ".staging" / str(version)
    staged.mkdir(parents=True)
    (staged / f"flowers_{kind}.tflite").write_bytes(with_metadata(content, labels=class_names, spec=spec))
    (staged / "model_spec.json").write_text(json.dumps(spec))
    (models_dir / "tflite").mkdir(exist_ok=True)
    staged.rename(models_dir / "tflite" / str(version))


@pytest.fixture(scope="session")
def model() -> bytes:
    """A LiteRT model without metadata that says how red, green and blue a picture is."""
    return convert((SIZE_PX, SIZE_PX, 3))


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory, model: bytes) -> Path:
    """One pushed version; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("models")
    push(folder, model, 1)
    return folder


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Page]:
    """A service of `models_dir` that lets its callers send as much as they like; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("page")
    arguments = ("--models-dir", models_dir, "--runs-dir", folder / "none", "--photos-per-minute", 1_000_000)
    with start_page(folder / "page.log", *arguments) as page:
        yield page
