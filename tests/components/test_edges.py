"""Edges are OpenCV's, a bit a pixel, and a step cut short goes on."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from components import edges
from components.artifacts.edges import read_edges, unpack
from components.artifacts.examples import shards
from components.data import transform
from components.edges import EdgesOptions

OPTIONS = EdgesOptions(image_size_px=100)


@pytest.fixture(scope="module")
def edges_dir(tmp_path_factory: pytest.TempPathFactory, examples_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("edges")
    edges.extract(examples_dir=examples_dir, validation_dir=folder, out_dir=folder, options=OPTIONS)
    return folder


@pytest.mark.parametrize("split", ["train", "test"])
def test_packed_edges_are_those_of_opencv(edges_dir: Path, examples_dir: Path, split: str) -> None:
    packed, labels = read_edges(edges_dir, split)
    photos = transform.read(shards(examples_dir, split), image_size_px=100)
    images, expected_labels = zip(*photos.as_numpy_iterator(), strict=True)
    np.testing.assert_array_equal(labels, expected_labels)
    assert packed.dtype == np.uint8
    assert packed.shape == (len(labels), 100 * 100 / 8)
    for row, image in zip(unpack(packed), images, strict=True):
        expected = cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 100, 200)
        np.testing.assert_array_equal(row.reshape(100, 100), expected / 255)
        assert 0 < row.sum() < row.size / 2


def test_a_lost_file_alone_is_made_again(edges_dir: Path, examples_dir: Path) -> None:
    (lost,) = edges_dir.glob("test-*.npz")
    before = {path.name: path.stat().st_mtime_ns for path in edges_dir.glob("train-*.npz")}
    content = lost.read_bytes()
    lost.unlink()
    edges.extract(examples_dir=examples_dir, validation_dir=edges_dir, out_dir=edges_dir, options=OPTIONS)
    assert lost.read_bytes() == content
    assert {path.name: path.stat().st_mtime_ns for path in edges_dir.glob("train-*.npz")} == before


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"image_size_px": 4}, "image_size_px must be at least 8"),
        ({"image_size_px": 250}, "its square a multiple of 8. Received: 250"),
        ({"low_threshold": 201}, "low_threshold must be 0 to high_threshold. Received: 201 and 200"),
    ],
    ids=str,
)
def test_options_out_of_range_are_errors(wrong: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        EdgesOptions(**wrong)
