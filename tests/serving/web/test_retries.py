"""What the page's script does when the service is busy, gone, or a file is: in a real browser, on a real service."""

import email.utils
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver

from tests.serving.web.browser import needs_browser, read_cards, send_files, wait_for, wait_for_cards
from tests.serving.web.conftest import CALL_S, RED, Page

pytestmark = needs_browser
BUSY = b'{"error": "Everybody is asking at once."}'
# What a timer of a busy machine may be early or late by.
SLACK_S = 0.05


class Proxy(ThreadingHTTPServer):
    """A proxy before the page that refuses some uploads.

    Attributes:
        refusals: of the next uploads, each a status and a function that makes headers.
        uploads: when each upload arrived, and the name of its photo.
        release: uploads wait for it.
    """

    daemon_threads = True

    def __init__(self, target: Page) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.target = target
        self.refusals: list[tuple[int, Callable[[], dict[str, str]]]] = []
        self.uploads: list[tuple[float, str]] = []
        self.release = threading.Event()
        self.release.set()
        self.lock = threading.Lock()

    def times_s(self, name: str) -> list[float]:
        return [when_s for when_s, file in self.uploads if file == name]


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        self._forward(b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name = body.partition(b'filename="')[2].partition(b'"')[0].decode()
        with self.server.lock:
            self.server.uploads.append((time.monotonic(), name))
            refusal = self.server.refusals.pop(0) if self.server.refusals else None
        self.server.release.wait(CALL_S)
        if refusal:
            self._send(refusal[0], {**refusal[1](), "Content-Type": "application/json"}, BUSY)
        else:
            self._forward(body)

    def _forward(self, body: bytes) -> None:
        headers = {name: self.headers[name] for name in ("Content-Type", "Accept") if name in self.headers}
        with requests.Session() as session:
            session.trust_env = False
            response = session.request(
                self.command, self.server.target.url + self.path, data=body, headers=headers, timeout=CALL_S
            )
        kept = {name: response.headers[name] for name in ("Content-Type", "Retry-After") if name in response.headers}
        self._send(response.status_code, kept, response.content)

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # The browser hung up.
            super().handle()


@pytest.fixture
def proxy(page: Page) -> Iterator[Proxy]:
    with Proxy(page) as proxy:
        serving = threading.Thread(target=proxy.serve_forever, args=(0.01,))
        serving.start()
        yield proxy
        proxy.release.set()
        proxy.shutdown()
        serving.join()


@pytest.fixture
def browser(chromium: WebDriver, proxy: Proxy) -> WebDriver:
    chromium.get(proxy.url)
    return chromium


def write(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).write_bytes(RED)
    return [folder / name for name in names]


def in_seconds(seconds: int) -> Callable[[], dict[str, str]]:
    return lambda: {"Retry-After": str(seconds)}


def on_date(seconds: int) -> Callable[[], dict[str, str]]:
    # Dates have whole seconds, so the wait is up to one second shorter than this.
    return lambda: {"Retry-After": email.utils.formatdate(time.time() + seconds, usegmt=True)}


@pytest.mark.parametrize(
    ("status", "wait", "least_s"), [(503, in_seconds(2), 2), (429, on_date(3), 2)], ids=["seconds", "date"]
)
def test_a_refused_photo_is_sent_again_when_the_service_says_and_the_person_reads_it(
    browser: WebDriver, proxy: Proxy, tmp_path: Path, status: int, wait: Any, least_s: float
) -> None:
    proxy.refusals = [(status, wait)]
    send_files(browser, "drop", write(tmp_path, "a.jpg"))
    wait_for(
        browser, lambda: "Everybody is asking at once. It is sent again by itself in" in read_cards(browser)[0].note
    )
    (card,) = read_cards(browser)
    assert (card.state, card.verdict) == ("busy", "Waiting…")
    (card,) = wait_for_cards(browser, 1)
    assert card.verdict.startswith("red 9")
    first_s, second_s = proxy.times_s("a.jpg")
    assert least_s - SLACK_S <= second_s - first_s < 10


def test_waits_grow_where_the_service_names_none(browser: WebDriver, proxy: Proxy, tmp_path: Path) -> None:
    proxy.refusals = [(503, dict), (503, dict)]
    send_files(browser, "drop", write(tmp_path, "a.jpg"))
    wait_for_cards(browser, 1)
    first_s, second_s = (later - sooner for sooner, later in pairwise(proxy.times_s("a.jpg")))
    assert first_s >= 1 - SLACK_S
    assert second_s >= 2 - SLACK_S


def test_while_the_service_is_busy_nothing_else_is_sent_and_no_photo_twice(
    browser: WebDriver, proxy: Proxy, tmp_path: Path
) -> None:
    names = [f"{number}.jpg" for number in range(6)]
    proxy.refusals = [(503, in_seconds(1)), (503, in_seconds(1))]
    send_files(browser, "drop", write(tmp_path, *names))
    cards = wait_for_cards(browser, 6)
    assert {card.verdict[:3] for card in cards} == {"red"}
    assert sorted(name for _, name in proxy.uploads) == sorted([*names, *names[:2]])
    assert proxy.uploads[2][0] - proxy.uploads[1][0] >= 1 - SLACK_S


def test_a_photo_is_cancelled_while_it_waits_or_is_sent_and_tried_again(
    browser: WebDriver, proxy: Proxy, tmp_path: Path
) -> None:
    def press(selector: str) -> None:
        browser.find_element(By.CSS_SELECTOR, selector).send_keys(Keys.ENTER)

    proxy.refusals = [(503, in_seconds(3600))]
    send_files(browser, "drop", write(tmp_path, "a.jpg"))
    wait_for(browser, lambda: "by itself in" in read_cards(browser)[0].note)
    press(".stop")
    assert [(card.state, card.verdict, card.note) for card in read_cards(browser)] == [("failed", "Cancelled", "")]
    assert browser.switch_to.active_element.text == "Try again"

    browser.get(proxy.url)
    proxy.release.clear()
    send_files(browser, "drop", write(tmp_path, "b.jpg", "c.jpg", "d.jpg"))
    wait_for(browser, lambda: len(proxy.uploads) == 3)
    press("li:nth-child(1) .stop")
    # A request that ends makes room for the next one.
    wait_for(browser, lambda: len(proxy.uploads) == 4)
    proxy.release.set()
    assert [card.verdict[:3] for card in wait_for_cards(browser, 3)] == ["Can", "red", "red"]
    press("li:nth-child(1) .again")
    wait_for(browser, lambda: read_cards(browser)[0].verdict.startswith("red 9"))
    # Two are sent at the same time, in any order.
    assert sorted(name for _, name in proxy.uploads) == ["a.jpg", "b.jpg", "b.jpg", "c.jpg", "d.jpg"]


def test_a_file_that_was_deleted_before_it_was_sent_is_named_as_that(
    browser: WebDriver, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.refusals = [(503, in_seconds(1))]
    (path,) = write(tmp_path, "a.jpg")
    send_files(browser, "drop", [path])
    wait_for(browser, lambda: "by itself in" in read_cards(browser)[0].note)
    path.unlink()
    (card,) = wait_for_cards(browser, 1)
    assert card.note == "This file cannot be read any more: it was changed, moved or deleted. Choose it again."


def test_a_paste_without_a_clipboard_and_a_name_that_turns_text_around(
    browser: WebDriver, proxy: Proxy, tmp_path: Path
) -> None:
    browser.get_log("browser")
    browser.execute_script("document.body.dispatchEvent(new ClipboardEvent('paste', {bubbles: true}))")
    assert browser.get_log("browser") == []
    send_files(browser, "drop", write(tmp_path, "a\u202egpj.exe"))
    (card,) = wait_for_cards(browser, 1)
    assert card.file == "agpj.exe"
    assert browser.find_element(By.CSS_SELECTOR, ".card .file bdi").text == "agpj.exe"
    assert browser.find_element(By.CSS_SELECTOR, ".card img").get_attribute("alt") == "Your photo agpj.exe"


def test_one_photo_too_many_is_one(browser: WebDriver, tmp_path: Path) -> None:
    send_files(browser, "drop", write(tmp_path, *(f"{number}.jpg" for number in range(21))))
    assert browser.find_element(By.ID, "left-out").text == "The first 20 photos are looked at; 1 more is left out."
    wait_for_cards(browser, 20)
