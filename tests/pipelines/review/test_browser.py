"""A real browser on a real server: headless Chromium with its chromedriver (Debian: chromium chromium-driver)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver

from serving.web.screenshots import Screen, set_screen
from tests.client.fakes import free_port
from tests.pipelines.review.browser import (
    decide,
    enter_name,
    open_page,
    press,
    read,
    shown,
    wait_for_lines,
    wait_for_photo,
)
from tests.pipelines.review.conftest import Review, start_review
from tests.pipelines.review.drawn_run import DrawnRun, write_run
from tests.serving.web.browser import find_violations, needs_axe, needs_browser, wait_for

pytestmark = needs_browser
DESKTOP, PHONE = Screen(1280, 900), Screen(390, 844, is_phone=True)


@pytest.fixture
def browser(chromium: WebDriver, review: Review) -> Iterator[WebDriver]:
    """The page with its first photo; afterwards nothing was refused or written to the browser's console."""
    set_screen(chromium, DESKTOP)
    open_page(chromium, review.url)
    chromium.get_log("browser")
    yield chromium
    assert chromium.get_log("browser") == []


def test_the_suspects_come_first_and_a_key_decides(browser: WebDriver, review: Review, run: DrawnRun) -> None:
    assert shown(browser) == run.photos[0]
    decide(browser, "2")
    wait_for_photo(browser, run.photos[1])
    wait_for_lines(browser, review, 1)
    wait_for(browser, lambda: read(browser, "state") == "Saved: “roses”. 9 left.")
    decide(browser, "n", "s")
    wait_for_lines(browser, review, 3)
    wait_for(browser, lambda: read(browser, "progress") == "3 done, 7 left")
    found = [(each["sha256"], each["decision"], each["label"], each["who"], each["why"]) for each in review.decisions()]
    assert found == [
        (run.photos[0], "label", "roses", "Ada", "suspect"),
        (run.photos[1], "none", None, "Ada", "suspect"),
        (run.photos[2], "skip", None, "Ada", "suspect"),
    ]
    assert read(browser, "people") == "Decided: Ada 3"


def test_the_opinion_is_hidden_until_it_is_wanted_and_enter_confirms_the_given_label(
    browser: WebDriver, review: Review, run: DrawnRun
) -> None:
    page = browser.find_element(By.TAG_NAME, "main")
    assert "Model suggests" not in page.text
    assert "00000.jpg" not in page.get_property("innerHTML")
    press(browser, Keys.ENTER)
    assert "Press m first" in read(browser, "state")
    press(browser, "m")
    assert "Given label\ndaisy\nModel suggests\nroses" in read(browser, "opinion")
    press(browser, Keys.ENTER)
    wait_for_photo(browser, run.photos[1])
    assert not browser.find_element(By.ID, "opinion").is_displayed()
    wait_for_lines(browser, review, 1)
    assert review.decisions()[0]["label"] == "daisy"


def test_undo_goes_back_step_by_step(browser: WebDriver, review: Review, run: DrawnRun) -> None:
    decide(browser, "1", "2", "3")
    wait_for_photo(browser, run.photos[3])
    for photo in (run.photos[2], run.photos[1]):
        press(browser, "u")
        wait_for_photo(browser, photo)
    wait_for_lines(browser, review, 5)
    assert [each["decision"] for each in review.decisions()] == ["label"] * 3 + ["undo"] * 2
    browser.refresh()
    wait_for(browser, lambda: shown(browser))
    press(browser, "u")
    wait_for_photo(browser, run.photos[0])
    wait_for_lines(browser, review, 6)
    press(browser, "u")
    assert read(browser, "state") == "There is nothing to undo."


def test_buttons_do_what_keys_do_and_enter_does_not_press_one_again(
    browser: WebDriver, review: Review, run: DrawnRun
) -> None:
    browser.find_element(By.XPATH, "//button[contains(., 'tulips')]").click()
    wait_for_photo(browser, run.photos[1])
    press(browser, Keys.ENTER)
    wait_for_lines(browser, review, 1)
    assert shown(browser) == run.photos[1]


def test_a_new_class_is_said_to_be_new_and_has_a_button(browser: WebDriver, review: Review, run: DrawnRun) -> None:
    field = browser.find_element(By.ID, "class-name")
    field.send_keys("lily", Keys.ENTER)
    wait_for_photo(browser, run.photos[1])
    wait_for(browser, lambda: "New class: “lily”, which the source does not have." in read(browser, "state"))
    wait_for(browser, lambda: "lily" in read(browser, "classes"))
    press(browser, "4")
    wait_for_lines(browser, review, 2)
    assert [each["label"] for each in review.decisions()] == ["lily", "lily"]


def test_the_end_is_said(browser: WebDriver, review: Review, run: DrawnRun) -> None:
    for photo in run.photos:
        wait_for_photo(browser, photo)
        press(browser, "1")
    wait_for(browser, lambda: "All is decided" in read(browser, "frame"))
    wait_for_lines(browser, review, 10)


