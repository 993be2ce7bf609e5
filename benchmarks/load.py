"""Keep-alive clients on the local server, beside a server written by hand; and one model beside another that is stuck.

Every client sends its next request as soon as it has a response, over a connection of its own; the clients share this
process and the machine with the server. Both servers take turns, so that a machine whose speed drifts slows both. The
peer is what a page of Python makes of a SavedModel: `http.server`, a thread for each client, `json`, the signature.
"""

import asyncio
import base64
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import photos
from benchmarks.machine import processor_s
from benchmarks.peak import MultiplyAdds, describe_shares, read_multiply_adds, share_of_peak
from benchmarks.serving import BATCHING, NAME, report, served

NUM_CLIENTS = (1, 8, 64, 400)
NUM_ROUNDS = 3
ROUND_S = 5.0
NUM_PHOTOS = 16
NUM_STUCK = 2
_NUMBERS = b'{"instances": [1.0, 2.0, 5.0]}'


@dataclass
class Load:
    """What clients saw of a server.

    Attributes:
        latencies_ms: of each request with a prediction.
        num_refused: requests that got another status than 200, or none.
        duration_s: of all rounds.
        processor_s: that the server took; 0 where it was not measured.
    """

    latencies_ms: list[float] = field(default_factory=list)
    num_refused: int = 0
    duration_s: float = 0.0
    processor_s: float = 0.0

    def __str__(self) -> str:
        rate = len(self.latencies_ms) / self.duration_s
        p50, p99 = np.percentile(self.latencies_ms or [math.nan], (50, 99))
        line = f"{rate:.4g} a second, p50 {p50:.3g} ms, p99 {p99:.3g} ms, {self.num_refused} refused"
        each_ms = 1000 * self.processor_s / max(len(self.latencies_ms), 1)
        return f"{line}, {each_ms:.3g} ms of processor time each" if each_ms else line


def measure(data: str, model_dir: Path, file: Path) -> None:
    """Print rates, latencies, refusals and processor time of both servers for each number of clients.

    Args:
        data: a folder `{train,validation,test}/<class>/*.jpg`, or `synthetic`.
        model_dir: a folder with the classifier's SavedModel in it.
        file: a LiteRT file made from it, whose multiply-adds are counted.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(photos.folder(data))
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        encoded = [path.read_bytes() for path in sorted(folder.glob("test/*/*.jpg"))[:NUM_PHOTOS]]
        bodies = [json.dumps({"instances": [{"b64": base64.b64encode(photo).decode()}]}).encode() for photo in encoded]
        _save_half_plus_two(work / "small" / NAME / "1")
        shutil.copytree(model_dir, work / "classifier" / NAME / "1")
        _, of_model = read_multiply_adds(file)
        for model, flags, requests, multiply_adds in (
            ("small", (), [_NUMBERS], {}),
            ("classifier", BATCHING, bodies, of_model),
        ):
            base_path = work / model / NAME
            with (
                served(base_path, work / f"{model}.log", *flags, config_dir=None) as server,
                _served_by_hand(base_path / "1") as (port, pid),
            ):
                sides = {
                    "ours": (int(server.rest_url.rpartition(":")[2]), server.process_id),
                    "by hand": (port, pid),
                }
                for num_clients in NUM_CLIENTS:
                    _compare(model, num_clients, sides, requests, multiply_adds)
        _measure_neighbours(work)


def _compare(
    model: str,
    num_clients: int,
    sides: dict[str, tuple[int, int]],
    bodies: Sequence[bytes],
    multiply_adds: MultiplyAdds,
) -> None:
    loads = {side: Load() for side in sides}
    for _ in range(NUM_ROUNDS):
        for side, (port, pid) in sides.items():
            before_s = processor_s(pid)
            asyncio.run(_press(port, num_clients, bodies, loads[side]))
            loads[side].processor_s += processor_s(pid) - before_s
    ours, peer = (len(load.latencies_ms) / load.duration_s for load in loads.values())
    what = f"load, {num_clients} client{'s' if num_clients > 1 else ''} on {model}"
    for side, load in loads.items():
        print(f"{what}, {side}: {load}", flush=True)
    shares = describe_shares(*(share_of_peak(multiply_adds, rate) for rate in (ours, peer)))
    print(f"{what}: requests a second: ratio {ours / peer:.3f}; {shares}", flush=True)


def _measure_neighbours(work: Path) -> None:
    """Compare a model's latency while another one is kept busy by requests that would never end with its own alone.

    Beside processes that only spin, apart from the server, it shows what waiting for a processor costs by itself.
    """
    _save_endless(work / "endless" / "1")
    config = work / "models.config"
    config.write_text(
        "model_config_list {"
        + "".join(
            f' config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}'
            for name, path in ((NAME, work / "small" / NAME), ("endless", work / "endless"))
        )
        + " }",
        encoding="utf-8",
    )
    flags = (f"--model_config_file={config}", "--rest_api_timeout_in_ms=1000")
    with served(work / "small" / NAME, work / "neighbours.log", *flags, config_dir=None) as server:
        port = int(server.rest_url.rpartition(":")[2])
        alone, spinning, once, always = Load(), Load(), Load(), Load()
        for _ in range(NUM_ROUNDS):
            asyncio.run(_press(port, 1, [_NUMBERS], alone))
            with _spinning():
                asyncio.run(_press(port, 1, [_NUMBERS], spinning))
            asyncio.run(_press_beside(port, once, stuck_s=0.1))
            asyncio.run(_press_beside(port, always, stuck_s=ROUND_S))
    stuck = f"{NUM_STUCK} endless requests"
    beside = {f"{NUM_STUCK} other processes": spinning, stuck: once, f"{stuck}, again and again": always}
    p99_ms = float(np.percentile(alone.latencies_ms, 99))
    print(f"load, 1 client alone: {alone}", flush=True)
    for what, load in beside.items():
        print(f"load, 1 client beside {what}: {load}", flush=True)
        report(f"load, p99 beside {what} (ms)", float(np.percentile(load.latencies_ms, 99)), "alone", p99_ms)


@contextmanager
def _spinning() -> Iterator[None]:
    """Keep as many processors busy as the endless requests do, by processes of their own."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(NUM_STUCK)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def _press_beside(port: int, load: Load, *, stuck_s: float) -> None:
    """Let a client call one model, and others another that is stuck, for as long as they begin requests."""
    await asyncio.gather(
        _press(port, 1, [_NUMBERS], load),
        _press(port, NUM_STUCK, [b'{"instances": [1.0]}'], Load(), "endless", duration_s=stuck_s),
    )


