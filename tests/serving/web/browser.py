"""What the browser tests do with a page: drop, paste and read, as a person does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

from serving.web.screenshots import find_browser

WAIT_S = 30
needs_browser = pytest.mark.skipif(
    find_browser() is None, reason="needs Chromium and chromedriver (Debian: chromium chromium-driver)"
)
AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
needs_axe = pytest.mark.skipif(
    not AXE.is_file(), reason="needs axe-core (npm ci --prefix tests/serving/web --ignore-scripts)"
)

# A driver cannot drop files of the system: an input of the test's own takes them, and their event is the page's.
_ADD_INPUT = """
const input = document.createElement('input');
input.type = 'file'; input.multiple = true; input.id = 'test-files';
document.body.append(input);
return input;
"""
_SEND = """
const input = document.getElementById('test-files');
const transfer = new DataTransfer();
for (const file of input.files) transfer.items.add(file);
input.remove();
const options = {bubbles: true, cancelable: true};
document.getElementById('form').dispatchEvent(arguments[0] === 'paste'
  ? new ClipboardEvent('paste', {...options, clipboardData: transfer})
  : new DragEvent(arguments[0], {...options, dataTransfer: transfer}));
"""


@dataclass(frozen=True)
class Card:
    """What a person reads on a photo's card."""

    file: str
    state: str
    verdict: str
    note: str
    hint: str
    bars: dict[str, str]
    meta: str


def send_files(browser: WebDriver, event: str, files: Sequence[Path]) -> None:
    """Drop or paste files."""
    browser.execute_script(_ADD_INPUT).send_keys("\n".join(map(str, files)))
    browser.execute_script(_SEND, event)


def read_cards(browser: WebDriver) -> list[Card]:
    """Read all cards, in their order on the page."""
    return [_read_card(card) for card in browser.find_elements(By.CSS_SELECTOR, "#results > .card")]


def wait_for_cards(browser: WebDriver, count: int) -> list[Card]:
    """Wait until so many photos have a prediction, or an error; return the cards."""
    wait_for(browser, lambda: len(_find_done(browser)) == count)
    return read_cards(browser)


def wait_for(browser: WebDriver, condition: Callable[[], Any]) -> None:
    WebDriverWait(browser, WAIT_S, poll_frequency=0.05).until(lambda _: condition())


def find_violations(browser: WebDriver) -> list[str]:
    """Check the page with axe-core; return the violations, each with its impact and the elements."""
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    found = browser.execute_async_script("axe.run().then(arguments[0])")
    return [
        f"{violation['impact']}: {violation['id']}, {violation['help']}: "
        + "; ".join(node["html"][:200] for node in violation["nodes"])
        for violation in found["violations"]
    ]


def _find_done(browser: WebDriver) -> list[Any]:
    return browser.find_elements(By.CSS_SELECTOR, "#results > :is(.sure, .unsure, .refused, .failed)")


def _read_card(card: Any) -> Card:
    def text(selector: str) -> str:
        return str(card.find_element(By.CSS_SELECTOR, selector).get_property("textContent")).strip()

    def read_all(selector: str) -> list[str]:
        return [str(found.get_property("textContent")) for found in card.find_elements(By.CSS_SELECTOR, selector)]

    return Card(
        file=text(".file"),
        state=card.get_attribute("data-state") or "",
        verdict=" ".join(text(".verdict").split()),
        note=" ".join(text(".note").split()),
        hint=" ".join(text(".hint").split()),
        bars=dict(zip(read_all(".bars .label"), read_all(".bars .share"), strict=True)),
        meta=text(".meta"),
    )
