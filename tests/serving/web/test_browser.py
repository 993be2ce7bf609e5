"""A real browser on a real service: headless Chromium with its chromedriver (Debian: chromium chromium-driver)."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver

from serving.web import screenshots
from serving.web.screenshots import SCREENS, Screen, classify_samples, open_browser, set_screen
from tests.client.fakes import FakeRest, free_port
from tests.serving.web.browser import (
    Card,
    find_violations,
    needs_axe,
    needs_browser,
    read_cards,
    send_files,
    wait_for,
    wait_for_cards,
)
from tests.serving.web.conftest import GREEN, GREY, RED, YELLOW, Page, make_photo, start_page

pytestmark = needs_browser
DESKTOP, PHONE = Screen(1280, 900), Screen(360, 800, is_phone=True)


@pytest.fixture
def browser(chromium: WebDriver, page: Page) -> Iterator[WebDriver]:
    """The page, freshly opened on a desktop; afterwards nothing was refused or written to the browser's console."""
    set_screen(chromium, DESKTOP)
    chromium.get_log("browser")
    chromium.get(page.url)
    yield chromium
    complaints = [entry["message"] for entry in chromium.get_log("browser") if "status of 4" not in entry["message"]]
    assert complaints == []


def write(folder: Path, contents: dict[str, bytes]) -> list[Path]:
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three photos, and a broken one as the second."""
    contents = {
        "red.jpg": RED,
        "broken.jpg": GREEN[:200],
        "green.png": make_photo((5, 250, 5), "PNG"),
        "grey.webp": make_photo((128, 128, 128), "WEBP"),
    }
    return write(tmp_path_factory.mktemp("photos"), contents)


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_dropped_and_pasted_photos_have_their_predictions_and_a_broken_one_a_sentence(
    browser: WebDriver, photos: list[Path], event: str
) -> None:
    send_files(browser, event, photos)
    red, broken, green, grey = wait_for_cards(browser, 4)
    assert [card.file for card in (red, broken, green, grey)] == [path.name for path in photos]
    assert red.verdict.startswith("red 9")
    assert set(red.bars) == {"red", "green", "blue"}
    assert all(share.endswith("\u00a0%") for share in red.bars.values())
    assert red.meta.startswith("Model version 1, ")
    assert red.meta.endswith(" ms")
    assert green.verdict.startswith("green 9")
    assert (broken.state, broken.verdict, broken.bars) == ("failed", "No answer", {})
    assert broken.note == "This photo is damaged, or was cut short on its way. Send the original again."
    assert grey.verdict == "Not sure"
    assert "The closest is" in grey.note


def test_each_photo_shows_at_once(browser: WebDriver, photos: list[Path]) -> None:
    send_files(browser, "drop", photos[:1])
    image = browser.find_element(By.CSS_SELECTOR, ".card img")
    wait_for(browser, lambda: image.get_property("naturalWidth") == 40)
    assert image.get_attribute("alt") == "Your photo red.jpg"
    wait_for_cards(browser, 1)


def test_files_are_chosen_and_the_same_again(browser: WebDriver, photos: list[Path]) -> None:
    for count in (1, 2):
        browser.find_element(By.ID, "files").send_keys(str(photos[0]))
        cards = wait_for_cards(browser, count)
    assert [card.verdict[:3] for card in cards] == ["red", "red"]


def test_a_sample_takes_one_click(browser: WebDriver) -> None:
    classify_samples(browser, ("rose.jpg",))
    (card,) = read_cards(browser)
    assert card.file == "rose.jpg"
    assert card.state in ("sure", "unsure", "refused")


def test_more_photos_than_are_taken_are_left_out_with_a_note(browser: WebDriver, tmp_path: Path) -> None:
    blue = make_photo((5, 5, 250), "PNG")
    send_files(browser, "drop", write(tmp_path, {f"{number}.png": blue for number in range(23)}))
    cards = wait_for_cards(browser, 20)
    assert {card.verdict[:4] for card in cards} == {"blue"}
    assert browser.find_element(By.ID, "left-out").text == "The first 20 photos are looked at; 3 more are left out."


def test_a_photo_that_is_too_large_is_not_even_sent(browser: WebDriver, tmp_path: Path) -> None:
    send_files(browser, "drop", write(tmp_path, {"large.jpg": b"\xff" * 10_000_001}))
    (card,) = wait_for_cards(browser, 1)
    assert card.note == "This photo is larger than 10 MB. Send a smaller copy."


def test_a_name_with_html_stays_a_name(browser: WebDriver, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>.jpg"
    send_files(browser, "drop", write(tmp_path, {name: RED}))
    (card,) = wait_for_cards(browser, 1)
    assert card.file == name
    assert len(browser.find_elements(By.CSS_SELECTOR, ".card img")) == 1


def test_the_keyboard_is_enough(browser: WebDriver) -> None:
    """Tab goes over every control, each is visible when it has the focus, and Enter chooses a sample."""
    reached = []
    for _ in range(12):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        focused = browser.switch_to.active_element
        reached.append(focused.get_attribute("id") or focused.get_attribute("value") or focused.text)
        if focused.get_attribute("value") == "tulip.jpg":
            ActionChains(browser).send_keys(Keys.ENTER).perform()
            break
    assert reached[0] == "Skip to the content"
    assert "files" in reached
    (card,) = wait_for_cards(browser, 1)
    assert card.file == "tulip.jpg"


def test_a_screen_reader_gets_the_result(browser: WebDriver, photos: list[Path]) -> None:
    announcer = browser.find_element(By.ID, "announcer")
    assert announcer.get_attribute("aria-live") == "polite"
    send_files(browser, "drop", photos[:1])
    wait_for_cards(browser, 1)
    assert str(announcer.get_property("textContent")).startswith("red.jpg: red, 9")


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_is_wider_than_the_screen(browser: WebDriver, photos: list[Path], page: Page, screen: Screen) -> None:
    set_screen(browser, screen)
    browser.get(page.url + "/model")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= screen.width_px
    browser.get(page.url)
    send_files(browser, "drop", photos)
    wait_for_cards(browser, 4)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= screen.width_px


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A photo of none of the colours, one of two, and one of one."""
    return write(tmp_path_factory.mktemp("strange"), {"grey.jpg": GREY, "yellow.jpg": YELLOW, "red.jpg": RED})


