"""What the page keeps of photos, and what it says of that to those who send them."""

import re
import resource
import sys
from pathlib import Path
from typing import Any

import pytest

from serving.shared.capture import Captured, read_captured
from serving.shared.capture.recorder import Recorder
from serving.shared.capture.writer import CaptureOptions
from serving.web.__main__ import main
from serving.web.capture import NAME, PhotoLog, describe
from serving.web.classifier import Classified
from serving.web.model_info import ModelInfo
from serving.web.openapi import describe as describe_api
from serving.web.settings import Settings
from serving.web.uploads import Photo
from tests.client.litert_files import CLASS_NAMES
from tests.serving.web.conftest import GREY, RED, YELLOW, Page, PageProcess, make_photo, start_page, wait_until

KEPT = "is kept as sent, with the result and the time, on the computer that runs this page, for at most 30 days"
SCORES = "is kept, with the time and without any name, on the computer that runs this page, for at most 2 days"


def read(folder: Path, page: Page, count: int) -> list[Captured]:
    """Return what was captured, as soon as the page has counted so many photos."""
    wait_until(lambda: page.metric("classifier_web_photos_captured_total") >= count)
    return list(read_captured(folder))


def make_options(folder: Path, **further: Any) -> CaptureOptions:
    return CaptureOptions(**{"folder": folder, "name": NAME, "rate": 1, "with_inputs": False, **further})


def show(page: Page) -> str:
    return " ".join(page.get("/").text.replace("\u00a0", " ").split())


def test_photos_are_kept_where_that_is_asked_for_and_samples_never(tmp_path: Path, models_dir: Path) -> None:
    folder = tmp_path / "captured"
    arguments = ("--models-dir", models_dir, "--capture", folder, "--capture-rate", 1, "--capture-images")
    with start_page(tmp_path / "page.log", *arguments) as page:
        html = show(page)
        assert html.index(f"A copy of each photo {KEPT}") < html.index('type="file"')
        assert "not kept" not in html
        assert "never kept" not in html + page.get("/model").text
        description = page.get("/openapi.json").json()["paths"]["/api/classify"]["post"]["description"]
        assert KEPT in description
        assert page.post("/", files={"sample": (None, "rose.jpg")}).status_code == 200
        assert page.classify(("a.jpg", b"no photo")).status_code == 422
        results = page.classify(("a.jpg", RED), ("secret name.jpg", YELLOW)).json()["results"]
        found = read(folder, page, 2)
        assert page.stop() == 0
    assert [photo.image for photo in found] == [RED, YELLOW]
    for photo, result in zip(found, results, strict=True):
        assert (photo.model_name, photo.version, photo.class_names) == ("flowers", 1, CLASS_NAMES)
        assert photo.probabilities == pytest.approx([result["probabilities"][name] for name in CLASS_NAMES])
        assert (photo.p_value, photo.is_known, photo.prediction_set) == (None, None, None)
        assert photo.when
    assert b"secret" not in b"".join(path.read_bytes() for path in folder.iterdir())


def test_limits_of_the_model_are_kept_too(limits_page: PageProcess) -> None:
    before = limits_page.metric("classifier_web_photos_captured_total")
    arguments: Any = limits_page.process.args
    folder = Path(arguments[arguments.index("--capture") + 1])
    result = limits_page.classify(("a.jpg", GREY)).json()["results"][0]
    *_, photo = read(folder, limits_page, int(before) + 1)
    assert (photo.is_known, photo.p_value) == (False, pytest.approx(result["p_value"]))
    assert set(photo.prediction_set or ()) == set(result["prediction_set"])
    assert limits_page.metric("classifier_web_is_capturing") == 1


def test_results_alone_are_kept_by_default(tmp_path: Path, models_dir: Path) -> None:
    folder = tmp_path / "captured"
    options = ("--capture", folder, "--capture-rate", 1, "--capture-max-age-days", 2)
    with start_page(tmp_path / "page.log", "--models-dir", models_dir, *options) as page:
        assert f"Photos are not kept. The result of each photo {SCORES}" in show(page)
        page.classify(("a.jpg", RED))
        (photo,) = read(folder, page, 1)
    assert (photo.image, photo.class_names) == (None, CLASS_NAMES)
    assert RED[100:200] not in b"".join(path.read_bytes() for path in folder.iterdir())


def test_nothing_is_kept_by_default_and_the_page_says_so(page: PageProcess) -> None:
    assert "Photos are not kept." in show(page)
    assert "never kept" in show(page)
    names = re.findall(r"^classifier_web_\w*captur\w* (.*)$", page.get("/metrics").text, re.MULTILINE)
    assert set(names) == {"0.0"}
    assert "Photos are not kept." in str(describe_api(Settings()))


def test_a_share_is_named_as_such(tmp_path: Path) -> None:
    text = describe(make_options(tmp_path, rate=0.125, with_inputs=True, max_age_days=1)).replace("\u00a0", " ")
    assert text.startswith("A copy of a random 12.5 % of the photos is kept")
    assert "for at most 1 day. Some of these are chosen" in text


@pytest.mark.skipif(sys.platform != "linux", reason="limits another process")
def test_a_full_disk_stops_capture_and_not_the_page(tmp_path: Path, models_dir: Path) -> None:
    folder = tmp_path / "captured"
    noise = make_photo((1, 2, 3), "BMP") * 100  # a decoder reads no further than the first image
    options = ("--capture", folder, "--capture-rate", 1, "--capture-images", "--photos-per-minute", 10_000)
    with start_page(tmp_path / "page.log", "--models-dir", models_dir, *options) as page:
        soft, hard = resource.prlimit(page.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(page.process.pid, resource.RLIMIT_FSIZE, (100_000, hard))
        for _ in range(5):
            assert page.classify(("a.bmp", noise)).status_code == 200
        wait_until(lambda: page.metric("classifier_web_photos_capture_dropped_total") == 5)
        assert page.metric("classifier_web_is_capturing") == 0
        resource.prlimit(page.process.pid, resource.RLIMIT_FSIZE, (soft, hard))
        assert page.log().count("capture: stops, and serving goes on") == 1
    assert list(folder.iterdir()) == []


def test_classes_are_in_the_models_order_and_a_version_may_be_unknown(tmp_path: Path) -> None:
    recorder = Recorder(make_options(tmp_path))
    result = Classified("a.jpg", "b", 0.6, {"b": 0.6, "c": 0.3, "a": 0.1}, True, "", 1.0, None, None, None)
    for info in (ModelInfo("m", "file", class_names=("c", "b", "a")), ModelInfo("m", "file", class_names=("x", "y"))):
        PhotoLog(recorder).add(Photo("a.jpg", b"image"), result, info)
    recorder.close()
    of_model, of_other = read_captured(tmp_path)
    assert (of_model.class_names, of_other.class_names) == (("c", "b", "a"), ("a", "b", "c"))
    assert of_model.probabilities == pytest.approx([0.3, 0.6, 0.1])
    assert of_model.version is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--capture-images"], "--capture-images keeps photos in the folder of --capture. Received: none"),
        (["--capture", "s3://bucket/x"], "--capture takes a folder of this machine. Received: s3://bucket/x"),
        (["--capture", "x", "--capture-rate", "0"], "must be above 0. Received: 0"),
        (["--capture", "x", "--capture-rate", "2"], "must be 0 to 1. Received: 2"),
        (["--capture", "x", "--capture-max-mb", "-1"], "max_mb of what is captured must be above 0"),
    ],
)
def test_options_that_cannot_be_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
