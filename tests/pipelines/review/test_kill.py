"""The server is killed at any moment, and no decision that it confirmed is lost, nor one that is sent again doubled."""

import json
import logging
import random
import threading
from pathlib import Path

import pytest
import requests

from tests.client.fakes import free_port
from tests.pipelines.review.conftest import start_review
from tests.pipelines.review.drawn_run import DrawnRun

log = logging.getLogger(__name__)

CALL_S = 10


class Person(threading.Thread):
    """Sends decisions as the page does: one after the other, each again until it is confirmed."""

    def __init__(self, name: str, url: str, photos: list[str]) -> None:
        super().__init__(daemon=True)
        self.client, self.url, self.photos = name, url, photos
        self.confirmed: list[str] = []
        self.is_ending = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.is_ending.is_set():
            number += 1
            photo = self.photos[number % len(self.photos)]
            body = {"id": f"{self.client}.{number}", "sha256": photo, "photo": "1.jpg", "who": self.client}
            body |= {"decision": "label", "label": f"class {number % 5}"}
            while not self._send(body):
                if self.is_ending.wait(0.02):
                    return
            self.confirmed.append(body["id"])

    def _send(self, body: dict[str, str]) -> bool:
        try:
            response = requests.post(f"{self.url}/api/decisions", json=body, timeout=CALL_S)
        except requests.RequestException:
            return False
        return response.status_code == 200


def kill_often(run: DrawnRun, labels: Path, *, num_kills: int, seed: int) -> None:
    chance = random.Random(seed)
    port = free_port()
    people = [Person(name, f"http://127.0.0.1:{port}", run.photos) for name in ("ada", "ben")]
    for person in people:
        person.start()
    for _ in range(num_kills):
        num_before = sum(len(person.confirmed) for person in people)
        with start_review(run.runs_dir, labels, port=port) as review:
            threading.Event().wait(chance.uniform(0, 0.4))
            review.process.kill()
            review.process.wait()
        assert sum(len(person.confirmed) for person in people) >= num_before
    with start_review(run.runs_dir, labels, port=port):
        for person in people:
            person.is_ending.set()
            person.join(CALL_S)
    ids = [json.loads(line)["id"] for line in labels.read_text().splitlines()]
    confirmed = [each for person in people for each in person.confirmed]
    assert len(confirmed) > 2 * num_kills
    assert len(ids) == len(set(ids)), "a decision that is sent again is one line"
    assert set(confirmed) <= set(ids)
    log.info("seed %d: %d kills, %d confirmed decisions, none lost, none doubled", seed, num_kills, len(confirmed))


def test_no_confirmed_decision_is_lost(run: DrawnRun, tmp_path: Path) -> None:
    kill_often(run, tmp_path / "labels.jsonl", num_kills=5, seed=1)


@pytest.mark.slow
def test_no_confirmed_decision_is_lost_in_a_hundred_kills(run: DrawnRun, tmp_path: Path) -> None:
    kill_often(run, tmp_path / "labels.jsonl", num_kills=100, seed=2)
