"""The training, the token and the choice in a real browser."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver

from pipelines.review.app import make_app
from pipelines.review.desk import Desk, Task
from serving.shared.http_server import HttpServer
from serving.shared.process import take_port
from serving.web.screenshots import open_browser, set_screen
from serving.web.settings import Settings
from tests.pipelines.review.browser import enter_name, open_page, press, read, shown
from tests.pipelines.review.conftest import start_review
from tests.pipelines.review.drawn_run import DrawnRun, draw
from tests.pipelines.review.test_app import choose_two
from tests.pipelines.review.test_browser import DESKTOP, PHONE, needs_axe
from tests.serving.web.browser import find_violations, needs_browser, wait_for

pytestmark = needs_browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[WebDriver]:
    with open_browser() as opened:
        set_screen(opened, DESKTOP)
        yield opened


def click(browser: WebDriver, element: str) -> None:
    browser.find_element(By.ID, element).click()


def choose_slowly(folder: str) -> list[tuple[str, str, str]]:
    time.sleep(2)
    return choose_two(folder)


def test_a_training_shows_its_log_and_how_it_ended(chromium: WebDriver, run: DrawnRun, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with start_review(run.runs_dir, tmp_path / "labels.jsonl", "--set", f"examples.source={empty}") as review:
        open_page(chromium, review.url)
        wait_for(chromium, lambda: chromium.find_element(By.ID, "report").is_displayed())
        click(chromium, "train")
        wait_for(chromium, lambda: chromium.find_element(By.ID, "stop").is_displayed())
        wait_for(chromium, lambda: read(chromium, "training-state").startswith("Failed, with exit status 1."))
        assert "error: " in read(chromium, "log")
        assert chromium.find_element(By.ID, "train").is_displayed()
        assert shown(chromium) == run.photos[0], "the photo stays while a person looks at it"


def test_a_second_person_sees_the_training_and_stops_it(chromium: WebDriver, run: DrawnRun, tmp_path: Path) -> None:
    with start_review(run.runs_dir, tmp_path / "labels.jsonl", "--models-dir", tmp_path / "models") as review:
        open_page(chromium, review.url)
        assert review.post("/api/training", json={"action": "start"}).status_code == 200
        wait_for(chromium, lambda: chromium.find_element(By.ID, "stop").is_displayed())
        click(chromium, "stop")
        wait_for(chromium, lambda: read(chromium, "training-state").startswith(("Stopped.", "Failed", "Finished")))


def test_the_report_opens_with_its_style(chromium: WebDriver, run: DrawnRun, tmp_path: Path) -> None:
    with start_review(run.runs_dir, tmp_path / "labels.jsonl") as review:
        chromium.get(f"{review.url}/report")
        paragraph = chromium.find_element(By.TAG_NAME, "p")
        assert paragraph.value_of_css_property("color") == "rgba(0, 85, 0, 1)"


@needs_axe
@pytest.mark.parametrize("is_dark", [False, True])
def test_with_a_token_the_page_asks_for_it(chromium: WebDriver, run: DrawnRun, tmp_path: Path, is_dark: bool) -> None:
    with start_review(run.runs_dir, tmp_path / "labels.jsonl", env={"REVIEW_TOKEN": "sesame"}) as review:
        set_screen(chromium, replace(PHONE, is_dark=is_dark))
        chromium.delete_all_cookies()
        chromium.get(review.url)
        chromium.execute_script("localStorage.clear()")
        chromium.get(review.url)
        dialog = chromium.find_element(By.ID, "token-dialog")
        wait_for(chromium, dialog.is_displayed)
        chromium.switch_to.active_element.send_keys("wrong", Keys.ENTER)
        wait_for(chromium, lambda: "That is not the token" in read(chromium, "token-error"))
        assert find_violations(chromium) == []
        field = chromium.find_element(By.ID, "token")
        field.clear()
        field.send_keys("sesame", Keys.ENTER)
        wait_for(chromium, lambda: not dialog.is_displayed())
        enter_name(chromium)
        wait_for(chromium, lambda: shown(chromium) == run.photos[0])
        set_screen(chromium, DESKTOP)


def test_photos_that_are_being_chosen_come_when_they_are(chromium: WebDriver, tmp_path: Path) -> None:
    from functools import partial

    folder = tmp_path / "unlabelled"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.tif").write_bytes(draw(number, "TIFF"))
    task = Task(
        runs_dir=tmp_path / "runs",
        labels=tmp_path / "labels.jsonl",
        input=str(folder),
        choose=partial(choose_slowly, str(folder)),
        who="Ada",
    )
    desk = Desk(task)
    bound = take_port("127.0.0.1", 0)
    http = HttpServer(make_app(desk, Settings()), bound, None, head_timeout_s=10, grace_s=5)
    with start_blocking_portal() as portal:
        portal.call(http.start)
        try:
            chromium.get(f"http://127.0.0.1:{bound.getsockname()[1]}")
            enter_name(chromium)
            wait_for(chromium, lambda: "Photos are being chosen" in read(chromium, "frame"))
            wait_for(chromium, lambda: shown(chromium))
            press(chromium, "m")
            assert "Given label\nnone\nModel suggests\nnothing" in read(chromium, "opinion")
            assert not chromium.find_element(By.ID, "confirm").is_displayed()
            chromium.find_element(By.ID, "class-name").send_keys("rose", Keys.ENTER)
            wait_for(chromium, lambda: "rose" in read(chromium, "classes"))
        finally:
            chromium.get("about:blank")
            portal.call(http.stop)
            desk.close()