def test_a_photo_that_is_gone_is_passed_over(chromium: WebDriver, tmp_path: Path, run: DrawnRun) -> None:
    shard = next(run.runs_dir.glob("artifacts/examples/*/train.tfrecord"))
    with start_review(run.runs_dir, tmp_path / "labels.jsonl") as review:
        moved = shard.rename(shard.with_name("away"))
        chromium.get(review.url)
        enter_name(chromium)
        wait_for(chromium, lambda: "No photo that is left can be shown" in read(chromium, "frame"))
        assert "A photo is passed over: " in read(chromium, "passed")
        moved.rename(shard)


def test_a_decision_without_a_server_is_kept_and_sent_when_the_page_opens_again(
    chromium: WebDriver, tmp_path: Path, run: DrawnRun
) -> None:
    port, labels = free_port(), tmp_path / "labels.jsonl"
    set_screen(chromium, DESKTOP)
    with start_review(run.runs_dir, labels, port=port) as review:
        open_page(chromium, review.url)
        wait_for(chromium, lambda: chromium.execute_script("return ahead.length") == 1)
        review.process.kill()
        review.process.wait()
        press(chromium, "2")
        wait_for(chromium, lambda: "1 decision is not saved yet" in read(chromium, "trouble"))
        assert "It stays" in read(chromium, "trouble") or "They stay" in read(chromium, "trouble")
        chromium.get("about:blank")
    assert not labels.exists()
    with start_review(run.runs_dir, labels, port=port) as review:
        chromium.get(review.url)
        wait_for_lines(chromium, review, 1)
        assert (review.decisions()[0]["sha256"], review.decisions()[0]["label"]) == (run.photos[0], "roses")


def test_two_people_see_different_photos_and_hear_of_each_other(
    browser: WebDriver, review: Review, run: DrawnRun
) -> None:
    assert review.take("ben")["item"]["sha256"] not in run.photos[:1]
    assert review.decide("ben", run.photos[0], "tulips").status_code == 200
    press(browser, "2")
    wait_for(browser, lambda: browser.find_element(By.ID, "conflict").is_displayed())
    assert read(browser, "conflict-text") == (
        "ben decided “tulips” on this photo in the meantime. Yours, “roses”, is later and counts."
    )
    assert [each["label"] for each in review.decisions()] == ["tulips", "roses"]
    browser.find_element(By.ID, "take-theirs").click()
    wait_for_lines(browser, review, 3)
    assert review.decisions()[2]["decision"] == "undo"


@needs_axe
@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing(browser: WebDriver, review: Review, screen: Screen, is_dark: bool) -> None:
    set_screen(browser, replace(screen, is_dark=is_dark))
    browser.execute_script("localStorage.clear()")
    browser.get(review.url)
    assert find_violations(browser) == []
    enter_name(browser)
    wait_for(browser, lambda: shown(browser))
    press(browser, "m")
    assert find_violations(browser) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= screen.width_px
    press(browser, "?")
    assert browser.find_element(By.ID, "help-dialog").is_displayed()
    assert find_violations(browser) == []


def test_on_a_phone_buttons_fit_a_thumb_and_the_screen(browser: WebDriver, review: Review) -> None:
    set_screen(browser, PHONE)
    browser.get(review.url)
    wait_for(browser, lambda: shown(browser))
    buttons = [each for each in browser.find_elements(By.CSS_SELECTOR, "button, a.button") if each.is_displayed()]
    assert len(buttons) > 8
    assert min(button.size["height"] for button in buttons) >= 44
    lowest = max(
        each.location["y"] + each.size["height"] for each in browser.find_elements(By.CSS_SELECTOR, ".classes")
    )
    assert lowest <= PHONE.height_px


def test_the_page_loads_nothing_from_another_host(browser: WebDriver, review: Review) -> None:
    press(browser, "1")
    wait_for_lines(browser, review, 1)
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert loaded
    assert {url for url in loaded if not url.startswith(review.url)} == set()


def test_a_run_without_doubts_leaves_nothing_to_decide(chromium: WebDriver, tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", 2)
    (run.run_dir / "suspects.jsonl").write_text("")
    with start_review(run.runs_dir, tmp_path / "labels.jsonl") as review:
        chromium.get(review.url)
        enter_name(chromium)
        wait_for(chromium, lambda: "no label of the newest run is doubted" in read(chromium, "frame"))


def test_two_tabs_see_different_photos_and_both_decisions_stay(
    browser: WebDriver, review: Review, run: DrawnRun
) -> None:
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    second = browser.current_window_handle
    browser.get(review.url)
    wait_for(browser, lambda: shown(browser))
    seen = shown(browser)
    decide(browser, "1")
    browser.switch_to.window(first)
    assert shown(browser) != seen
    decide(browser, "2")
    wait_for(browser, lambda: len(review.decisions()) == 2)
    assert {each["sha256"] for each in review.decisions()} == {seen, run.photos[0]}
    browser.switch_to.window(second)
    browser.close()
    browser.switch_to.window(first)