async def _press(
    port: int,
    num_clients: int,
    bodies: Sequence[bytes],
    load: Load,
    model: str = NAME,
    *,
    duration_s: float | None = None,
) -> None:
    """Let clients call for a while."""
    start = time.perf_counter()
    end = start + (duration_s or ROUND_S)
    await asyncio.gather(*(_call_until(end, port, bodies[i % len(bodies)], load, model) for i in range(num_clients)))
    load.duration_s += time.perf_counter() - start


async def _call_until(end: float, port: int, body: bytes, load: Load, model: str) -> None:
    head = f"POST /v1/models/{model}:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    while time.perf_counter() < end:
        writer = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while time.perf_counter() < end:
                start = time.perf_counter()
                writer.write(request)
                received = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(received.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
                if received.split(maxsplit=2)[1] == b"200":
                    load.latencies_ms.append((time.perf_counter() - start) * 1000)
                else:
                    load.num_refused += 1
        except (OSError, asyncio.IncompleteReadError):
            load.num_refused += 1
        finally:
            if writer:
                writer.close()


def _save_half_plus_two(path: Path) -> None:
    """Save TensorFlow Serving's usual example: y = x / 2 + 2."""
    import tensorflow as tf

    class HalfPlusTwo(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def __call__(self, x):  # type: ignore[no-untyped-def]  # TensorFlow traces it
            return {"y": x / 2 + 2}

    module = HalfPlusTwo()
    tf.saved_model.save(module, str(path), signatures=module.__call__)


def _save_endless(path: Path) -> None:
    """Save a model that multiplies matrices until it is stopped."""
    import tensorflow as tf

    class Endless(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def __call__(self, x):  # type: ignore[no-untyped-def]  # TensorFlow traces it
            matrix = tf.zeros([64, 64]) + tf.reduce_sum(x)
            # NaN equals nothing, so the loop goes on; TensorFlow does not find out.
            return {
                "y": tf.while_loop(lambda m: tf.not_equal(m[0, 0], float("nan")), lambda m: (m @ m,), (matrix,))[0][0]
            }

    module = Endless()
    tf.saved_model.save(module, str(path), signatures=module.__call__)


@contextmanager
def _served_by_hand(model_dir: Path) -> Iterator[tuple[int, int]]:
    """Run the peer in a process of its own; yield its port and process id."""
    command = [sys.executable, "-m", "benchmarks.server_by_hand", str(model_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline()), process.pid
        finally:
            process.kill()
