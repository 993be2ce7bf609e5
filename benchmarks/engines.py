"""Beam on Dask, a scheduler and workers on loopback: faults, ten times each, and one worker beside two.

The step is `examples`, of drawn flowers. Each part of its work waits, as for a slow disk, so that a fault comes in the
middle, and two workers can be twice as fast as one without cores to spare. Every output is compared with that of the
local engine. Workers have no nanny, which would start a killed one again.
"""

import importlib
import multiprocessing
import os
import signal
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import examples
from components.data import beam, examination_beam
from components.data.examination import make_examiner
from components.data.sources.factory import open_source
from components.errors import BeamError
from components.examples import ExamplesOptions

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

NUM_ROUNDS = 10
NUM_TIMED = 3
SLICE_SIZE = 5
WAIT_S = 0.5
WORKER_TTL_S = 15
"""After which Dask gives up a worker that says nothing; its default is 300 s."""
TIMEOUT_S = 600.0
RUNNER = "--runner=apache_beam.runners.dask.dask_runner.DaskRunner"
_NUM_PHOTOS = 100
_NUM_BEFORE_FAULT = 4


class Cluster:
    """A scheduler and workers, each a process of one thread."""

    def __init__(self, work: Path) -> None:
        self._work = work
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self._scheduler: ForkServerProcess | None = None
        self.workers: list[ForkServerProcess] = []
        # TensorFlow, whose import takes seconds, is imported once: workers are forks of that process.
        os.environ["DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL"] = f"{WORKER_TTL_S}s"
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tensorflow", "apache_beam", "distributed", "benchmarks.engines"])

    def start(self, num_workers: int) -> None:
        """Start what is not running, and wait for it."""
        from distributed import Client

        if self._scheduler is None or self._scheduler.exitcode is not None:
            arguments = ["--host", "127.0.0.1", "--port", self.address.rpartition(":")[2], "--no-dashboard"]
            self._scheduler = self._run("distributed.cli.dask_scheduler", *arguments)
            self._end_workers()
        self.workers = [worker for worker in self.workers if worker.exitcode is None]
        while len(self.workers) < num_workers:
            arguments = [self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
            arguments += ["--local-directory", str(self._work)]
            self.workers.append(self._run("distributed.cli.dask_worker", *arguments))
        while len(self.workers) > num_workers:
            _end(self.workers.pop())
        with Client(self.address, timeout=TIMEOUT_S) as client:
            client.wait_for_workers(num_workers, timeout=TIMEOUT_S)
            while len(workers := client.scheduler_info(n_workers=-1)["workers"]) > num_workers:
                time.sleep(0.1)
            client.gather([client.submit(_warm_up, workers=[worker], pure=False) for worker in workers])

    def end_worker(self) -> None:
        _end(self.workers.pop(0))

    def stop_scheduler(self) -> None:
        if self._scheduler:
            _end(self._scheduler)

    def end(self) -> None:
        self._end_workers()
        self.stop_scheduler()

    def _end_workers(self) -> None:
        while self.workers:
            _end(self.workers.pop())

    def _run(self, module: str, *arguments: str) -> "ForkServerProcess":
        process = self._context.Process(target=_run_command, args=(module, arguments, self._work / f"{module}.log"))
        process.start()
        return process


def _run_command(module: str, arguments: Sequence[str], log: Path) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    importlib.import_module(module).main(arguments, standalone_mode=False)


def measure() -> None:
    """Print what came of each fault, the seconds of one worker and of two, and what a part costs."""
    with tempfile.TemporaryDirectory() as temporary, _slow_slices():
        work = Path(temporary)
        draw(work / "photos")
        cluster = Cluster(work)
        local = ExamplesOptions(source=str(work / "photos"))
        beam_options = f"{RUNNER} --dask_client_address={cluster.address}"
        options = replace(local, engine="beam", beam_options=beam_options)
        try:
            expected = _build(work / "local", local)
            for number in range(NUM_ROUNDS):
                for name, fault in FAULTS.items():
                    cluster.start(2)
                    _report_fault(name, work / f"{name} {number}", options, partial(fault, cluster), expected)
                    cluster.end_worker()  # one that is stopped is no longer known, and still there
            _compare_workers(cluster, work, options)
        finally:
            cluster.end()


def _compare_workers(cluster: Cluster, work: Path, options: ExamplesOptions) -> None:
    found: dict[int, list[float]] = {1: [], 2: []}
    for number in range(NUM_TIMED):
        for num_workers, times_s in found.items():
            cluster.start(num_workers)
            started = time.perf_counter()
            _build(work / f"timed {num_workers} {number}", options)
            times_s.append(time.perf_counter() - started)
    one_s, two_s = map(statistics.median, found.values())
    num_parts = -(-_NUM_PHOTOS // SLICE_SIZE)
    print(
        f"engines: {num_parts} parts that wait {WAIT_S} s: one worker {one_s:.1f} s, two {two_s:.1f} s, ratio "
        f"{one_s / two_s:.2f}; beside waiting, {(one_s - num_parts * WAIT_S) / num_parts * 1e3:.0f} ms a part",
        flush=True,
    )


def _report_fault(
    name: str, out_dir: Path, options: ExamplesOptions, fault: Callable[[], None], expected: Mapping[str, bytes]
) -> None:
    """Let a fault happen when some parts are there, and print what came of it, and of the same command again."""
    striker = threading.Thread(target=_strike, args=(out_dir / "examined", fault))
    started = time.perf_counter()
    striker.start()
    try:
        found = _build(out_dir, options)
        outcome = "finished"
    except BeamError as exc:
        outcome, found = f"error: {exc}", {}
    seconds = time.perf_counter() - started
    striker.join()
    kept = len(list((out_dir / "examined").glob("[0-9]*")))
    again = ""
    if not found:
        started = time.perf_counter()
        found = _build(out_dir, options)
        again = f"; {kept} parts were kept, the same command took {time.perf_counter() - started:.1f} s"
    same = "the same output" if found == expected else "ANOTHER OUTPUT"
    print(f"engines, {name}: {seconds:.1f} s, {outcome}{again}; {same}", flush=True)


def _strike(folder: Path, fault: Callable[[], None]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while len(list(folder.glob("[0-9]*"))) < _NUM_BEFORE_FAULT and time.monotonic() < end:
        time.sleep(0.02)
    fault()


def _kill_worker(cluster: Cluster) -> None:
    cluster.workers[0].kill()


def _freeze_worker(cluster: Cluster) -> None:
    os.kill(cluster.workers[0].pid or 0, signal.SIGSTOP)


def _restart_scheduler(cluster: Cluster) -> None:
    cluster.stop_scheduler()
    cluster.start(2)


FAULTS: dict[str, Callable[[Cluster], None]] = {
    "the scheduler restarted": _restart_scheduler,
    "a worker killed": _kill_worker,
    "a worker stopped": _freeze_worker,
}


def _build(out_dir: Path, options: ExamplesOptions) -> dict[str, bytes]:
    """Run the step and return its files."""
    out_dir.mkdir(exist_ok=True)
    examples.build(out_dir=out_dir, options=options)
    return {path.name: path.read_bytes() for path in out_dir.rglob("*")}


@contextmanager
def _slow_slices() -> Iterator[None]:
    """Make the parts of the step small, and let each wait."""
    make_files, slice_size = beam.make_files, examination_beam.SLICE_SIZE

    def make_slowly(make: Callable[[Any], object], parts: Sequence[Any], *, options: Sequence[str]) -> None:
        make_files(partial(_wait_and_make, make), parts, options=options)

    beam.make_files, examination_beam.SLICE_SIZE = make_slowly, SLICE_SIZE
    try:
        yield
    finally:
        beam.make_files, examination_beam.SLICE_SIZE = make_files, slice_size


def _wait_and_make(make: Callable[[Any], object], part: Any) -> None:
    time.sleep(WAIT_S)
    make(part)


def draw(folder: Path) -> None:
    """Write drawn flowers as `<class>/<file>`."""
    for photo in open_source("synthetic", num_synthetic_per_class=_NUM_PHOTOS // 5, seed=0).photos:
        path = folder / Path(photo.name).parent.name / Path(photo.name).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo.encoded)


def _warm_up() -> None:
    make_examiner()


def _end(process: "ForkServerProcess") -> None:
    process.kill()
    process.join()
