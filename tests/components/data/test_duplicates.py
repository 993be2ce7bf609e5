"""Difference hashes, and the search for pairs of them that are nearly the same."""

import itertools
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from components.data import drawn_flowers, duplicates
from components.data.duplicates import Looks


def hash_image(image: Image.Image) -> NDArray[np.uint32]:
    tiny = image.convert("L").resize((9, 9), Image.Resampling.BOX)
    return duplicates.difference_hash(np.asarray(tiny))


def looks(hashes: NDArray[np.uint32], colours: Any = None, contrast: float = 1.0) -> Looks:
    """Return what photos of these hashes look like, all of one colour unless others are given."""
    colours = np.zeros((len(hashes), 3), np.int16) if colours is None else np.array(colours, np.int16)
    return Looks(hashes, colours, np.full(len(hashes), contrast))


def count_bits(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> int:
    return sum((int(a) ^ int(b)).bit_count() for a, b in zip(one, other, strict=True))


def test_hash_is_set_where_brightness_rises() -> None:
    across = np.tile(np.arange(9, dtype=np.uint8), (9, 1))
    assert duplicates.difference_hash(across).tobytes() == b"\xff" * 8 + b"\0" * 8
    assert duplicates.difference_hash(across.T).tobytes() == b"\0" * 8 + b"\xff" * 8
    assert duplicates.difference_hash(across[:, ::-1]).tobytes() == b"\0" * 16
    assert duplicates.difference_hash(across).dtype == np.uint32


def test_hash_ignores_brightness_and_contrast_and_does_not_overflow() -> None:
    grey = np.random.default_rng(0).integers(0, 100, (9, 9), dtype=np.uint8)
    expected = duplicates.difference_hash(grey)
    np.testing.assert_array_equal(duplicates.difference_hash(grey + 50), expected)
    np.testing.assert_array_equal(duplicates.difference_hash(grey * 2), expected)
    extreme = np.zeros((9, 9), np.uint8)
    extreme[:, 1::2] = 255
    assert duplicates.difference_hash(extreme).tobytes()[:8] == b"\xaa" * 8


def test_copies_have_near_hashes_and_other_images_far_ones() -> None:
    drawn = [Image.fromarray(drawn_flowers.draw(name, seed=s)) for name in drawn_flowers.CLASS_NAMES for s in (1, 2)]
    hashes = [hash_image(image) for image in drawn]
    for image, found in zip(drawn, hashes, strict=True):
        assert count_bits(hash_image(image.resize((150, 150))), found) <= 4
    assert min(count_bits(a, b) for a, b in itertools.combinations(hashes, 2)) > 10


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), max_bits=st.integers(0, 3), num_rows=st.integers(0, 40))
def test_pairs_are_those_of_brute_force(seed: int, max_bits: int, num_rows: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**32, (num_rows, 4), dtype=np.uint32)
    for row in range(1, num_rows, 2):  # neighbours at 0 to 5 bits, anywhere in the hash
        hashes[row] = hashes[rng.integers(row)]
        for bit in rng.choice(128, rng.integers(6), replace=False):
            hashes[row, bit // 32] ^= np.uint32(1 << (bit % 32))
    found = [tuple(pair) for pair in duplicates.find_near_pairs(looks(hashes), max_bits=max_bits).tolist()]
    expected = {
        (a, b) for a, b in itertools.combinations(range(num_rows), 2) if count_bits(hashes[a], hashes[b]) <= max_bits
    }
    assert len(found) == len(set(found)), "each pair once"
    assert set(found) == expected


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), max_bits=st.integers(0, 3), num_rows=st.integers(0, 40))
def test_shadowed_rows_are_those_of_brute_force(seed: int, max_bits: int, num_rows: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**32, (num_rows, 4), dtype=np.uint32)
    for row in range(1, num_rows):  # copies, many of them the same
        if rng.integers(3):
            hashes[row] = hashes[rng.integers(row)]
            hashes[row, rng.integers(4)] ^= np.uint32(rng.integers(4))
    ranks = rng.integers(0, 3, num_rows)
    winners = {
        row: {
            other
            for other in range(num_rows)
            if ranks[other] > ranks[row] and count_bits(hashes[row], hashes[other]) <= max_bits
        }
        for row in range(num_rows)
    }
    found = duplicates.find_shadowed(looks(hashes), ranks, max_bits=max_bits)
    assert set(found) == {row for row, others in winners.items() if others}
    assert all(winner in winners[row] for row, winner in found.items())


def test_photos_of_another_colour_do_not_look_the_same_and_plain_ones_only_where_they_are_equal() -> None:
    hashes = np.zeros((3, 4), np.uint32)
    colours = [[200, 10, 10], [208, 12, 9], [10, 200, 10]]
    assert duplicates.find_near_pairs(looks(hashes, colours, contrast=0.2), max_bits=0).tolist() == [[0, 1]]
    assert duplicates.find_near_pairs(looks(hashes, colours, contrast=0.01), max_bits=3).tolist() == []
    assert duplicates.find_near_pairs(looks(hashes, [colours[0]] * 3, contrast=0.0), max_bits=3).tolist() == [
        [0, 1],
        [0, 2],
        [1, 2],
    ]


def test_rows_that_look_the_same_under_two_labels_are_conflicts() -> None:
    hashes = np.zeros((4, 4), np.uint32)
    hashes[3] = ~hashes[3]
    found = duplicates.find_conflicts(looks(hashes), np.array([0, 1, 0, 1]), np.array([0, 2, 0, 0]), max_bits=2)
    assert found == {0: 1, 1: 0, 2: 1}


@pytest.mark.parametrize("same", ["top", "everywhere"])
def test_many_photos_that_look_alike_in_part_or_as_a_whole_take_no_time(same: str) -> None:
    rng = np.random.default_rng(0)
    num_rows = 20_000  # two hundred million pairs
    hashes = rng.integers(0, 2**32, (num_rows, 4), dtype=np.uint32)
    hashes[:, : 1 if same == "top" else 4] = 0
    ranks = np.arange(num_rows) % 3
    started = time.perf_counter()
    found = duplicates.find_shadowed(looks(hashes), ranks, max_bits=2)
    assert time.perf_counter() - started < 20
    assert found == ({} if same == "top" else {row: 1 if row % 3 == 0 else 2 for row in np.flatnonzero(ranks < 2)})


@pytest.mark.parametrize("max_bits", [-1, 4])
def test_distance_that_the_search_cannot_promise_is_an_error(max_bits: int) -> None:
    with pytest.raises(ValueError, match=f"max_bits must be 0 to 3. Received: {max_bits}"):
        duplicates.find_near_pairs(looks(np.zeros((2, 4), np.uint32)), max_bits=max_bits)
