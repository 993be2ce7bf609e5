"""Images are decoded in processes that can be ended: what costs too much costs no more than one of them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from client.classifier_client import ClassifierError, ImageError, decoder_pool, preprocessing
from client.classifier_client.decoder_pool import DecoderLimits, DecoderPool

ROOT = Path(__file__).resolve().parents[2]
SIZE_PX = 224
WAIT_S = 20
SAMPLES = sorted((ROOT / "client" / "samples").glob("*.jpg"))

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def large() -> bytes:
    """A sound PNG of 25 megapixels: a fifth of a second, and 100 MB."""
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (5000, 5000)).save(buffer, "PNG")
    return buffer.getvalue()


def find_pids(pool: DecoderPool) -> list[int]:
    return sorted(decoder._process.pid for decoder in pool._running)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_an_image_is_the_same_as_without_a_process(pool: DecoderPool, path: Path) -> None:
    ours = pool.load(path.read_bytes(), name="a", size_px=SIZE_PX)
    assert ours.tobytes() == preprocessing.load(path, name="a", size_px=SIZE_PX).tobytes()
    assert pool.load(path, name="a", size_px=SIZE_PX).tobytes() == ours.tobytes()


def test_a_small_copy_keeps_its_shape_and_stands_upright(pool: DecoderPool, encode: Callable[..., bytes]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(Image.new("RGB", (400, 300), "red"), "JPEG", exif=exif)
    small = pool.shrink(turned, name="a", size_px=100)
    assert (small.mode, small.size) == ("RGB", (75, 100))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_what_is_small_already_keeps_its_size(pool: DecoderPool, encode: Callable[..., bytes], kind: str) -> None:
    small = pool.shrink(encode(Image.new("RGB", (40, 30), "white"), kind), name="a", size_px=100)
    assert small.size == (40, 30)
    assert small.getextrema() == ((255, 255),) * 3


def test_what_cannot_be_read_has_its_name_and_costs_no_process(pool: DecoderPool) -> None:
    before = find_pids(pool)
    with pytest.raises(ImageError, match=r"^a\.jpg: not an image") as caught:
        pool.load(b"no image", name="a.jpg", size_px=SIZE_PX)
    assert caught.value.code == "not_an_image"
    assert find_pids(pool) == before


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (DecoderLimits(cpu_s=0.05), "processor time"),
        (DecoderLimits(wall_s=0.05), "too long"),
        pytest.param(
            DecoderLimits(memory_bytes=50_000_000),
            "",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits memory"),
        ),
    ],
)
def test_an_image_that_takes_too_much_is_too_complex_and_the_next_one_is_decoded(
    limits: DecoderLimits, reason: str, large: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_pool, "_WATCH_S", 0.01)
    with DecoderPool(1, limits=limits) as pool:
        with pytest.raises(ImageError, match=r"^large\.png: takes more") as caught:
            pool.load(large, name="large.png", size_px=SIZE_PX)
        assert caught.value.code == "too_complex"
        assert reason in caplog.text
        assert pool.load(make_small(), name="b", size_px=SIZE_PX).size == (SIZE_PX, SIZE_PX)


def make_small() -> bytes:
    return SAMPLES[0].read_bytes()


def test_a_decoder_that_crashes_takes_one_image_with_it(large: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with DecoderPool(1) as pool, ThreadPoolExecutor(1) as threads:
        pool.load(make_small(), name="a", size_px=SIZE_PX)
        (pid,) = find_pids(pool)
        crashing = threads.submit(pool.load, large, name="large.png", size_px=SIZE_PX)
        time.sleep(0.05)  # It takes four times as long to decode.
        os.kill(pid, signal.SIGSEGV)
        with pytest.raises(ImageError) as caught:
            crashing.result()
        assert caught.value.code == "too_complex"
        assert "ended by SIGSEGV" in caplog.text
        pool.load(make_small(), name="b", size_px=SIZE_PX)


def test_a_decoder_that_died_idle_costs_no_image() -> None:
    with DecoderPool(1) as pool:
        (pid,) = find_pids(pool)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        pool.load(make_small(), name="a", size_px=SIZE_PX)


def test_interrupts_and_the_end_of_a_service_do_not_end_what_is_decoded(pool: DecoderPool) -> None:
    pool.load(make_small(), name="a", size_px=SIZE_PX)
    (pid,) = find_pids(pool)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    pool.load(make_small(), name="a", size_px=SIZE_PX)
    assert find_pids(pool) == [pid]


def test_decoders_end_with_the_process_that_started_them_however_it_dies() -> None:
    code = (
        "import time\n"
        "from client.classifier_client.decoder_pool import DecoderPool\n"
        "pool = DecoderPool(2)\n"
        "print(*(decoder._process.pid for decoder in pool._running), flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        pids = [int(pid) for pid in process.stdout.readline().split()]
        process.kill()
    end = time.monotonic() + WAIT_S
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert len(pids) == 2


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_closed_pool_says_so_and_what_it_was_decoding_ends(large: bytes) -> None:
    pool = DecoderPool(1)
    pool.load(make_small(), name="a", size_px=SIZE_PX)
    closing = threading.Timer(0.05, pool.close)
    closing.start()
    with pytest.raises(ImageError):
        pool.load(large, name="large.png", size_px=SIZE_PX)
    closing.join()
    for _ in range(2):
        with pytest.raises(ClassifierError, match="must be open"):
            pool.load(make_small(), name="a", size_px=SIZE_PX)


def test_a_process_that_does_not_start_is_an_error_that_says_how_to_see_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with DecoderPool(1) as pool, pytest.raises(ClassifierError, match=r"must start, and this one ended with status 1"):
        pool.load(make_small(), name="a", size_px=SIZE_PX)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_given_back(pool: DecoderPool, large: bytes) -> None:
    pool.load(make_small(), name="a", size_px=SIZE_PX)
    (pid,) = find_pids(pool)
    before = read_memory(pid)
    for _ in range(3):
        pool.load(large, name="large.png", size_px=SIZE_PX)
    assert find_pids(pool) == [pid]
    assert read_memory(pid) < before + 10e6  # The image alone takes 100 MB.


def read_memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


@pytest.mark.parametrize("wrong", [{"cpu_s": 0}, {"wall_s": -1}, {"memory_bytes": 0}])
def test_limits_are_above_0(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        DecoderLimits(**wrong)
    with pytest.raises(ValueError, match="at least 1"):
        DecoderPool(0)
