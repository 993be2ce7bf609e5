"""Labels are doubted for what their photos show, however photos are read, and however many classes are small."""

import numpy as np
import pytest
from numpy.typing import NDArray

from components.training.label_errors import Part, _Discriminant, cross_validate
from components.training.novelty import Moments

NUM_CLASSES, WIDTH = 4, 24


@pytest.fixture(scope="module")
def clean() -> Part:
    """400 embeddings of four classes that overlap a little, in no order."""
    rng = np.random.default_rng(3)
    labels = rng.permutation(np.arange(400) % NUM_CLASSES)
    centres = rng.normal(size=(NUM_CLASSES, WIDTH))
    rows = centres[labels] + 0.9 * rng.normal(size=(400, WIDTH))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def doubted(embeddings: NDArray[np.float32], labels: NDArray[np.int64], size: int = 1000) -> NDArray[np.bool_]:
    """Return which labels have a probability below 0.025, of photos that are read in parts of a size."""

    def read() -> list[Part]:
        return [(embeddings[a : a + size], labels[a : a + size]) for a in range(0, len(labels), size)]

    probabilities, _ = cross_validate(read, num_classes=NUM_CLASSES)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    return probabilities[np.arange(len(labels)), labels] < 0.025


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_changed_labels_are_found_and_few_others(clean: Part, share: float) -> None:
    embeddings, truth = clean
    rng = np.random.default_rng(0)
    changed = rng.random(400) < share
    labels = np.where(changed, (truth + rng.integers(1, NUM_CLASSES, 400)) % NUM_CLASSES, truth)
    found = doubted(embeddings, labels)
    assert found[changed].mean() >= 0.8
    assert changed[found].mean() >= 0.9
    assert doubted(*clean).mean() <= 0.01


def test_parts_make_no_difference(clean: Part) -> None:
    embeddings, truth = clean
    labels = np.where(np.arange(400) % 20 == 0, (truth + 1) % NUM_CLASSES, truth)
    np.testing.assert_array_equal(doubted(embeddings, labels, size=7), doubted(embeddings, labels))


def test_class_without_photos_is_never_suggested(clean: Part) -> None:
    embeddings, truth = clean
    labels = np.where(truth == 2, 1, truth)
    assert (cross_validate(lambda: [(embeddings, labels)], num_classes=NUM_CLASSES)[0][:, 2] < 1e-9).all()


def test_class_that_is_all_doubted_is_not_lost(clean: Part) -> None:
    # Its photos are those of another class: without them it would have none to be recognised by.
    embeddings, truth = clean
    labels = np.where((truth == 0) & (np.arange(400) % 3 == 0), 3, np.where(truth == 3, 1, truth))
    probabilities, _ = cross_validate(lambda: [(embeddings, labels)], num_classes=NUM_CLASSES)
    assert probabilities[labels == 3, 3].max() > 0.01


def test_photos_that_are_all_the_same_are_no_error() -> None:
    labels = np.arange(40) % NUM_CLASSES
    same = np.full((40, WIDTH), WIDTH**-0.5, np.float32)
    probabilities, _ = cross_validate(lambda: [(same, labels)], num_classes=NUM_CLASSES)
    np.testing.assert_allclose(probabilities, 0.25, atol=0.02)


def test_correction_is_what_learning_from_all_others_gives(clean: Part) -> None:
    embeddings, labels = clean[0][:60], clean[1][:60]
    moments = Moments(num_classes=NUM_CLASSES)
    moments.add(embeddings, labels)
    learned = np.ones(60, bool)
    logits, distances = _Discriminant(moments).judge(embeddings, labels, learned)
    _, _, covariance = moments.describe()
    ridge = np.trace(covariance) / WIDTH
    for index in range(0, 60, 7):
        others = np.arange(60) != index
        rest = Moments(num_classes=NUM_CLASSES)
        rest.add(embeddings[others], labels[others])
        counts, means, within = rest.describe()
        away = embeddings[index] - means
        inverse = np.linalg.inv(within * 59 / 60 + ridge * np.eye(WIDTH))
        squares = np.einsum("ce,ef,cf->c", away, inverse, away)
        np.testing.assert_allclose(logits[index], np.log(counts) - squares / 2, rtol=1e-4)
        assert distances[index] == pytest.approx(squares.min(), rel=1e-4)
