"""No image, however it is made, costs the client or the pipeline more than 2 s of a processor and 300 MB."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.hostile_images import CORPUS

ROOT = Path(__file__).resolve().parents[2]
MAX_S, MAX_MB = 2, 300
TAKEN = {
    *("jpeg_progressive", "jpeg_of_four_colours", "png_of_frames", "png_transparent", "png_of_palette"),
    *("png_of_16_bits", "gif_of_frames", "gif_of_large_frames", "gif_transparent", "webp_large", "avif_large"),
    *("webp_of_chunks", "webp_of_frames", "jp2_large"),
}
"""Large or long, but sound."""


@cache
def measure(entrance: str) -> dict[str, tuple[float, float, str]]:
    command = [sys.executable, "-m", "tests.hostile_images_cost", entrance]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=240).stdout
    costs: dict[str, Any] = json.loads(printed)
    return costs


def assert_cheap(entrance: str, name: str) -> None:
    seconds, megabytes, code = measure(entrance)[name]
    assert seconds <= MAX_S, f"{seconds:.1f} s, {megabytes:.0f} MB"
    assert megabytes <= MAX_MB, f"{seconds:.1f} s, {megabytes:.0f} MB"
    assert (code == "") == (name in TAKEN), code


@pytest.mark.parametrize("name", CORPUS)
def test_hostile_image_costs_the_client_little(name: str) -> None:
    assert_cheap("client", name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CORPUS)
def test_hostile_image_costs_the_pipeline_little(name: str) -> None:
    assert_cheap("pipeline", name)
