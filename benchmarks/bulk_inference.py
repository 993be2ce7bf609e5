"""`python -m pipelines infer` over many images beside a plain loop, and its memory over ten times as many.

The peer is what one writes by hand: Pillow decodes and resizes, a LiteRT interpreter with all cores classifies, an
image after the other; importing and loading are not counted. Ours counts from the command to its end, Beam's start
and the writing of the table included. Every few seconds it is stopped while the peer classifies a share, so that a
machine whose speed drifts slows both.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.peak import read_multiply_adds, share_of_peak
from benchmarks.serving import report
from components.data import drawn_flowers

NUM_IMAGES, NUM_FEW = 20_000, 2_000
PEER_SHARE = 500
TURN_S = 20.0
TIMEOUT_S = 3600.0
_NUM_DRAWN = 40  # of each kind; shifted sideways, they make any number of different images
_SIZE_PX = 320  # as photos of tf_flowers have it
_SAMPLE_S = 0.2
_ROOT = Path(__file__).parent.parent
_PEER = """
import sys, time
import numpy as np
from pathlib import Path
from PIL import Image, ImageOps
from ai_edge_litert.interpreter import Interpreter
file, num_threads, *paths = sys.argv[1:]
interpreter = Interpreter(model_path=file, num_threads=int(num_threads))
interpreter.allocate_tensors()
(taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
size_px = taken["shape"][1]
interpreter.invoke()
start_s = time.perf_counter()
predictions = {}
for path in paths:
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
        pixels = np.asarray(upright.resize((size_px, size_px), Image.Resampling.BILINEAR))[np.newaxis]
    interpreter.set_tensor(taken["index"], pixels)
    interpreter.invoke()
    predictions[path] = interpreter.get_tensor(given["index"])[0]
print(time.perf_counter() - start_s)
"""


def measure(file: Path) -> None:
    """Print the ratios of bulk inference with an int8 LiteRT file."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "images"
        paths = _draw(folder)
        shares = (paths[i % NUM_IMAGES :][:PEER_SHARE] for i in count(0, PEER_SHARE))

        def peer() -> float:
            return _run_peer(file, next(shares))

        few = Path(work) / "few"
        few.mkdir()
        for path in paths[:NUM_FEW]:
            (few / path.name).symlink_to(path)
        _, few_mb, _ = _run_ours(file, few, Path(work) / "few.parquet")
        ours_s, many_mb, peer_times_s = _run_ours(file, folder, Path(work) / "many.parquet", in_turns_with=peer)
    name = f"bulk_inference, images a second of {NUM_IMAGES}"
    rates = NUM_IMAGES / ours_s, len(peer_times_s) * PEER_SHARE / sum(peer_times_s)
    of_file, _ = read_multiply_adds(file)
    report(name, rates[0], "a plain loop", rates[1], shares=[share_of_peak(of_file, rate) for rate in rates])
    report(f"bulk_inference, peak memory for {NUM_IMAGES} (MB)", many_mb, f"for {NUM_FEW}", few_mb)


def _draw(folder: Path) -> list[Path]:
    folder.mkdir()
    drawn = [
        drawn_flowers.draw(name, seed=seed, size_px=_SIZE_PX)
        for seed in range(_NUM_DRAWN)
        for name in drawn_flowers.CLASS_NAMES
    ]
    paths = []
    for number in range(NUM_IMAGES):
        shift, which = divmod(number, len(drawn))
        paths.append(folder / f"{number:06d}.jpg")
        Image.fromarray(np.roll(drawn[which], 3 * shift, axis=1)).save(paths[-1], quality=90)
    return paths


def _run_peer(file: Path, paths: list[Path]) -> float:
    """Return the seconds of the plain loop."""
    command = [sys.executable, "-c", _PEER, str(file), str(os.cpu_count()), *map(str, paths)]
    return float(subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S).stdout)


def _run_ours(
    file: Path, images: Path, output: Path, *, in_turns_with: Callable[[], float] | None = None
) -> tuple[float, float, list[float]]:
    """Return the seconds of the command, without the peer's turns; its peak memory in MB; and the peer's seconds."""
    command = [sys.executable, "-m", "pipelines", "infer", "--engine", "beam", "--input", str(images)]
    command += ["--model", str(file.absolute()), "--output", str(output)]
    peer_times_s: list[float] = []
    paused_s = peak_mb = 0.0
    start_s = time.perf_counter()
    turn_s = -TURN_S  # The peer begins.
    with (output.with_suffix(".log")).open("w") as log:
        process = subprocess.Popen(command, cwd=_ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            while process.poll() is None:
                peak_mb = max(peak_mb, sum(map(_memory_mb, _family(process.pid))))
                if in_turns_with and time.perf_counter() - turn_s > TURN_S:
                    turn_s = time.perf_counter()
                    os.killpg(process.pid, signal.SIGSTOP)
                    peer_times_s.append(in_turns_with())
                    os.killpg(process.pid, signal.SIGCONT)
                    paused_s += time.perf_counter() - turn_s
                    turn_s = time.perf_counter()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_SAMPLE_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {output.with_suffix('.log').read_text()[-1000:]}")
    return time.perf_counter() - start_s - paused_s, peak_mb, peer_times_s


def _family(process: int) -> Iterator[int]:
    """Yield a process and all that it has started (Linux)."""
    yield process
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in children.read_text().split():
                yield from _family(int(child))


def _memory_mb(process: int) -> float:
    """Return the memory of a process at this moment."""
    with suppress(OSError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return 0.0
