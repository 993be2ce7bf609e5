"""Renew the README's screenshots: `python -m serving.web.screenshots [--models-dir models] [--out docs]`.

Starts the service, classifies a sample photo in a headless Chromium (with its chromedriver), and writes PNGs.
"""

import argparse
import base64
import io
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

from serving.web.errors import StartError
from serving.web.launcher import start_page

log = logging.getLogger(__name__)

NUM_BITS = 6
"""Of each colour: a PNG of photos loses nothing visible, and stays below 150 KB."""

SAMPLES = ("daisy.jpg",)


@dataclass(frozen=True)
class Screen:
    """A screen to show a page on."""

    width_px: int
    height_px: int
    is_dark: bool = False
    is_phone: bool = False


SCREENS = {"desktop": Screen(960, 700), "phone": Screen(360, 700, is_dark=True, is_phone=True)}

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_WAIT_S = 30


def find_browser() -> tuple[str, str] | None:
    """Return the paths of a Chromium and of its chromedriver; `None` where either is missing."""
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextmanager
def open_browser(*, has_script: bool = True) -> Iterator[WebDriver]:
    """Open a headless Chromium for as long as the block lasts.

    Raises:
        StartError: there is none.
    """
    found = find_browser()
    if found is None:
        raise StartError("This needs Chromium and chromedriver. Install them, in Debian: chromium chromium-driver.")
    browser, driver = found
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    # Containers have little shared memory, and no rights for a sandbox of their own.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--lang=en"):
        options.add_argument(argument)
    if not has_script:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield opened
    finally:
        opened.quit()


def set_screen(browser: WebDriver, screen: Screen) -> None:
    """Emulate a screen."""
    metrics = {"width": screen.width_px, "height": screen.height_px, "deviceScaleFactor": 1, "mobile": screen.is_phone}
    scheme = {"name": "prefers-color-scheme", "value": "dark" if screen.is_dark else "light"}
    _command(browser, "Emulation.setDeviceMetricsOverride", metrics)
    _command(browser, "Emulation.setTouchEmulationEnabled", {"enabled": screen.is_phone})
    _command(browser, "Emulation.setEmulatedMedia", {"features": [scheme]})


def take(browser: WebDriver) -> Image.Image:
    """Take a screenshot of a whole page, however long it is."""
    response = _command(browser, "Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"})
    return Image.open(io.BytesIO(base64.b64decode(response["data"])))


def classify_samples(browser: WebDriver, names: Sequence[str]) -> None:
    """Click samples and wait for their results."""
    for count, name in enumerate(names, start=1):
        browser.find_element(By.CSS_SELECTOR, f'[value="{name}"]').click()
        WebDriverWait(browser, _WAIT_S).until(lambda _, count=count: _count_results(browser) == count)  # type: ignore[misc]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the screenshots; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="python -m serving.web.screenshots", description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=Path("models"), help="pushed models (default: models)")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder to write to (default: docs)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        with start_page("--models-dir", str(options.models_dir)) as url, open_browser() as browser:
            for name, screen in SCREENS.items():
                set_screen(browser, screen)
                browser.get(url)
                classify_samples(browser, SAMPLES)
                path = options.out / f"web-{name}.png"
                ImageOps.posterize(take(browser).convert("RGB"), NUM_BITS).save(path, optimize=True)
                log.info("%s: %d KB", path, path.stat().st_size // 1000)
    except StartError as exc:
        log.error("error: %s", exc)
        return 1
    return 0


def _count_results(browser: WebDriver) -> int:
    return len(browser.find_elements(By.CSS_SELECTOR, ".card:is(.sure, .unsure, .refused, .failed)"))


def _command(browser: WebDriver, name: str, parameters: Mapping[str, object]) -> Any:
    return browser.execute_cdp_cmd(name, dict(parameters))  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
