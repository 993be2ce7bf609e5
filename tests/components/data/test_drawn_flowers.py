"""The drawn flowers: repeatable, varied, and told apart by shape."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from components.data.drawn_flowers import CLASS_NAMES, draw


def describe(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return histograms, float64 [64 + 4 * 4 * 8]: of colours, and of the edges' directions in 4x4 cells."""
    colours = np.bincount((image // 64 @ (16, 4, 1)).ravel(), minlength=64)
    down, across = np.gradient(image.mean(-1))
    strength, cells = np.hypot(down, across), np.arange(len(image)) * 4 // len(image)
    heading = ((np.arctan2(down, across) + np.pi) / (2 * np.pi) * 8).astype(int) % 8
    bins = (cells[:, None] * 4 + cells) * 8 + heading
    edges = np.bincount(bins.ravel(), strength.ravel(), minlength=128)
    return np.concatenate([np.sqrt(colours / colours.sum()), np.sqrt(edges / edges.sum())])


@pytest.mark.parametrize("class_name", CLASS_NAMES)
@pytest.mark.parametrize("size_px", [8, 65, 224])
def test_draw_returns_an_rgb_image_of_the_requested_size(class_name: str, size_px: int) -> None:
    image = draw(class_name, seed=3, size_px=size_px)
    assert image.shape == (size_px, size_px, 3)
    assert image.dtype == np.uint8
    assert image.std() > 10


@pytest.mark.parametrize("class_name", CLASS_NAMES)
def test_draw_repeats_itself_for_a_seed_and_for_no_other(class_name: str) -> None:
    image = draw(class_name, seed=7, size_px=64)
    np.testing.assert_array_equal(image, draw(class_name, seed=7, size_px=64))
    assert len({draw(class_name, seed=seed, size_px=64).tobytes() for seed in range(10)}) == 10


@pytest.mark.parametrize("class_name", CLASS_NAMES)
def test_draw_shows_one_scene_at_every_size(class_name: str) -> None:
    large = Image.fromarray(draw(class_name, seed=5, size_px=192)).resize((24, 24), Image.Resampling.BOX)
    small = Image.fromarray(draw(class_name, seed=5, size_px=96)).resize((24, 24), Image.Resampling.BOX)
    # Only the noise (at most 6 levels, here averaged over 16 pixels or more) and thin lines' rounding differ.
    assert np.abs(np.asarray(large, float) - np.asarray(small, float)).mean() < 5


def test_the_nearest_centroid_tells_the_kinds_apart() -> None:
    def describe_many(seeds: range) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        features = [describe(draw(name, seed=seed, size_px=48)) for name in CLASS_NAMES for seed in seeds]
        return np.stack(features), np.repeat(np.arange(len(CLASS_NAMES)), len(seeds))

    known, labels = describe_many(range(24))
    images, expected = describe_many(range(1000, 1012))
    centroids = np.stack([known[labels == label].mean(0) for label in range(len(CLASS_NAMES))])
    predictions = np.linalg.norm(images[:, None] - centroids, axis=-1).argmin(-1)
    assert (predictions == expected).mean() > 0.4  # 0.2 is chance, 0.59 was measured on 500 images


def test_draw_suggests_the_nearest_kind_for_an_unknown_one() -> None:
    with pytest.raises(ValueError, match=r"class_name='rose'.*Did you mean 'roses'\?.*daisy, dandelion, roses"):
        draw("rose", seed=0)
    with pytest.raises(ValueError, match=r"class_name='orchid'.*Use one of: daisy, dandelion, roses"):
        draw("orchid", seed=0)


@pytest.mark.parametrize(("seed", "size_px"), [(-1, 224), (0, 7)])
def test_draw_refuses_a_negative_seed_and_a_tiny_image(seed: int, size_px: int) -> None:
    with pytest.raises(ValueError, match=f"seed={seed}, size_px={size_px}"):
        draw("daisy", seed=seed, size_px=size_px)