def check_limits(cards: Sequence[Card]) -> None:
    """Check what a person reads of the three."""
    grey, yellow, red = cards
    assert grey.verdict == "This does not look like any of the three."
    assert grey.note == "Only 1 in 277 known photos looks so unlike the others."
    assert re.fullmatch(r"It resembles (red|green|blue) most, with 33\.\d\s%\.", grey.hint)
    assert set(grey.bars) == {"red", "green", "blue"}
    assert re.search(r"Probably one of: (red, green|green, red)\.$", yellow.note)
    assert yellow.hint.startswith("Such a list holds the right one for 95 of 100 photos like those")
    assert (red.verdict[:5], red.note, red.hint) == ("red 9", "", "")


def test_a_photo_of_none_of_the_classes_is_said_to_be_that(
    chromium: WebDriver, limits_page: Page, strange: list[Path]
) -> None:
    set_screen(chromium, DESKTOP)
    chromium.get(limits_page.url)
    send_files(chromium, "drop", strange)
    cards = wait_for_cards(chromium, 3)
    assert [card.state for card in cards[::2]] == ["refused", "sure"]
    check_limits(cards)
    lines = [chromium.find_element(By.CSS_SELECTOR, f".refused {part}") for part in (".verdict", ".note", ".hint")]
    tops = [line.location["y"] for line in lines]
    assert tops == sorted(set(tops)), "what it resembles comes last"
    assert all(line.is_displayed() for line in lines)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("grey.jpg", "grey.jpg: This does not look like any of the three. Only 1 in 277 known photos looks so unlike"),
        ("yellow.jpg", "Probably one of: "),
    ],
)
def test_a_screen_reader_gets_the_limits(
    chromium: WebDriver, limits_page: Page, strange: list[Path], name: str, said: str
) -> None:
    chromium.get(limits_page.url)
    send_files(chromium, "drop", [path for path in strange if path.name == name])
    wait_for_cards(chromium, 1)
    assert said in str(chromium.find_element(By.ID, "announcer").get_property("textContent"))


def test_without_javascript_the_limits_are_the_same(limits_page: Page, strange: list[Path]) -> None:
    with open_browser(has_script=False) as browser:
        browser.get(limits_page.url)
        browser.find_element(By.ID, "files").send_keys("\n".join(map(str, strange)))
        browser.find_element(By.CSS_SELECTOR, "button.no-script").click()
        check_limits(wait_for_cards(browser, 3))


@needs_axe
@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_where_photos_are_strange(
    chromium: WebDriver, limits_page: Page, strange: list[Path], screen: Screen, is_dark: bool
) -> None:
    set_screen(chromium, replace(screen, is_dark=is_dark))
    chromium.get(limits_page.url)
    kept, choice = chromium.find_element(By.CLASS_NAME, "kept"), chromium.find_element(By.CLASS_NAME, "buttons")
    assert kept.is_displayed()
    assert kept.location["y"] < choice.location["y"]
    send_files(chromium, "drop", strange)
    wait_for_cards(chromium, 3)
    assert find_violations(chromium) == []
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= screen.width_px
    chromium.get(limits_page.url + "/model")
    assert find_violations(chromium) == []


