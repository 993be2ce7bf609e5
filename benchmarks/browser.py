"""A LiteRT file in a browser beside the same file in Python: are predictions the same, and what do they cost?

The browser is a headless Chromium with the files of `python -m export.web_app`, LiteRT's WebAssembly on one thread;
Python is the thin client, on one thread too. Both begin with an encoded photo.
"""

import base64
import functools
import http.server
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from selenium.webdriver.remote.webdriver import WebDriver

from benchmarks import photos
from benchmarks.peak import describe_shares, read_multiply_adds, share_of_peak
from client.browser.runtime import RuntimeMissingError, download
from client.classifier_client import Client, ImageError, LiteRTTransport, Prediction, preprocessing
from export.web_app import write_web_app
from serving.web.screenshots import find_browser, open_browser

SCRIPT_S = 300
MAX_LEVELS = 2
"""Of grey, that a pixel may differ by."""

_LOAD = """
const done = arguments[0];
import(new URL('classifier.js', location)).then(({load}) => load())
  .then((classifier) => { window.classifier = classifier; done(classifier.info); }, (error) => done(String(error)));
"""
_CLASSIFY = """
const [urls, done] = arguments;
(async () => {
  const results = [];
  for (const url of urls) {
    const photo = await (await fetch(url)).blob();
    results.push(await classifier.classify(photo, {name: url}).catch((error) => ({error: error.message})));
  }
  return results;
})().then(done, (error) => done(String(error)));
"""
_DECODE = """
const [urls, sizePx, done] = arguments;
(async () => {
  const {toPixels} = await import(new URL('pixels.js', location));
  const results = [];
  for (const url of urls) {
    const photo = await (await fetch(url)).blob();
    const startMs = performance.now();
    const pixels = await toPixels(photo, sizePx).catch((error) => error.message);
    const elapsedMs = performance.now() - startMs;
    const pack = () => btoa(Array.from(pixels, (value) => String.fromCharCode(value)).join(''));
    results.push({elapsedMs, pixels: typeof pixels === 'string' ? pixels : pack()});
  }
  return results;
})().then(done, (error) => done(String(error)));
"""


@dataclass(frozen=True)
class Agreement:
    """How alike browser and Python are on photos.

    Attributes:
        num_photos: compared.
        same_label: share of them with the same most probable class.
        same_limits: share with the same p-value, verdict and prediction set; NaN where the model has none.
        mean_difference: of all probabilities.
        within_levels: share of the pixels' values that differ by at most `MAX_LEVELS`.
        max_levels: the greatest difference.
    """

    num_photos: int
    same_label: float
    same_limits: float
    mean_difference: float
    within_levels: float
    max_levels: int


