"""A bar on a terminal, and lines in the log elsewhere."""

import io
import logging
import sys

import pytest

from components import progress
from components.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds, of a clock that a test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_there_is_a_line_every_half_minute(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with Progress(total=100, desc="reading photos", unit="photo") as bar:
        for seconds in range(1, 101):
            clock[0] = seconds
            bar.update()
    assert caplog.messages == [
        "reading photos: 30 of 100 photos, 30 s, some 70 s left",
        "reading photos: 60 of 100 photos, 60 s, some 40 s left",
        "reading photos: 90 of 100 photos, 90 s, some 10 s left",
    ]


def test_what_is_gone_through_counts_as_well(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    seen = []
    for item in Progress("abc", desc="evaluating", unit="batch"):
        seen.append(item)
        clock[0] += 20
    assert seen == list("abc")
    assert caplog.messages == ["evaluating: 2 of 3 batches, 40 s, some 20 s left"]


def test_what_is_short_logs_nothing(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    assert list(Progress("abc", desc="edges", unit="file")) == list("abc")
    assert caplog.messages == []


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = Progress(total=2, desc="edges", unit="file")
    bar.start_t -= 60
    bar.update(2)
    bar.refresh()
    bar.close()
    assert "edges: 100%" in terminal.getvalue()
    assert caplog.messages == []
