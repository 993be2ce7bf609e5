"""A person goes through very many suspects: the next photo stays quick, and the memory flat."""

import logging
import statistics
import time
from pathlib import Path

import pytest

from tests.pipelines.review.conftest import start_review
from tests.pipelines.review.drawn_run import write_run
from tests.serving.web.conftest import read_memory

log = logging.getLogger(__name__)

MAX_P95_S = 0.1
MAX_BYTES_A_DECISION = 1500
"""What counts for each photo is kept in memory: who decided what."""


def go_through(tmp_path: Path, *, num_photos: int, num_warm: int) -> None:
    run = write_run(tmp_path / "runs", num_photos)
    seconds: list[float] = []
    sizes: list[int] = []
    with start_review(run.runs_dir, tmp_path / "labels.jsonl") as review:
        for number in range(num_photos):
            start_s = time.perf_counter()
            found = review.take("ada")
            photo = found["item"]["sha256"]
            assert review.get(f"/photos/{photo}").status_code == 200
            seconds.append(time.perf_counter() - start_s)
            assert photo == run.photos[number]
            assert review.decide("ada", photo, "roses").status_code == 200
            if number in (num_warm, num_photos - 1):
                sizes.append(read_memory(review))  # type: ignore[arg-type]
        assert review.take("ada")["left"] == 0
    p95_s = statistics.quantiles(seconds, n=20)[-1]
    growth = (sizes[1] - sizes[0]) / (num_photos - num_warm)
    log.info(
        "%d suspects: next photo and its image in %.1f ms at the median, %.1f ms at p95; "
        "memory %.1f MB after %d, %.1f MB after all: %.0f bytes a decision",
        num_photos,
        1000 * statistics.median(seconds),
        1000 * p95_s,
        sizes[0] / 1e6,
        num_warm,
        sizes[1] / 1e6,
        growth,
    )
    assert p95_s < MAX_P95_S
    assert growth < MAX_BYTES_A_DECISION


@pytest.mark.slow
def test_ten_thousand_suspects_page_smoothly_in_flat_memory(tmp_path: Path) -> None:
    go_through(tmp_path, num_photos=10_000, num_warm=1_000)


def test_the_next_photo_is_quick_among_ten_thousand(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", 10_000, size_px=16)
    with start_review(run.runs_dir, tmp_path / "labels.jsonl") as review:
        seconds: list[float] = []
        for number in range(60):
            start_s = time.perf_counter()
            photo = review.take("ada")["item"]["sha256"]
            assert review.get(f"/photos/{photo}").status_code == 200
            seconds.append(time.perf_counter() - start_s)
            assert photo == run.photos[number]
            assert review.decide("ada", photo, "roses").status_code == 200
        assert statistics.quantiles(seconds, n=20)[-1] < MAX_P95_S
