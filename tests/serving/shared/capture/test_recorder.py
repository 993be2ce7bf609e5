import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.shared.capture.recorder import Recorder
from tests.serving.shared.capture.test_writer import NOW_S, make_options, read
from tests.serving.web.conftest import wait_until


class Clock:
    """A clock that stands."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def record(folder: Path, **options: Any) -> Iterator[tuple[Recorder, "Counter[bool]", Clock]]:
    counts: Counter[bool] = Counter()
    clock = Clock()
    recorder = Recorder(
        make_options(folder, **options), count=lambda name, is_captured: counts.update([is_captured]), clock=clock
    )
    try:
        yield recorder, counts, clock
    finally:
        recorder.close()


def make(data: bytes) -> Callable[[float], bytes]:
    return lambda when_s: data


def test_records_are_written_with_the_time_at_which_they_were_offered(tmp_path: Path) -> None:
    with record(tmp_path) as (recorder, counts, clock):
        for second in range(3):
            clock.now_s = NOW_S + second
            recorder.offer("flowers", lambda when_s: str(when_s).encode(), 1)
    assert [float(data) for data in read(tmp_path)] == [NOW_S, NOW_S + 1, NOW_S + 2]
    assert counts == {True: 3}


def test_a_share_of_requests_is_chosen(tmp_path: Path) -> None:
    for rate, least, most in ((0, 0, 0), (0.1, 800, 1200), (1, 10_000, 10_000)):
        with record(tmp_path, rate=rate) as (recorder, _, _):
            assert least <= sum(recorder.chooses() for _ in range(10_000)) <= most


@pytest.mark.parametrize(("num_bytes", "num_waiting"), [(1, 256), (10_000_000, 6)])
def test_a_full_queue_drops_and_counts_and_nobody_waits(tmp_path: Path, num_bytes: int, num_waiting: int) -> None:
    is_writing, may_write = threading.Event(), threading.Event()

    def hold(when_s: float) -> bytes:
        is_writing.set()
        may_write.wait()
        return b"first"

    with record(tmp_path) as (recorder, counts, _):
        recorder.offer("flowers", hold, num_bytes)
        is_writing.wait()
        for _ in range(num_waiting + 10):
            recorder.offer("flowers", make(b"later"), num_bytes)
        assert counts == {False: 11}  # the one being written counts as waiting
        may_write.set()
    assert counts == {False: 11, True: num_waiting}
    assert len(read(tmp_path)) == num_waiting


def test_a_folder_that_cannot_be_written_stops_capture_and_it_goes_on_when_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "captured"
    folder.write_text("no folder")
    with record(folder) as (recorder, counts, clock):
        for number in range(5):
            recorder.offer("flowers", make(b"lost"), 1)
            wait_until(lambda number=number: counts[False] == number + 1)
        assert not recorder.is_capturing
        folder.unlink()
        recorder.offer("flowers", make(b"too soon"), 1)
        wait_until(lambda: counts[False] == 6)
        clock.now_s += 11
        recorder.offer("flowers", make(b"kept"), 1)
        wait_until(lambda: counts[True] == 1)
        assert recorder.is_capturing
    assert read(folder) == [b"kept"]
    lines = [each.message for each in caplog.records]
    assert [line.partition(":")[2].split(",")[0].strip() for line in lines[1:]] == ["stops", "goes on"]
    assert "File exists" in lines[1]


def test_a_request_that_cannot_be_kept_does_not_stop_the_next(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(when_s: float) -> bytes:
        raise KeyError("no such output")

    with record(tmp_path, max_mb=0.01) as (recorder, counts, _):
        for build in (fail, make(bytes(2000)), make(bytes(2000)), make(b"kept")):
            recorder.offer("flowers", build, 1)
    assert (read(tmp_path), counts) == ([b"kept"], {True: 1, False: 3})
    assert recorder.is_capturing
    assert [each.levelname for each in caplog.records if each.levelno >= logging.WARNING] == ["ERROR", "WARNING"]
    assert "a request of more than a tenth of 0.01 MB is not kept (said once)" in caplog.text


def test_what_is_too_old_goes_without_further_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.shared.capture.recorder._CLEAN_S", 0.01)
    with record(tmp_path, max_age_days=1) as (recorder, counts, clock):
        recorder.offer("flowers", make(b"old"), 1)
        wait_until(lambda: counts[True] == 1)
        clock.now_s += 2 * 86_400
        wait_until(lambda: not list(tmp_path.iterdir()))


def test_what_is_offered_after_the_end_is_dropped(tmp_path: Path) -> None:
    with record(tmp_path) as (recorder, counts, _):
        recorder.close()
        recorder.offer("flowers", make(b"late"), 1)
    assert counts == {False: 1}
