"""Corruptions change what they should, the same way each time, and nothing of an image's form."""

import numpy as np
import pytest

from components.evaluation.corruption import CORRUPTIONS

IMAGE = np.random.default_rng(0).integers(60, 160, (64, 64, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruption_keeps_the_form_and_is_the_same_twice(name: str) -> None:
    before = IMAGE.copy()
    changed = CORRUPTIONS[name](IMAGE, 3)
    assert (changed.shape, changed.dtype) == (IMAGE.shape, np.uint8)
    assert np.array_equal(changed, CORRUPTIONS[name](IMAGE, 3))
    assert np.array_equal(IMAGE, before)
    assert np.array_equal(changed, IMAGE) is (name == "as they are")


def test_corruptions_do_what_they_are_called() -> None:
    changed = {name: corrupt(IMAGE, 0).astype(float) for name, corrupt in CORRUPTIONS.items()}
    plain = IMAGE.astype(float)
    assert changed["blurred"].std() < 0.5 * plain.std()
    assert (changed["noisy"] - plain).std() == pytest.approx(25, rel=0.1)
    assert changed["darkened"].mean() == pytest.approx(plain.mean() / 2, abs=0.5)
    assert changed["brightened"].mean() == pytest.approx(plain.mean() * 1.5, abs=0.5)
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (64, 64, 3))
    assert CORRUPTIONS["cropped"](ramp, 0)[0, [0, -1], 0].tolist() == pytest.approx([13, 50], abs=1)


def test_noise_is_that_of_the_position() -> None:
    assert not np.array_equal(CORRUPTIONS["noisy"](IMAGE, 0), CORRUPTIONS["noisy"](IMAGE, 1))
