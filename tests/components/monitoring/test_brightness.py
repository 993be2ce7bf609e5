"""Brightness of encoded photos, beside what the pipeline measures of its examples."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.monitoring.brightness import measure_brightness

Encode = Callable[..., bytes]


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_brightness_is_the_mean_of_the_grey_values(pixels: np.ndarray, encode: Encode, kind: str) -> None:
    expected = (pixels @ [0.299, 0.587, 0.114]).mean() / 255
    assert measure_brightness(encode(pixels, kind)) == pytest.approx(expected, abs=0.01)


def test_half_the_light_is_half_the_brightness(pixels: np.ndarray, encode: Encode, tmp_path: Path) -> None:
    (tmp_path / "dark.jpg").write_bytes(encode(pixels // 2, "JPEG"))
    bright, dark = measure_brightness(encode(pixels, "JPEG")), measure_brightness(tmp_path / "dark.jpg")
    assert dark == pytest.approx(bright / 2, abs=0.01)


def test_sixteen_bits_of_grey_are_as_bright_as_eight(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 128, (40, 50)).astype(np.uint8)
    for name, values in (("8.png", grey), ("16.png", grey.astype(np.uint16) * 257)):
        Image.fromarray(values).save(tmp_path / name)
    expected, found = (measure_brightness(tmp_path / name) for name in ("8.png", "16.png"))
    assert found == pytest.approx(expected, abs=0.001)


@pytest.mark.parametrize("photo", [b"", b"no photo", Path("nowhere.jpg"), Path()])
def test_what_is_no_photo_has_none(photo: bytes | Path) -> None:
    assert np.isnan(measure_brightness(photo))
