"""A web app is static files: any host serves them, below any path, and another page takes its module."""

import json
import re
import shutil
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver

from benchmarks.browser import classify, load_model, serve_folder
from client.browser.files import STATIC_DIR, describe_file
from client.classifier_client import Client, LiteRTTransport, ModelFileError, Prediction
from export import web_app
from export.web_app import find_newest_file, write_web_app
from tests.client.browser.web_apps import RUNTIME_DIR, needs_runtime
from tests.client.fakes import free_port
from tests.client.litert_files import CLASS_NAMES, with_metadata
from tests.serving.web.browser import AXE, find_violations, needs_browser, wait_for
from tests.serving.web.conftest import GREEN, GREY, RED, SPEC_LIMITS, make_photo, push

MODELS = Path(__file__).parents[1] / "serving" / "web"
PHOTOS = {"red.jpg": RED, "green.jpg": GREEN, "grey.jpg": GREY, "yellow.png": make_photo((250, 250, 5), "PNG")}


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pushed file that knows its limits."""
    models_dir = tmp_path_factory.mktemp("models")
    push(models_dir, (MODELS / "limits.tflite").read_bytes(), 1, limits=SPEC_LIMITS)
    return find_newest_file(models_dir)


@pytest.fixture(scope="module")
def host_dir(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Path:
    """A host's folder with the web app below a path of its own."""
    folder = tmp_path_factory.mktemp("host")
    write_web_app(folder / "some" / "where", model_path, runtime_dir=RUNTIME_DIR)
    for name, content in PHOTOS.items():
        (folder / "some" / "where" / name).write_bytes(content)
    (folder / "some" / "where" / "blank.html").write_text("<!doctype html><title>blank</title>")
    return folder


