"""Looking at photos on the visitor's own device: offered where it can be, the same results, and nothing is sent."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver

from serving.web.models import FileModel
from tests.client.browser.web_apps import RUNTIME_DIR, needs_runtime
from tests.client.fakes import FakeRest, free_port
from tests.serving.web.browser import (
    AXE,
    Card,
    find_violations,
    needs_browser,
    read_cards,
    send_files,
    wait_for,
    wait_for_cards,
)
from tests.serving.web.conftest import (
    GREEN,
    GREY,
    RED,
    SPEC_LIMITS,
    YELLOW,
    open_page,
    push,
    start_page,
)

LIMITS_MODEL = Path(__file__).parent / "limits.tflite"
OFFLINE = "Photos do not leave this device. This works without a network from now on."
CHOICE = 'id="on-device"'


@pytest.fixture
def browser(chromium: WebDriver) -> Iterator[WebDriver]:
    """A browser; afterwards its console has nothing but requests that could not be sent, or were refused on purpose."""
    chromium.get_log("browser")
    yield chromium
    messages = [entry["message"] for entry in chromium.get_log("browser")]
    assert [text for text in messages if "ERR_CONNECTION_REFUSED" not in text and "status of 422" not in text] == []


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    contents = {"red.jpg": RED, "yellow.jpg": YELLOW, "grey.jpg": GREY, "broken.jpg": GREEN[:200]}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


@pytest.fixture
def limits_dir(tmp_path: Path) -> Path:
    """A pushed version that knows its limits."""
    push(tmp_path, LIMITS_MODEL.read_bytes(), 1, limits=SPEC_LIMITS)
    return tmp_path


def choose(browser: WebDriver) -> None:
    """Choose to look on the device, and wait until that works."""
    box = browser.find_element(By.ID, "on-device")
    if not box.is_selected():
        box.click()
    wait_for(browser, lambda: read_note(browser) == OFFLINE)


def read_note(browser: WebDriver) -> str:
    return browser.find_element(By.ID, "device-note").text


def words(card: Card) -> tuple[Any, ...]:
    """Return what a person reads, but for the time that it took."""
    return card.file, card.state, card.verdict, card.note, card.hint, card.bars


@needs_runtime
@needs_browser
def test_the_device_says_what_the_server_says_and_nothing_is_sent(
    browser: WebDriver, photos: list[Path], limits_dir: Path, tmp_path: Path
) -> None:
    with start_page(tmp_path / "page.log", "--models-dir", limits_dir) as page:
        browser.get(page.url)
        send_files(browser, "drop", photos)
        from_server = wait_for_cards(browser, 4)
        num_requests = page.metric("classifier_web_requests_total", route="/api/classify", status="200")
        choose(browser)
        browser.get(page.url)
        assert browser.find_element(By.ID, "on-device").is_selected(), "the choice is remembered"
        send_files(browser, "drop", photos)
        on_device = wait_for_cards(browser, 4)
        assert list(map(words, on_device)) == list(map(words, from_server))
        assert [card.state for card in on_device] == ["sure", "unsure", "refused", "failed"]
        assert on_device[0].meta.startswith("Model version 1, ")
        assert page.metric("classifier_web_requests_total", route="/api/classify", status="200") == num_requests
        loaded = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert {url for url in loaded if not url.startswith((page.url, f"blob:{page.url}"))} == set()
        assert not [url for url in loaded if "/api/" in url]


@needs_runtime
@needs_browser
def test_after_the_first_visit_it_works_without_a_network_and_a_newer_version_takes_over(
    browser: WebDriver, photos: list[Path], limits_dir: Path, tmp_path: Path
) -> None:
    port = free_port()
    arguments = ("--models-dir", limits_dir, "--port", port)
    with start_page(tmp_path / "page.log", *arguments) as page:
        browser.get(page.url)
        choose(browser)
        found = browser.execute_cdp_cmd("Page.getInstallabilityErrors", {})  # type: ignore[attr-defined]
        assert found == {"installabilityErrors": []}
        if AXE.is_file():
            assert find_violations(browser) == []
    browser.get(page.url)
    wait_for(browser, lambda: read_note(browser) == OFFLINE)
    send_files(browser, "drop", photos[:1])
    browser.find_element(By.CSS_SELECTOR, '[value="rose.jpg"]').click()
    assert {card.file for card in wait_for_cards(browser, 2)} == {"red.jpg", "rose.jpg"}
    assert {card.verdict[:3] for card in read_cards(browser) if card.file == "red.jpg"} == {"red"}
    push(limits_dir, LIMITS_MODEL.read_bytes() + bytes(4), 2, limits=SPEC_LIMITS, class_names=("rose", "leaf", "sky"))
    with start_page(tmp_path / "page.log", *arguments) as page:
        browser.get(page.url)
        wait_for(browser, lambda: read_note(browser) == OFFLINE)
        send_files(browser, "drop", photos[:1])
        (card,) = wait_for_cards(browser, 1)
        assert (card.verdict[:4], card.meta[:15]) == ("rose", "Model version 2")


@needs_runtime
@needs_browser
def test_where_the_model_cannot_be_loaded_no_photo_is_sent_instead(
    browser: WebDriver, photos: list[Path], limits_dir: Path, tmp_path: Path
) -> None:
    with start_page(tmp_path / "page.log", "--models-dir", limits_dir, "--poll-s", 1000) as page:
        browser.get(page.url)
        path = limits_dir / "tflite" / "1" / "flowers_int8.tflite"
        page.get("/device/model.json")
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        browser.find_element(By.ID, "on-device").click()
        wait_for(browser, lambda: "must have the checksum" in read_note(browser))
        send_files(browser, "drop", photos[:1])
        (card,) = wait_for_cards(browser, 1)
        assert (card.state, "must have the checksum" in card.note) == ("failed", True)
        assert page.metric("classifier_web_requests_total", route="/api/classify", status="200") == 0
        browser.find_element(By.ID, "on-device").click()
        assert read_note(browser) == "Photos are sent to this page's server."
        browser.find_element(By.CSS_SELECTOR, ".again").click()
        wait_for(browser, lambda: read_cards(browser)[0].verdict.startswith("red 9"))


@needs_runtime
def test_files_are_sent_once_small_and_by_their_content(limits_dir: Path, tmp_path: Path) -> None:
    with start_page(tmp_path / "page.log", "--models-dir", limits_dir) as page:
        described = page.get("/device/model.json")
        assert described.headers["Cache-Control"] == "no-cache"
        again = page.get("/device/model.json", headers={"If-None-Match": described.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        spec = described.json()
        for file in (spec["model"], spec["runtime"]["relaxed_simd"]["wasm"]):
            response = page.get(f"/device/{file['url']}")
            assert hashlib.sha256(response.content).hexdigest() == file["sha256"]
            assert len(response.content) == file["size_bytes"]
            assert "immutable" in response.headers["Cache-Control"]
            assert "wasm-unsafe-eval" in response.headers["Content-Security-Policy"]
        assert response.headers["Content-Encoding"] == "gzip"
        assert int(response.headers["Content-Length"]) < file["size_bytes"] / 2
        assert page.get("/device/service_worker.js").headers["Service-Worker-Allowed"] == "/"
        assert page.get("/device/manifest.webmanifest").json()["start_url"] == "../"
        for url in (
            "flowers_int8.tflite?v=1234567890abcdef",
            "flowers_int8.tflite",
            "flowers_float32.tflite",
            "none.js",
        ):
            assert page.get(f"/device/{url}").status_code == 404


@needs_runtime
@pytest.mark.parametrize(
    ("arguments", "env", "reason"),
    [
        (("--no-device",), {}, "--no-device"),
        ((), {"CLASSIFIER_WEB_TOKEN": "secret"}, "who may have the model needs the access token"),
    ],
    ids=["refused", "token"],
)
def test_the_operator_decides_and_the_log_says_so(
    arguments: tuple[str, ...], env: dict[str, str], reason: str, limits_dir: Path, tmp_path: Path
) -> None:
    with start_page(tmp_path / "page.log", "--models-dir", limits_dir, *arguments, env=env) as page:
        assert CHOICE not in page.get("/").text
        assert "Looking on this device" not in page.get("/").text
        assert page.get("/device/model.json").status_code == 404
        assert page.get("/device/words.js").status_code == 200, "the page's own script needs it"
    assert f"is offered to nobody: {reason}" in page.log()


def test_with_a_server_the_choice_is_not_offered(tmp_path: Path) -> None:
    port = free_port()
    with FakeRest(port), start_page(tmp_path / "page.log", "--rest", f"127.0.0.1:{port}") as page:
        assert CHOICE not in page.get("/").text
    assert "is offered to nobody: the model is a server's" in page.log()


def test_without_the_runtime_the_page_works_and_says_so(limits_dir: Path, tmp_path: Path) -> None:
    with start_page(tmp_path / "page.log", "--models-dir", limits_dir, "--runtime-dir", tmp_path / "none") as page:
        html = page.get("/").text
        assert CHOICE not in html
        assert "Looking on this device is not offered: the runtime for browsers is missing on the server." in html
        assert page.classify(("red.jpg", RED)).json()["results"][0]["label"] == "red"
    assert "Download it: python -m client.browser.runtime" in page.log()


@needs_runtime
def test_a_model_without_limits_has_none_here(file_model: FileModel) -> None:
    with open_page(file_model, runtime_dir=RUNTIME_DIR) as page:
        spec = page.get("/device/model.json").json()
        assert spec["limits"] is None
        assert page.get(f"/device/{spec['model']['url']}").status_code == 200
