"""What the browser tests do with the review page: decide and read, as a person does."""

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver

from tests.pipelines.review.conftest import Review
from tests.serving.web.browser import wait_for


def open_page(browser: WebDriver, url: str) -> None:
    browser.get(url)
    enter_name(browser)
    wait_for(browser, lambda: shown(browser))


def enter_name(browser: WebDriver) -> None:
    browser.find_element(By.CSS_SELECTOR, "#who-dialog button").click()


def press(browser: WebDriver, *keys: str) -> None:
    for key in keys:
        ActionChains(browser).send_keys(key).perform()


def shown(browser: WebDriver) -> str:
    """Return the SHA-256 of the photo that is shown; empty where there is none."""
    return str(
        browser.execute_script("return document.querySelector('#frame img')?.src.split('/').pop() ?? ''")  # type: ignore[no-untyped-call]
    )


def decide(browser: WebDriver, *keys: str) -> None:
    """Press keys, each when a photo is there: what is pressed before one is shown is no decision."""
    for key in keys:
        before = shown(browser)
        press(browser, key)
        wait_for(browser, lambda before=before: shown(browser) != before)  # type: ignore[misc]
        wait_for(browser, lambda: browser.execute_script("return current !== null"))


def read(browser: WebDriver, element: str) -> str:
    return browser.find_element(By.ID, element).text


def wait_for_photo(browser: WebDriver, sha256: str) -> None:
    wait_for(browser, lambda: shown(browser) == sha256)


def wait_for_lines(browser: WebDriver, review: Review, count: int) -> None:
    """Wait until so many decisions are in the file, and the page says that they are saved."""
    wait_for(browser, lambda: len(review.decisions()) == count)
    wait_for(browser, lambda: browser.execute_script("return outbox.waiting.length") == 0)