@contextmanager
def serve_folder(folder: Path, *, port: int = 0) -> Iterator[str]:
    """Serve a folder as any static host does, for as long as the block lasts; yield its URL, without a slash."""
    handler = functools.partial(_Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def load_model(browser: WebDriver, url: str) -> float:
    """Open a web app's folder in a browser, and load its model; return the seconds until it is ready."""
    browser.set_script_timeout(SCRIPT_S)
    start_s = time.perf_counter()
    browser.get(f"{url}/blank.html")
    info = browser.execute_async_script(_LOAD)
    if isinstance(info, str):
        raise RuntimeError(f"The model must load in the browser. It says: {info}")
    return time.perf_counter() - start_s


def classify(browser: WebDriver, urls: Sequence[str]) -> list[dict[str, Any]]:
    """Classify photos in the browser: predictions as the page's API has them."""
    return browser.execute_async_script(_CLASSIFY, list(urls))


def decode(browser: WebDriver, urls: Sequence[str], size_px: int) -> list[tuple[NDArray[np.uint8] | str, float]]:
    """Return the pixels `uint8 [size_px, size_px, 3]` of each photo, or why there are none, and the milliseconds."""
    found = browser.execute_async_script(_DECODE, list(urls), size_px)
    return [(_to_pixels(each["pixels"], size_px), each["elapsedMs"]) for each in found]


def _to_pixels(content: str, size_px: int) -> NDArray[np.uint8] | str:
    try:
        return np.frombuffer(base64.b64decode(content, validate=True), np.uint8).reshape(size_px, size_px, 3)
    except ValueError:
        return content


def measure(data: str, file: Path, *, elsewhere: Path | None = None) -> None:
    """Print how alike browser and Python are, and what a photo costs.

    Args:
        data: a folder `{train,validation,test}/<class>/*.jpg`, or `synthetic`.
        file: a LiteRT file.
        elsewhere: further photos, a folder `<class>/*.jpg`.
    """
    if find_browser() is None:
        print("browser: left out, needs Chromium and chromedriver (Debian: chromium chromium-driver)")
        return
    try:
        download()
    except RuntimeMissingError as exc:
        print(f"browser: left out. {exc}")
        return
    with photos.folder(data) as folder:
        paths = {"test": sorted(folder.glob("test/*/*.jpg"))}
        if elsewhere:
            paths[elsewhere.name] = sorted(elsewhere.glob("*/*.jpg"))
        for name, found in paths.items():
            agreement, times_ms, starts_s = compare(file, found)
            print(f"browser {file.name} {name}: {agreement}")
            costs = ", ".join(f"{key} {statistics.median(values):.1f}" for key, values in times_ms.items())
            of_file, _ = read_multiply_adds(file)
            rates = (1000 / statistics.median(times_ms[side]) for side in ("browser", "python"))
            shares = describe_shares(*(share_of_peak(of_file, rate, num_threads=1) for rate in rates))
            starts = f"first visit {starts_s[0]:.2f} s, later {starts_s[1]:.2f} s"
            print(f"browser {file.name} {name}: p50 ms: {costs}; {starts}; {shares}")


def compare(file: Path, paths: Sequence[Path]) -> tuple[Agreement, dict[str, list[float]], tuple[float, float]]:
    """Classify photos in a browser and in Python.

    Returns:
        How alike they are; the milliseconds of each photo, by what was done; and the seconds to the first prediction on
        the first visit and on a later one.
    """
    with tempfile.TemporaryDirectory() as name, open_browser() as browser:
        folder = Path(name)
        write_web_app(folder, file)
        (folder / "blank.html").write_text("<!doctype html><title>blank</title>")
        urls = [f"photos/{number}.jpg" for number in range(len(paths))]
        (folder / "photos").mkdir()
        for path, photo_url in zip(paths, urls, strict=True):
            (folder / photo_url).symlink_to(path.resolve())
        transport = LiteRTTransport(file, num_threads=1)
        size_px = transport.image_size_px()
        with serve_folder(folder) as url, Client(transport) as client:
            starts_s = _visit(browser, url, urls), _visit(browser, url, urls)
            times_ms: dict[str, list[float]] = {
                key: [] for key in ("browser", "browser_decoding", "python", "python_decoding")
            }
            results, predictions, levels = [], [], []
            for path, photo_url in zip(paths, urls, strict=True):
                ((pixels, elapsed_ms),) = decode(browser, [photo_url], size_px)
                times_ms["browser_decoding"].append(elapsed_ms)
                start_s = time.perf_counter()
                expected = np.asarray(preprocessing.load(path, name=path.name, size_px=size_px))
                times_ms["python_decoding"].append((time.perf_counter() - start_s) * 1000)
                levels.append(np.abs(np.asarray(pixels, np.int16) - expected))
                (result,) = classify(browser, [photo_url])
                results.append(result)
                times_ms["browser"].append(result["latency_ms"])
                start_s = time.perf_counter()
                (prediction,) = client.classify(path)
                times_ms["python"].append((time.perf_counter() - start_s) * 1000)
                if isinstance(prediction, ImageError):
                    raise prediction
                predictions.append(prediction)
    return _compare(results, predictions, np.stack(levels)), times_ms, starts_s


def _visit(browser: WebDriver, url: str, urls: Sequence[str]) -> float:
    """Return the seconds from opening a page to its first prediction."""
    start_s = time.perf_counter()
    load_model(browser, url)
    classify(browser, urls[:1])
    return time.perf_counter() - start_s


def _compare(
    results: Sequence[dict[str, Any]], predictions: Sequence[Prediction], levels: NDArray[np.int16]
) -> Agreement:
    def limits_of(result: dict[str, Any]) -> list[Any]:
        return [result["is_known"], sorted(result["prediction_set"]), round(result["p_value"], 6)]

    pairs = list(zip(results, [vars(prediction) for prediction in predictions], strict=True))
    has_limits = predictions[0].p_value is not None
    same_limits = [limits_of(one) == limits_of(other) for one, other in pairs] if has_limits else [float("nan")]
    differences = [
        abs(one["probabilities"][label] - probability)
        for one, other in pairs
        for label, probability in other["probabilities"].items()
    ]
    return Agreement(
        num_photos=len(pairs),
        same_label=statistics.mean(one["label"] == other["label"] for one, other in pairs),
        same_limits=statistics.mean(same_limits),
        mean_difference=statistics.mean(differences),
        within_levels=float(np.mean(levels <= MAX_LEVELS)),
        max_levels=int(levels.max()),
    )
