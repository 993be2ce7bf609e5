"""A bucket whose network or store fails: finished with the right bytes, or a clear error; nothing in halves."""

import math
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from components.errors import PushError, StorageError
from components.storage import filesystem
from components.storage.bucket import Bucket
from tests.components.storage.operations import LARGE, OPERATIONS, Download, Operation, Push, Read, Upload
from tests.s3 import S3
from tests.s3_faults import FAULTS, FaultyProxy, faulty_proxy

NUM_TIMES = 10
_NUM_THREADS = 24


@pytest.fixture
def proxy(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy that `s3://` leads to; a silence of half a second is long here."""
    monkeypatch.setattr(filesystem, "SILENCE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(filesystem, "PATIENCE_S", 5.0)
    monkeypatch.setattr(filesystem, "_FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(filesystem, "_NUM_RETRIES", 0)
    with faulty_proxy(s3.client.meta.endpoint_url) as proxy:
        s3.lead_to(proxy.listener, monkeypatch)
        yield proxy


@pytest.mark.parametrize("fault", ["slow down", "cut download", "stalled upload"])
def test_a_fault_that_passes_costs_time_alone(proxy: FaultyProxy, s3: S3, tmp_path, fault):
    for kind in (Read, Upload):
        operation = _make(kind, s3, tmp_path)
        rule = proxy.inject(operation.s3.name, fault, first=1, times=2)
        operation.run()
        assert rule.num_hit == 2


@pytest.mark.parametrize("fault", ["internal error", "cut download", "stalled upload", "stalled download"])
def test_a_fault_that_stays_is_an_error_and_nothing_is_seen_in_halves(
    proxy: FaultyProxy, s3: S3, tmp_path, monkeypatch, fault
):
    monkeypatch.setattr(filesystem, "PATIENCE_S", 0.1)
    for kind in (Download, Push):
        operation = _make(kind, s3, tmp_path)
        proxy.inject(operation.s3.name, fault, first=2)
        with pytest.raises(StorageError, match=rf"{operation.s3.url}.* cannot be used: .* goes on from here"):
            operation.run()
        proxy.inject(operation.s3.name)
        operation.check_after_failure()


def test_a_number_is_not_lost_with_the_response_to_its_claim(proxy: FaultyProxy, s3: S3):
    bucket = Bucket(s3.url)
    rule = proxy.inject(s3.name, "lost response", times=1)
    assert bucket.claim("1", b"mine")
    assert rule.num_hit == 1
    assert not bucket.claim("1", b"yours")


def test_an_object_that_changes_while_it_is_read_is_not_mixed(proxy: FaultyProxy, s3: S3, tmp_path, monkeypatch):
    """What was read before the connection broke is of another version than the rest."""
    s3.put("model", LARGE)
    proxy.inject(s3.name, "cut download", times=1)
    monkeypatch.setattr(filesystem.random, "uniform", lambda *_: s3.put("model", LARGE[::-1]) or 0)
    Bucket(s3.url).download(["model"], tmp_path)
    assert (tmp_path / "model").read_bytes() == LARGE[::-1]


def _make(kind: type[Operation], s3: S3, tmp_path: Path) -> Operation:
    """Return an operation with a bucket and a folder of its own."""
    name = f"bucket-{secrets.token_hex(4)}"
    (tmp_path / name).mkdir()
    return kind(S3(s3.client, name), tmp_path / name)


@pytest.mark.slow
def test_every_fault_ten_times(s3: S3, tmp_path, monkeypatch, capsys):
    """Print what each fault did, twice in a row and for good, with the real retries and a fifth of the real limits.

    The ten times are spread over the operations, and over the requests of each.
    """
    monkeypatch.setattr(filesystem, "SILENCE_TIMEOUT_S", filesystem.SILENCE_TIMEOUT_S / 5)
    monkeypatch.setattr(filesystem, "PATIENCE_S", filesystem.PATIENCE_S / 5)
    with faulty_proxy(s3.client.meta.endpoint_url) as proxy, ThreadPoolExecutor(_NUM_THREADS) as threads:
        s3.lead_to(proxy.listener, monkeypatch)
        num_requests = {kind: _try(proxy, _make(kind, s3, tmp_path), "", 0, 0).num_seen for kind in OPERATIONS}

        def meet(fault: str, times: float, number: int) -> _Trial:
            kind = OPERATIONS[number % len(OPERATIONS)]
            return _try(proxy, _make(kind, s3, tmp_path), fault, number * num_requests[kind] // NUM_TIMES, times)

        trials = {
            (fault, times): [threads.submit(meet, fault, times, number) for number in range(NUM_TIMES)]
            for fault in FAULTS
            for times in (2, math.inf)
        }
        done = {key: [future.result() for future in futures] for key, futures in trials.items()}
    with capsys.disabled():
        for fault, effect in FAULTS.items():
            print(f"| {effect} | {_summarize(done[fault, 2])} | {_summarize(done[fault, math.inf])} |")  # noqa: T201
    assert all(trial.is_finished for (_, times), some in done.items() if times == 2 for trial in some)


@dataclass(frozen=True)
class _Trial:
    is_finished: bool
    seconds: float
    num_seen: int


def _try(proxy: FaultyProxy, operation: Operation, fault: str, first: int, times: float) -> _Trial:
    """Run an operation into a fault; what holds after a failure is checked."""
    rule = proxy.inject(operation.s3.name, fault, first=first, times=times)
    started = time.monotonic()
    is_finished = True
    try:
        operation.run()
    except (StorageError, PushError):
        is_finished = False
    seconds = time.monotonic() - started
    proxy.inject(operation.s3.name)
    if not is_finished:
        operation.check_after_failure()
    return _Trial(is_finished, seconds, rule.num_seen)


def _summarize(trials: list[_Trial]) -> str:
    num_finished = sum(trial.is_finished for trial in trials)
    seconds = sorted(trial.seconds for trial in trials)
    middle, longest = seconds[len(seconds) // 2], seconds[-1]
    errors = f", {len(trials) - num_finished} errors" if num_finished < len(trials) else ""
    return f"{num_finished} finished{errors}; {middle:.0f} s, at most {longest:.0f} s"
