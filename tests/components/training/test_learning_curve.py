"""What more labels would gain."""

from typing import Any

import numpy as np
import pytest

from components.training.learning_curve import SHARES, extrapolate, measure


def draw(num_photos: int, *, num_classes: int = 3, num_features: int = 40, seed: int = 0) -> tuple[Any, Any]:
    """Draw features of classes that lie two standard deviations apart."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_classes, size=num_photos)
    features = rng.normal(size=(num_photos, num_features))
    features[np.arange(num_photos), labels] += 2
    return features.astype(np.float32), labels


def test_accuracy_grows_with_the_labels_and_so_does_what_is_measured() -> None:
    rights = measure([draw(200)], [draw(2000, seed=1)], num_classes=3)
    assert [right.shape for right in rights] == [(4, 2000), (4, 2000), (1, 2000)]
    accuracies = [right.mean() for right in rights]
    assert accuracies == sorted(accuracies)
    gain = extrapolate(rights)
    (twice,) = measure([draw(400, seed=2)], [draw(2000, seed=1)], num_classes=3)[-1]
    # Drawn with other photos, so that it may lie a little beyond.
    assert gain["low"] - 0.02 < twice.mean() - accuracies[-1] < gain["high"] + 0.02
    assert gain["low"] > 0


def test_parts_and_the_order_within_a_class_do_not_matter_to_all_labels() -> None:
    features, labels = draw(120)
    whole = measure([(features, labels)], [draw(50, seed=1)], num_classes=3)
    parts = [(features[start : start + 50], labels[start : start + 50]) for start in range(0, 120, 50)]
    first, second = draw(50, seed=1)
    in_parts = measure(parts, [(first[:20], second[:20]), (first[20:], second[20:])], num_classes=3)
    for one, other in zip(whole, in_parts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_each_quarter_has_its_part_of_each_class() -> None:
    # Quarters of three photos of each of four classes: with one photo of each, the nearest is right.
    labels = np.tile(np.arange(4), 4)
    features = np.eye(4, dtype=np.float32)[labels]
    rights = measure([(features, labels)], [(features[:4], labels[:4])], num_classes=4)
    assert all(right.all() for right in rights)


def test_labels_that_mean_nothing_promise_nothing() -> None:
    rng = np.random.default_rng(0)
    train, validation = draw(400), draw(300, seed=1)
    rights = measure([(train[0], rng.permutation(train[1]))], [validation], num_classes=3)
    assert extrapolate(rights)["low"] <= 0


def test_more_noise_means_a_wider_interval() -> None:
    few, many = (extrapolate(measure([draw(200)], [draw(num, seed=1)], num_classes=3)) for num in (50, 2000))
    assert few["high"] - few["low"] > 2 * (many["high"] - many["low"])


@pytest.mark.parametrize("num_photos", [1, 3, 8])
def test_a_handful_of_photos_and_an_absent_class_are_measured(num_photos: int) -> None:
    features, labels = draw(num_photos)
    rights = measure([(features, np.minimum(labels, 1))], [draw(10, seed=1)], num_classes=4)
    assert len(rights) == len(SHARES)
    gain = extrapolate(rights)
    assert all(np.isfinite(list(gain.values())))


def test_nothing_is_left_to_gain_where_all_are_right() -> None:
    everything = [np.ones((num, 30), bool) for num in (4, 4, 1)]
    assert extrapolate(everything) == {"expected": 0.0, "low": 0.0, "high": 0.0}
