"""The distance to the training photos: as by hand, and defined for however few of them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from components.training.novelty import MAX_DIRECTIONS, Moments
from export.limits import measure


def draw(num_images: int, *, width: int = 12, num_classes: int = 3) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw embeddings of length 1 whose classes differ, and which differ within classes more in some directions."""
    rng = np.random.default_rng(0)
    labels = np.arange(num_images) % num_classes
    means = rng.normal(size=(num_classes, width))
    rows = means[labels] + rng.normal(size=(num_images, width)) * np.geomspace(1, 0.05, width)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def fit(embeddings: NDArray[np.float32], labels: NDArray[np.int64], num_classes: int = 3) -> tuple[NDArray, ...]:
    moments = Moments(num_classes=num_classes)
    for part in np.array_split(np.arange(len(labels)), 4):
        moments.add(embeddings[part], labels[part])
    return moments.fit()


def test_distance_is_that_of_mahalanobis_to_the_nearest_mean() -> None:
    """In units of the variance in the directions that are not kept: M. Tipping and C. Bishop, 1999."""
    embeddings, labels = draw(300)
    means = np.stack([embeddings[labels == label].mean(axis=0) for label in range(3)]).astype(np.float64)
    within = embeddings - means[labels]
    covariance = within.T @ within / 300
    # Of 12 directions all but one are kept.
    covariance += 0.1 * np.trace(covariance) / 12 * np.eye(12)
    other = draw(40)[0][::-1]
    offsets = other[:, np.newaxis] - means
    expected = np.einsum("ncd,de,nce->nc", offsets, np.linalg.inv(covariance), offsets).min(axis=1)
    expected *= np.linalg.eigvalsh(covariance)[0]
    distances = measure(other, *fit(embeddings, labels)).numpy()
    assert distances.shape == (40, 1)
    # float16 keeps 11 bits of directions and means of length up to 1.
    np.testing.assert_allclose(distances[:, 0], expected, atol=2e-3)
    assert expected.max() > 0.02


def test_no_more_directions_are_kept_than_photos_show() -> None:
    wide, labels = draw(30, width=400)
    assert fit(wide, labels)[0].shape == (400, 27)
    wide, labels = draw(300, width=400)
    assert fit(wide, labels)[0].shape == (400, MAX_DIRECTIONS)


@pytest.mark.parametrize(
    "labels",
    [[0, 1, 2], [0, 0, 2, 2, 0], [1], [1, 1]],
    ids=["one photo a class", "a class without", "one photo", "two"],
)
def test_few_photos_give_a_distance(labels: list[int]) -> None:
    embeddings = draw(len(labels))[0]
    distance = fit(embeddings, np.array(labels))
    assert distance[1].shape == (12, len(set(labels)))
    stranger = -embeddings[:1]
    distances = measure(np.concatenate([embeddings, stranger]), *distance).numpy()[:, 0]
    assert np.isfinite(distances).all()
    assert distances[-1] > distances[:-1].max() + 0.1


def test_equal_photos_give_a_distance() -> None:
    embeddings = np.repeat(draw(1)[0], 6, axis=0)
    distances = measure(np.concatenate([embeddings, -embeddings]), *fit(embeddings, np.zeros(6, np.int64))).numpy()
    np.testing.assert_allclose(distances[:, 0], [0] * 6 + [4] * 6, atol=5e-3)
