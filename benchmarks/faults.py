"""`python -m benchmarks.faults [--times N] [FAULT…]`: several workers on a network with faults, a line a fault.

It says whether training ended as that of one process, or with an error that names the machine that was lost. Everything
before the trainer is made once. What each training came to goes to standard error.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.network import Network, why_not
from benchmarks.workers import CHIEF, LIMIT_S, NUM_MACHINES, WORKER, Training, compare, prepare

TOLERANCE = 1e-4
"""How far the numbers may be from those of one process: three workers add up in another order."""
_FREEZE_S, _PARTITION_S = 20, 60
REJOIN_TIMEOUT_S = 90
"""How long all wait for a machine that is gone for good."""


def _freeze(training: Training) -> None:
    training.signal(WORKER, signal.SIGSTOP)


def _freeze_and_thaw(training: Training) -> None:
    _freeze(training)
    time.sleep(_FREEZE_S)
    training.signal(WORKER, signal.SIGCONT)


def _cut(training: Training) -> None:
    training.network.cut = frozenset({WORKER})
    time.sleep(_PARTITION_S)
    training.network.cut = frozenset()


def _restart(number: int) -> Callable[[Training], None]:
    def restart(training: Training) -> None:
        training.kill(number)
        training.start(number)

    return restart


@dataclass(frozen=True)
class Fault:
    """What happens to a training.

    Attributes:
        strike: does it, in the middle of the training.
        delay_s, loss: of the network, from the beginning.
        lost: the machine that is gone for good: training ends with an error that names it, and otherwise as that of one
            process.
    """

    strike: Callable[[Training], None] = lambda _: None
    delay_s: float = 0.0
    loss: float = 0.0
    lost: int | None = None


FAULTS = {
    "none": Fault(),
    "delay of 50 ms": Fault(delay_s=0.05),
    "loss of 1 %": Fault(loss=0.01),
    "loss of 5 %": Fault(loss=0.05),
    f"a worker cut off for {_PARTITION_S} s": Fault(_cut),
    f"a worker frozen for {_FREEZE_S} s": Fault(_freeze_and_thaw),
    "a worker frozen for good": Fault(_freeze, lost=WORKER),
    "the chief frozen for good": Fault(lambda training: training.signal(CHIEF, signal.SIGSTOP), lost=CHIEF),
    "a worker killed and started again": Fault(_restart(WORKER)),
    "the chief killed and started again": Fault(_restart(CHIEF)),
    "a worker killed for good": Fault(lambda training: training.kill(WORKER), lost=WORKER),
    "the chief killed for good": Fault(lambda training: training.kill(CHIEF), lost=CHIEF),
}
MOMENTS = ("checkpoints/fine_tune/epoch-?????", "checkpoints/head/epoch-?????")
"""When it happens, by the file of the trainer that appears: in fine-tuning, or while the head trains."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        time_s: from the fault to the end of all that could end.
        num_restarts: how often the machine that had to start again most did.
        difference: the largest, of any weight, loss or accuracy, from those of one process; `None` without a model.
        errors: what each machine that was not lost said in the end, where it failed.
    """

    time_s: float
    num_restarts: int
    difference: float | None
    errors: list[str]

    def is_as_expected(self, fault: Fault, addresses: list[str]) -> bool:
        """Return whether it ended as without the fault; where a machine was lost, whether all others name it alone."""
        if fault.lost is None:
            return self.difference is not None and self.difference <= TOLERANCE and not self.errors
        named = f"worker {fault.lost}{'' if fault.lost else ')'} at {addresses[fault.lost]}"
        innocent = [f"worker {n}{'' if n else ')'} at {a}" for n, a in enumerate(addresses) if n != fault.lost]
        return len(self.errors) == NUM_MACHINES - 1 and all(
            named in error and not any(other in error for other in innocent) for error in self.errors
        )


def strike(fault: Fault, prepared: Path, folder: Path, *, moment: str, seed: int = 0) -> tuple[Outcome, list[str]]:
    """Train on three machines with a fault; return how it ended, and the addresses of the machines."""
    shutil.copytree(prepared / "runs", folder / "runs", symlinks=True, ignore=shutil.ignore_patterns("trainer"))
    with ExitStack() as stack:
        network = stack.enter_context(Network(NUM_MACHINES, seed=seed))
        network.delay_s, network.loss = fault.delay_s, fault.loss
        rejoin_timeout_s = LIMIT_S if fault.lost is None else REJOIN_TIMEOUT_S
        training = stack.enter_context(Training(network, folder, rejoin_timeout_s=rejoin_timeout_s))
        training.wait_for(moment)
        began = time.monotonic()
        fault.strike(training)
        others = [number for number in range(NUM_MACHINES) if number != fault.lost]
        errors = []
        for number in others:
            try:
                if training.processes[number].wait(max(0.0, began + LIMIT_S - time.monotonic())):
                    errors.append(training.log(number).rstrip().rpartition("\n")[2])
            except subprocess.TimeoutExpired:
                errors.append(f"machine {number} has not ended after {LIMIT_S} s")
        time_s = time.monotonic() - began
    num_restarts = max(training.log(number).count("trainer: starts again") for number in others)
    return Outcome(time_s, num_restarts, compare(prepared, folder), errors), training.addresses


def measure(names: Sequence[str], *, num_times: int) -> None:
    """Print what becomes of a training with each fault, so many times, at each moment in turn."""
    with tempfile.TemporaryDirectory() as temporary:
        prepared = Path(temporary) / "alone"
        prepared.mkdir()
        prepare(prepared)
        for name in names:
            fault, found = FAULTS[name], []
            for number in range(num_times):
                folder = Path(temporary) / str(number)
                moment = MOMENTS[number % len(MOMENTS)]
                outcome, addresses = strike(fault, prepared, folder, moment=moment, seed=number)
                found.append((outcome, outcome.is_as_expected(fault, addresses)))
                print(f"{name}, {moment}: {outcome}", file=sys.stderr, flush=True)
                shutil.rmtree(folder)
            print(_describe(name, fault, found), flush=True)


def _describe(name: str, fault: Fault, found: list[tuple[Outcome, bool]]) -> str:
    times = [outcome.time_s for outcome, _ in found]
    restarts = [outcome.num_restarts for outcome, _ in found]
    end = "the result of one process" if fault.lost is None else "an error that names it"
    difference = max((o.difference for o, _ in found if o.difference is not None), default=None)
    apart = f", at most {difference:.1g} apart" if difference is not None else ""
    return (
        f"{name}: {sum(right for _, right in found)} of {len(found)} ended with {end}{apart}; "
        f"{min(times):.0f} to {max(times):.0f} s after it began, {min(restarts)} to {max(restarts)} restarts"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    names = ", ".join(FAULTS).replace("%", "%%")
    parser.add_argument("names", nargs="*", metavar="FAULT", help=f"which: {names} (default: all)")
    parser.add_argument("--times", type=int, default=1, help="how often each (default: 1)")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(FAULTS)):
        parser.error(f"no fault {unknown[0]!r}; there are {', '.join(FAULTS)}")
    if reason := why_not():
        parser.error(reason)
    measure(options.names or list(FAULTS), num_times=options.times)


if __name__ == "__main__":
    main()
