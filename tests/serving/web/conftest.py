"""What the tests of the web page share: photos, a model that tells colours apart, and services of it."""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from anyio.from_thread import start_blocking_portal
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from client.classifier_client.decoder_pool import DecoderPool
from serving.shared.http_server import HttpServer
from serving.shared.process import take_port
from serving.web.app import make_app
from serving.web.classifier import Classifier
from serving.web.metrics import Metrics
from serving.web.models import FileModel, Model
from serving.web.settings import Settings
from tests.client.litert_files import CLASS_NAMES, MIN_PROBABILITY, REFUSED_SHARE, with_metadata
from tests.ready import start_ready

ROOT = Path(__file__).resolve().parents[3]
SIZE_PX = 8
CALL_S = 30
STOP_S = 20
WAIT_S = 30


def make_photo(color: tuple[int, int, int], kind: str = "JPEG", **options: Any) -> bytes:
    """Encode a photo of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(buffer, kind, **options)
    return buffer.getvalue()


RED, GREEN, GREY = make_photo((250, 5, 5)), make_photo((5, 250, 5)), make_photo((128, 128, 128))
YELLOW = make_photo((250, 250, 5))
SPEC_LIMITS = {
    "score": "distance of its colour from grey",
    "num_examples": 276,
    "refused_share": REFUSED_SHARE,
    "score_threshold": 0.03,
    "score_quantiles": [0.0, 0.5, 1.0],
    "coverage": 0.95,
    "min_probability": MIN_PROBABILITY,
}


@dataclass
class Page:
    """A service that is running, and how it is reached."""

    url: str
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.trust_env = False

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(self.url + path, timeout=CALL_S, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.session.post(self.url + path, timeout=CALL_S, **options)

    def classify(self, *photos: tuple[str, bytes], **options: Any) -> requests.Response:
        """Send photos as a form, each a name and its bytes."""
        return self.post("/api/classify", files=[("photo", photo) for photo in photos], **options)

    def metric(self, name: str, **labels: str) -> float:
        families = text_string_to_metric_families(self.get("/metrics").text)
        samples = (sample for family in families for sample in family.samples)
        return next((each.value for each in samples if (each.name, each.labels) == (name, labels)), 0.0)


@dataclass(kw_only=True)
class PageProcess(Page):
    """A service in a process of its own."""

    process: "subprocess.Popen[str]"
    log_path: Path
    ready_line: str

    def log(self) -> str:
        return self.log_path.read_text()

    def stop(self) -> int:
        """End the service as an operator does; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)


@contextmanager
def start_page(log_path: Path, *arguments: object, env: dict[str, str] | None = None) -> Iterator[PageProcess]:
    """Run a service on a free port for as long as the block lasts; when it begins, the service is ready."""
    command = [sys.executable, "-m", "serving.web", "--port", "0", *map(str, arguments)]
    with start_ready(command, log_path, env=env) as (process, ready_line):
        page = PageProcess(ready_line.split()[1], process=process, log_path=log_path, ready_line=ready_line)
        with page.session:
            yield page


@contextmanager
def open_page(model: Model, **options: Any) -> Iterator[Page]:
    """Run a service in this process on a free port for as long as the block lasts.

    Args:
        model: predicts.
        options: of `Settings`.
    """
    settings, metrics = Settings(**options), Metrics()
    decoders = DecoderPool(settings.num_workers)
    classifier = Classifier(
        model, decoders, threshold=settings.threshold, num_workers=settings.num_workers, metrics=metrics
    )
    bound = take_port("127.0.0.1", 0)
    http = HttpServer(make_app(classifier, settings, metrics), bound, None, head_timeout_s=CALL_S, grace_s=STOP_S)
    page = Page(f"http://127.0.0.1:{bound.getsockname()[1]}")
    with start_blocking_portal() as portal, page.session:
        portal.call(classifier.refresh)
        portal.call(http.start)
        try:
            yield page
        finally:
            portal.call(http.stop)
            classifier.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when a condition holds; fail when it does not in half a minute."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "what is waited for does not happen"
        time.sleep(0.05)


def read_memory(page: PageProcess) -> int:
    """Return what the page takes, with the processes that decode: memory that they share counts once (PSS)."""
    pids = [page.process.pid]
    for task in Path(f"/proc/{page.process.pid}/task").iterdir():
        with suppress(OSError):
            pids += map(int, (task / "children").read_text().split())
    total = 0
    for pid in pids:
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += 1024 * int(next(line.split()[1] for line in lines if line.startswith("Pss:")))
    return total


def push(
    models_dir: Path,
    content: bytes,
    version: int,
    *,
    class_names: tuple[str, ...] = CLASS_NAMES,
    data: str = "photos",
    **further: Any,
) -> None:
    """Publish a version by rename, as the pipeline does."""
    spec = {
        "model_name": "flowers",
        "class_names": class_names,
        "image_size_px": SIZE_PX,
        "backbone": "tiny",
        "data": {"source": data, "resolved": data, "fallback": None},
        "weights": {"source": "none", "fallback": None},
        **further,
    }
    staged = models_dir / ".staging" / str(version)
    staged.mkdir(parents=True)
    (staged / "flowers_int8.tflite").write_bytes(with_metadata(content, labels=class_names, spec=spec))
    (staged / "model_spec.json").write_text(json.dumps(spec))
    (models_dir / "tflite").mkdir(exist_ok=True)
    staged.rename(models_dir / "tflite" / str(version))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def model() -> bytes:
    """A LiteRT model without metadata, whose probabilities say how red, green and blue a photo is.

    `tests.client.litert_files.convert((SIZE_PX, SIZE_PX, 3))` wrote it: TensorFlow takes long to import.
    """
    return (Path(__file__).parent / "colours.tflite").read_bytes()


@pytest.fixture(scope="session")
def limits_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageProcess]:
    """A service of a model that knows its limits (greys are none of its colours), and that keeps photos.

    `tests.client.litert_files.convert_with_limits((SIZE_PX, SIZE_PX, 3))` wrote it.
    """
    folder = tmp_path_factory.mktemp("limits")
    push(folder, (Path(__file__).parent / "limits.tflite").read_bytes(), 1, limits=SPEC_LIMITS)
    arguments = ("--models-dir", folder, "--runs-dir", folder / "none", "--photos-per-minute", 1_000_000)
    capture = ("--capture", folder / "captured", "--capture-rate", 1, "--capture-images")
    with start_page(folder / "page.log", *arguments, *capture) as page:
        yield page


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory, model: bytes) -> Path:
    """One pushed version; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("models")
    push(folder, model, 1)
    return folder


@pytest.fixture(scope="session")
def model_path(models_dir: Path) -> Path:
    """The file of the pushed version."""
    return models_dir / "tflite" / "1" / "flowers_int8.tflite"


@pytest.fixture(scope="session")
def file_model(model_path: Path) -> FileModel:
    """The model of the pushed version, for services in this process."""
    return FileModel(model_path)


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[PageProcess]:
    """A service of `models_dir` that lets its callers send as much as they like; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("page")
    arguments = ("--models-dir", models_dir, "--runs-dir", folder / "none", "--photos-per-minute", 1_000_000)
    with start_page(folder / "page.log", *arguments) as page:
        yield page