@needs_runtime
@needs_browser
def test_the_module_says_what_the_client_says(chromium: WebDriver, host_dir: Path, model_path: Path) -> None:
    with serve_folder(host_dir) as url, Client(LiteRTTransport(model_path)) as client:
        load_model(chromium, f"{url}/some/where")
        results = classify(chromium, list(PHOTOS))
        for result, prediction in zip(results, client.classify(list(PHOTOS.values())), strict=True):
            assert isinstance(prediction, Prediction)
            # The photos have one colour, so pixels are the same; WebAssembly's exponential rounds otherwise.
            assert result["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-5)
            assert result["p_value"] == pytest.approx(prediction.p_value, abs=1e-5)
            assert (result["label"], result["is_known"]) == (prediction.label, prediction.is_known)
            assert tuple(result["prediction_set"]) == prediction.prediction_set
            assert result["model_version"] == prediction.model_version == "1"
        assert [result["is_known"] for result in results] == [True, True, False, True]
        assert [result["is_sure"] for result in results] == [True, True, False, False]
        (broken,) = classify(chromium, ["classifier.js"])
        assert broken == {
            "error": "This file is not a photo that can be read here. Send a JPEG, PNG, GIF, BMP or WebP picture."
        }


@needs_runtime
@needs_browser
def test_the_page_works_below_a_path_then_without_a_network_and_takes_a_new_model(
    chromium: WebDriver, host_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "host"
    shutil.copytree(host_dir, folder)
    port = free_port()
    chromium.get_log("browser")
    with serve_folder(folder, port=port) as url:
        open_app(chromium, url)
        assert "This page works without a network from now on." in chromium.find_element(By.ID, "state").text
        assert show(chromium, tmp_path, "red.jpg").startswith("red 9")
        if AXE.is_file():
            assert find_violations(chromium) == []
        loaded = chromium.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert {name for name in loaded if not name.startswith((url, f"blob:{url}"))} == set()
    open_app(chromium, url)
    assert show(chromium, tmp_path, "grey.jpg") == "This does not look like any of the three."
    push(tmp_path / "models", (MODELS / "colours.tflite").read_bytes(), 2, class_names=("rose", "leaf", "sky"))
    write_web_app(folder / "some" / "where", find_newest_file(tmp_path / "models"), runtime_dir=RUNTIME_DIR)
    with serve_folder(folder, port=port):
        open_app(chromium, url)
        assert "version 2." in chromium.find_element(By.ID, "state").text
        assert show(chromium, tmp_path, "red.jpg").startswith("rose 9")
    complaints = [entry["message"] for entry in chromium.get_log("browser") if "ERR_CONN" not in entry["message"]]
    assert complaints == []


def open_app(browser: WebDriver, url: str) -> None:
    browser.get(f"{url}/some/where/")
    wait_for(browser, lambda: browser.execute_script("return document.body.dataset.state"))
    assert browser.execute_script("return document.body.dataset.state") == "ready"


def show(browser: WebDriver, folder: Path, name: str) -> str:
    """Choose a photo; return what the page says of it."""
    (folder / name).write_bytes(PHOTOS[name])
    browser.find_element(By.ID, "files").send_keys(str(folder / name))
    wait_for(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#results > li[class]"))
    return browser.find_element(By.CSS_SELECTOR, "#results > li[class] h2").text.replace("\u00a0", " ")


@needs_runtime
@needs_browser
def test_a_file_that_is_not_as_described_is_refused_and_what_was_kept_stays(
    chromium: WebDriver, host_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "host"
    shutil.copytree(host_dir, folder)
    app_dir = folder / "some" / "where"
    with serve_folder(folder) as url:
        open_app(chromium, url)
        push(tmp_path / "models", (MODELS / "colours.tflite").read_bytes(), 2)
        write_web_app(app_dir, find_newest_file(tmp_path / "models"), runtime_dir=RUNTIME_DIR)
        path = app_dir / "flowers_int8.tflite"
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(RuntimeError, match="must have the checksum"):
            load_model(chromium, f"{url}/some/where")
    open_app(chromium, url)
    assert "version 1." in chromium.find_element(By.ID, "state").text
    chromium.get_log("browser")


@needs_runtime
def test_the_description_is_last_and_names_files_that_are_there(host_dir: Path, model_path: Path) -> None:
    folder = host_dir / "some" / "where"
    spec = json.loads((folder / "model.json").read_text())
    assert spec["model"] == describe_file("flowers_int8.tflite", model_path.read_bytes())
    assert (spec["class_names"], spec["mean"], spec["std"]) == (list(CLASS_NAMES), [127.5], [127.5])
    named = [spec["model"]["url"], *spec["scripts"]]
    named += [part for each in spec["runtime"].values() for part in (each["script"], each["wasm"]["url"])]
    assert all((folder / name.partition("?")[0]).is_file() for name in named)
    html = (folder / "index.html").read_text()
    assert all((folder / name).is_file() for name in re.findall(r'(?:src|href)="([^"]+)"', html))


def test_every_script_that_a_module_imports_is_kept_for_when_there_is_no_network() -> None:
    from client.browser.files import _RUNTIME_SCRIPTS, _SCRIPTS

    found, seen = ["classifier.js", "worker.js"], set()
    while found:
        name = found.pop()
        seen.add(name)
        if (STATIC_DIR / name).is_file():
            text = (STATIC_DIR / name).read_text()
            found += set(re.findall(r'(?:from |import\()"\./([\w.]+)"', text)) - seen
    assert seen == {*_SCRIPTS, *_RUNTIME_SCRIPTS} - {"litert_wasm_utils.js"}


def test_the_types_are_those_of_the_module() -> None:
    exported = {
        suffix: set(re.findall(r"^export (?:async )?(?:function|class) (\w+)", path.read_text(), re.MULTILINE))
        for suffix, path in ((suffix, STATIC_DIR / f"classifier.{suffix}") for suffix in ("js", "d.ts"))
    }
    assert exported["js"] == exported["d.ts"] == {"ClassifierError", "load", "classify"}


def test_the_newest_version_counts_and_its_fastest_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="make train"):
        find_newest_file(tmp_path)
    for version, kind in (("9", "int8"), ("10", "float32"), ("10", "dynamic")):
        folder = tmp_path / "tflite" / version
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"flowers_{kind}.tflite").touch()
    assert find_newest_file(tmp_path).name == "flowers_dynamic.tflite"
    with pytest.raises(ModelFileError, match="none of int8 in its newest version"):
        find_newest_file(tmp_path, ["int8"])


def test_a_file_without_metadata_ends_the_command_with_a_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"nothing")
    arguments = [str(tmp_path / "out"), "--tflite", str(path), "--runtime-dir", str(RUNTIME_DIR)]
    if not RUNTIME_DIR.is_dir():
        pytest.skip("needs the LiteRT runtime for browsers")
    assert web_app.main(arguments) == 1
    assert "must be a model with metadata" in caplog.text
    assert not (tmp_path / "out").exists()


@needs_runtime
def test_a_file_that_was_copied_alone_keeps_its_name_and_limits(tmp_path: Path, model_path: Path) -> None:
    write_web_app(tmp_path / "out", model_path, runtime_dir=RUNTIME_DIR)
    (tmp_path / "alone.tflite").write_bytes(model_path.read_bytes())
    write_web_app(tmp_path / "of_copy", tmp_path / "alone.tflite", runtime_dir=RUNTIME_DIR)
    of_pushed, of_copy = (json.loads((tmp_path / name / "model.json").read_text()) for name in ("out", "of_copy"))
    assert of_copy["limits"] == of_pushed["limits"] is not None
    assert of_copy["name"] == of_pushed["name"] == "flowers"


@pytest.mark.parametrize(
    ("limits", "missing"), [({"coverage": 0.95}, "'refused_share', 'min_probability'"), (5, "'refused_share', .*")]
)
def test_limits_that_are_not_all_there_are_refused(tmp_path: Path, limits: object, missing: str) -> None:
    path = tmp_path / "colours.tflite"
    path.write_bytes(with_metadata((MODELS / "colours.tflite").read_bytes()))
    (tmp_path / "model_spec.json").write_text(json.dumps({"limits": limits}))
    if not RUNTIME_DIR.is_dir():
        pytest.skip("needs the LiteRT runtime for browsers")
    with pytest.raises(ModelFileError, match=rf"Missing: \[{missing}\]"):
        write_web_app(tmp_path / "out", path, runtime_dir=RUNTIME_DIR)
