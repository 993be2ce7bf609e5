"""The web page's API beside direct calls of the same LiteRT file: the cost of HTTP, limits and the queue.

Both sides classify in turns, each from an encoded photo on. The direct call is the thin client in this process; the
page is called from this process too, on the same processors as the service.
"""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import requests

from benchmarks import photos
from benchmarks.peak import MultiplyAdds, read_multiply_adds, share_of_peak
from benchmarks.serving import elapsed_ms, report
from client.classifier_client import Client, ImageError, LiteRTTransport
from serving.web.launcher import start_page

NUM_PHOTOS = 64
NUM_ROUNDS = 5
CALLS_A_ROUND = 20
NUM_CLIENTS = 8
ROUND_S = 4.0

Classify = Callable[[bytes], Any]


def measure(data: str, file: Path) -> None:
    """Print the ratios of the page.

    Args:
        data: a folder `{train,validation,test}/<class>/*.jpg`, or `synthetic`.
        file: a LiteRT file.
    """
    limits = ("--photos-per-minute", "1000000", "--requests-per-client", str(NUM_CLIENTS))
    with (
        photos.folder(data) as folder,
        Client(LiteRTTransport(file)) as client,
        start_page("--tflite", str(file), *limits) as url,
        requests.Session() as session,
    ):
        encoded = [path.read_bytes() for path in sorted(folder.glob("test/*/*.jpg"))[:NUM_PHOTOS]]
        session.trust_env = False
        sides: dict[str, Classify] = {"ours": _classify_over_http(session, url), "peer": _classify_directly(client)}
        of_file, _ = read_multiply_adds(file)
        _measure_latency(sides, encoded, of_file)
        _measure_throughput(sides, encoded, of_file)


def _classify_over_http(session: requests.Session, url: str) -> Classify:
    def classify(photo: bytes) -> None:
        session.post(f"{url}/api/classify", data=photo, timeout=30).raise_for_status()

    return classify


def _classify_directly(client: Client) -> Classify:
    def classify(photo: bytes) -> None:
        (result,) = client.classify(photo)
        if isinstance(result, ImageError):
            raise result

    return classify


def _measure_latency(sides: dict[str, Classify], encoded: list[bytes], of_file: MultiplyAdds) -> None:
    times: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(NUM_ROUNDS):
        for side, classify in sides.items():
            for call in range(CALLS_A_ROUND):
                photo = encoded[(number * CALLS_A_ROUND + call) % len(encoded)]
                times[side].append(elapsed_ms(classify, photo))
    ours, peer = (statistics.median(found) for found in times.values())
    shares = [share_of_peak(of_file, 1000 / taken_ms) for taken_ms in (ours, peer)]
    report("web, a photo over the page's API (ms)", ours, "the client, in process", peer, shares=shares)


def _measure_throughput(sides: dict[str, Classify], encoded: list[bytes], of_file: MultiplyAdds) -> None:
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(NUM_ROUNDS):
        for side, classify in sides.items():
            end_s = time.monotonic() + ROUND_S
            with ThreadPoolExecutor(NUM_CLIENTS) as pool:
                running = [
                    pool.submit(_classify_until, end_s, classify, encoded[first:]) for first in range(NUM_CLIENTS)
                ]
                rates[side].append(sum(future.result() for future in running) / ROUND_S)
    ours, peer = (statistics.median(found) for found in rates.values())
    shares = [share_of_peak(of_file, rate) for rate in (ours, peer)]
    report(f"web, photos a second of {NUM_CLIENTS} clients", ours, "the client, in process", peer, shares=shares)


def _classify_until(end_s: float, classify: Classify, encoded: list[bytes]) -> int:
    """Classify without a pause until a time of `time.monotonic`; return how often."""
    num_classified = 0
    for photo in cycle(encoded):
        if time.monotonic() > end_s:
            break
        classify(photo)
        num_classified += 1
    return num_classified
