"""What decoding costs in the graph: an image of absurd structure is refused before it costs time or memory."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from export import preprocessing, structure
from tests import hostile_images

MAX_PROCESSOR_S = 2.0
MAX_BYTES = 300_000_000
_SERVED = ("jpeg", "png", "gif", "bmp", "webp")
_NAMES = [name for name in hostile_images.CORPUS if name.startswith(_SERVED)]


@pytest.fixture(scope="module")
def costs() -> dict[str, tuple[float, int]]:
    """Seconds of processor time and bytes of memory that each hostile image takes, in a process of its own."""
    command = [sys.executable, "-m", "tests.export.test_structure"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]).stdout
    return json.loads(output)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from Linux's /proc")
@pytest.mark.parametrize("name", _NAMES)
def test_no_hostile_image_costs_much(costs: dict[str, tuple[float, int]], name: str) -> None:
    processor_s, num_bytes = costs[name]
    assert processor_s <= MAX_PROCESSOR_S
    assert num_bytes <= MAX_BYTES


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (lambda: hostile_images.jpeg_of_scans(200, side_px=64), "at most 100 scans"),
        (lambda: hostile_images.jpeg_of_scans(40), "pixels in all of its scans together"),
        (lambda: hostile_images.jpeg_of_comments(5000), "at most 1,000 segments"),
        (lambda: hostile_images.png_of_packed_texts(33), "packed texts"),
        (lambda: hostile_images.png_of_texts(1001), "chunks before its pixels"),
        (lambda: hostile_images.webp_of_chunks(10_001), "at most 10,000 chunks"),
        (lambda: hostile_images.gif_of_comments(100_000), "blocks up to the end of its first frame"),
    ],
)
def test_the_message_names_the_limit(encoded: Callable[[], bytes], message: str) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        _load(tf.constant(encoded()))


def test_scans_within_the_limit_are_decoded() -> None:
    few = _load(tf.constant(hostile_images.jpeg_of_scans(0, side_px=64)))
    many = _load(tf.constant(hostile_images.jpeg_of_scans(80, side_px=64)))
    assert few.shape == many.shape == (32, 32, 3)


def test_an_end_within_a_comment_hides_no_scans() -> None:
    jpeg = hostile_images.jpeg_of_scans(200, side_px=64)
    end_in_comment = b"\xff\xfe\x00\x04\xff\xd9"
    first_scan = jpeg.index(b"\xff\xda")
    next_block = jpeg.index(b"\xff\xda", first_scan + 2)
    hidden = jpeg[:next_block] + end_in_comment + jpeg[next_block:]
    with pytest.raises(tf.errors.InvalidArgumentError, match="scans"):
        _load(tf.constant(hidden))


def test_of_a_gif_only_the_first_frame_is_decoded(encode: Callable[..., bytes]) -> None:
    first = np.random.default_rng(0).integers(0, 255, (40, 60), np.uint8)
    frames = [Image.fromarray(first, "L"), Image.new("L", (60, 40), 7)]
    animated = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    encoded, size = structure.cut_gif(tf.constant(animated))
    assert len(encoded.numpy()) < len(animated)
    assert size.numpy().tolist() == [60, 40]
    alone = encode(frames[0], "GIF")
    assert np.array_equal(preprocessing.decode(tf.constant(animated)), preprocessing.decode(tf.constant(alone)))


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _load(encoded: tf.Tensor) -> tf.Tensor:
    return preprocessing.load(encoded, 32)


def _measure() -> Iterator[tuple[str, tuple[float, int]]]:
    for kind in ("jpeg_of_padding", "png_of_frames", "gif_of_frames"):
        _load(tf.constant(hostile_images.CORPUS[kind]()))
    for name in _NAMES:
        encoded = tf.constant(hostile_images.CORPUS[name]())
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before_s, before = _read_processor_s(), _read_peak()
        with suppress(tf.errors.InvalidArgumentError):
            _load(encoded)
        yield name, (_read_processor_s() - before_s, _read_peak() - before)


def _read_processor_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _read_peak() -> int:
    """Return the largest resident size since `clear_refs`, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dict(_measure())))