@needs_axe
@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing(browser: WebDriver, photos: list[Path], page: Page, screen: Screen, is_dark: bool) -> None:
    set_screen(browser, replace(screen, is_dark=is_dark))
    browser.get(page.url)
    assert find_violations(browser) == []
    send_files(browser, "drop", photos)
    wait_for_cards(browser, 4)
    assert find_violations(browser) == []
    browser.get(page.url + "/model")
    assert find_violations(browser) == []


def test_the_page_loads_nothing_from_another_host(browser: WebDriver, page: Page, photos: list[Path]) -> None:
    send_files(browser, "drop", photos[:1])
    wait_for_cards(browser, 1)
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert loaded
    assert {url for url in loaded if not url.startswith((page.url, f"blob:{page.url}"))} == set()


def test_without_javascript_a_form_does_the_same(page: Page, photos: list[Path]) -> None:
    with open_browser(has_script=False) as browser:
        browser.get(page.url)
        browser.find_element(By.ID, "files").send_keys("\n".join(map(str, photos)))
        browser.find_element(By.CSS_SELECTOR, "button.no-script").click()
        red, broken, green, grey = wait_for_cards(browser, 4)
        assert not browser.find_elements(By.CSS_SELECTOR, "html.js")
        assert len(browser.find_elements(By.CSS_SELECTOR, '.card img[src^="data:image/jpeg"]')) == 3
        assert (red.file, red.verdict[:5], green.verdict[:7]) == ("red.jpg", "red 9", "green 9")
        assert broken.note == "This photo is damaged, or was cut short on its way. Send the original again."
        assert grey.verdict == "Not sure"
        assert is_in_view(browser, ".card .verdict"), "a person sees the result without searching for it"
        browser.find_element(By.CSS_SELECTOR, '[value="daisy.jpg"]').click()
        (sample,) = wait_for_cards(browser, 1)
        assert sample.file == "daisy.jpg"
        browser.find_element(By.ID, "files").send_keys("\n".join([str(photos[0])] * 21))
        browser.find_element(By.CSS_SELECTOR, "button.no-script").click()
        wait_for(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "p[role=alert]"))
        alert = browser.find_element(By.CSS_SELECTOR, "p[role=alert]")
        assert alert.text == "A request may hold 20 photos, and this one holds more. Send fewer at once."


def is_in_view(browser: WebDriver, selector: str) -> bool:
    """Return whether the first such element is on the screen as it is scrolled."""
    script = "const box = arguments[0].getBoundingClientRect(); return box.top >= 0 && box.bottom <= innerHeight"
    return bool(browser.execute_script(script, browser.find_element(By.CSS_SELECTOR, selector)))


def test_the_page_requests_the_token(chromium: WebDriver, photos: list[Path], model_path: Path, tmp_path: Path) -> None:
    env = {"CLASSIFIER_WEB_TOKEN": "secret"}
    with start_page(tmp_path / "page.log", "--tflite", model_path, env=env) as page:
        chromium.get(page.url)
        send_files(chromium, "drop", photos[:1])
        (card,) = wait_for_cards(chromium, 1)
        assert card.note == "Photos are looked at for those who have the access token. Enter it, and try again."
        chromium.switch_to.active_element.send_keys("secret")
        assert chromium.find_element(By.ID, "token").get_property("value") == "secret"
        chromium.find_element(By.CSS_SELECTOR, ".again").click()
        wait_for(chromium, lambda: read_cards(chromium)[0].verdict.startswith("red 9"))


def test_when_the_model_comes_back_waiting_photos_are_classified(
    chromium: WebDriver, photos: list[Path], tmp_path: Path
) -> None:
    port = free_port()
    with start_page(tmp_path / "page.log", "--rest", f"127.0.0.1:{port}", "--poll-s", 0.2) as page:
        chromium.get(page.url)
        gone = chromium.find_element(By.ID, "model-gone")
        assert gone.is_displayed()
        send_files(chromium, "drop", photos[:1])
        wait_for(chromium, lambda: "The model does not answer" in read_cards(chromium)[0].note)
        with FakeRest(port):
            (card,) = wait_for_cards(chromium, 1)
            assert card.verdict == "tulip 75.0 %"
            wait_for(chromium, lambda: not gone.is_displayed())


def test_the_screenshots_can_be_renewed(tmp_path: Path, models_dir: Path) -> None:
    assert screenshots.main(["--models-dir", str(models_dir), "--out", str(tmp_path)]) == 0
    for name, screen in SCREENS.items():
        path = tmp_path / f"web-{name}.png"
        assert path.stat().st_size < 150_000
        with Image.open(path) as image:
            assert image.width == screen.width_px
