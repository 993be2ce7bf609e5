"""The page follows its model whatever happens: wrong versions, a server that goes, responses that nobody expects."""

import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client.classifier_client import Prediction
from client.classifier_client.decoder_pool import DecoderPool
from serving.web.classifier import Classifier
from serving.web.metrics import Metrics
from serving.web.model_info import read_spec, read_spec_of
from serving.web.models import PushedModel
from tests.client.fakes import DIE, FakeRest, free_port
from tests.client.litert_files import with_metadata
from tests.serving.web.conftest import RED, PageProcess, push, start_page

READY_S = 2

NONSENSE = b"[1, 2"
OTHER_TYPES = json.dumps(
    {
        "model_name": 5,
        "class_names": [1, None],
        "image_size_px": "large",
        "backbone": [],
        "data": {"source": 1, "resolved": []},
        "weights": 7,
        "files": {"int8": "flowers_int8.tflite", "float32": {"name": 5}},
    }
).encode()


def make_wrong(folder: Path, kind: str, model: bytes) -> None:
    """Write a version that cannot be used, or whose spec cannot."""
    folder.mkdir()
    file = folder / "flowers_int8.tflite"
    match kind:
        case "nonsense spec":
            (folder / "model_spec.json").write_bytes(NONSENSE)
            file.write_bytes(with_metadata(model, spec=[1, 2, 3]))
        case "spec of other types":
            (folder / "model_spec.json").write_bytes(OTHER_TYPES)
            file.write_bytes(with_metadata(model, spec=json.loads(OTHER_TYPES)))
        case "truncated":
            file.write_bytes(with_metadata(model)[: len(model) // 2])
        case "a folder":
            file.mkdir()
        case "text":
            file.write_text("a model, one day")
        case "no classifier":
            file.write_bytes(model)


KINDS = ("nonsense spec", "spec of other types", "truncated", "a folder", "text", "no classifier")


def wait_for(condition: Callable[[], bool]) -> float:
    """Return the seconds until a condition holds."""
    start_s = time.monotonic()
    while not condition():
        assert time.monotonic() < start_s + 30, "what is waited for does not happen"
        time.sleep(0.02)
    return time.monotonic() - start_s


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_wrong_version_a_good_one_takes_over(
    tmp_path: Path, model: bytes, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    push(tmp_path, model, 1)
    pushed = PushedModel(tmp_path, "flowers")
    make_wrong(tmp_path / "tflite" / "2", kind, model)
    with caplog.at_level(logging.INFO):
        pushed.refresh()
        pushed.refresh()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) >= 1
    assert isinstance(pushed.classify(RED), Prediction)
    push(tmp_path, model, 3)
    pushed.refresh()
    assert pushed.info.version == "3"


def test_six_wrong_versions_in_a_row_and_a_good_one_is_served_two_seconds_later(tmp_path: Path, model: bytes) -> None:
    push(tmp_path, model, 1)
    with start_page(tmp_path / "page.log", "--models-dir", tmp_path) as page:
        for version, kind in enumerate(KINDS, start=2):
            make_wrong(tmp_path / "tflite" / str(version), kind, model)
        wait_for(lambda: "goes on" in page.log())
        push(tmp_path, model, 9)
        assert wait_for(lambda: page.get("/readyz").json()["version"] == "9") < READY_S
        assert page.classify(("a.jpg", RED)).status_code == 200
        assert "Traceback" not in page.log()


def check_a_server_that_goes(page: PageProcess, port: int, num_times: int) -> None:
    for _ in range(num_times):
        with FakeRest(port) as server:
            assert wait_for(lambda: page.get("/readyz").status_code == 200) < READY_S
            server.script.append(DIE)
            assert page.classify(("a.jpg", RED)).status_code == 503


@pytest.mark.parametrize("num_times", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_server_that_is_back_is_found_within_two_seconds(tmp_path: Path, num_times: int) -> None:
    port = free_port()
    with start_page(tmp_path / "page.log", "--rest", f"127.0.0.1:{port}", "--models-dir", tmp_path) as page:
        check_a_server_that_goes(page, port, num_times)
        assert "Traceback" not in page.log()


class StrangeModel:
    """A model whose server sends what nobody expects, a number of times."""

    def __init__(self, num_strange: int) -> None:
        self.num_left = num_strange

    def refresh(self) -> None:
        if self.num_left:
            self.num_left -= 1
            raise KeyError("outputs")

    def close(self) -> None:
        pass


@pytest.mark.anyio
async def test_what_nobody_expects_is_logged_once_and_the_next_look_counts(caplog: pytest.LogCaptureFixture) -> None:
    model: Any = StrangeModel(3)
    with DecoderPool(1) as decoders:
        classifier = Classifier(model, decoders, threshold=0.5, num_workers=1, metrics=Metrics())
        for _ in range(3):
            await classifier.refresh()
            assert not classifier.is_ready
        await classifier.refresh()
        assert classifier.is_ready
        classifier.close()
    assert caplog.text.count("Traceback") == 1


@pytest.mark.parametrize(
    "content", [b"", NONSENSE, b"[]", b"7", b"null", b"[" * 100_000, b"9" * 5000, b"\xff\xfe", OTHER_TYPES]
)
def test_of_a_malformed_spec_nothing_is_taken(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model_spec.json").write_bytes(content)
    assert read_spec(tmp_path / "model_spec.json") == {}
    assert read_spec_of(tmp_path / "flowers_int8.tflite") == {}


def test_of_a_spec_the_sound_keys_are_taken(tmp_path: Path) -> None:
    sound = {
        "model_name": "flowers",
        "class_names": ["daisy", "rose"],
        "image_size_px": 224,
        "data": {"source": "auto", "resolved": "synthetic", "fallback": None},
        "weights": "none",
        "files": {"int8": {"name": "flowers_int8.tflite", "sha256": "0" * 64, "more": 5}},
    }
    (tmp_path / "model_spec.json").write_text(json.dumps({**sound, "backbone": 5, "other": [1]}))
    assert read_spec(tmp_path / "model_spec.json") == sound


@pytest.mark.parametrize("cut", [10, 100, -30, -1])
def test_a_damaged_archive_has_no_spec(tmp_path: Path, model: bytes, cut: int) -> None:
    (tmp_path / "a.tflite").write_bytes(with_metadata(model, spec={"model_name": "flowers"})[:cut])
    assert read_spec_of(tmp_path / "a.tflite") == {}


def test_a_version_that_goes_while_it_is_looked_at_is_no_reason_to_stop(tmp_path: Path, model: bytes) -> None:
    push(tmp_path, model, 1)
    pushed = PushedModel(tmp_path, "flowers")
    shutil.rmtree(tmp_path / "tflite")
    (tmp_path / "tflite").write_text("no folder")
    pushed.refresh()
    assert pushed.info.version == "1"
