"""The metrics beside numbers worked out by hand or taken from the literature."""

import itertools
import math

import numpy as np
import pytest

from components.reporting import metrics


@pytest.mark.parametrize(
    ("num_right", "num_examples", "low", "high"),
    [
        # R. G. Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval_is_the_published_one(num_right: int, num_examples: int, low: float, high: float) -> None:
    # The table has four decimals.
    assert metrics.wilson_interval(num_right, num_examples) == pytest.approx([low, high], abs=5e-5)


def test_a_drop_without_a_margin_is_tested_as_by_mcnemar() -> None:
    for lost, won in [(1, 0), (5, 0), (8, 2), (16, 4), (40, 25)]:
        exact = sum(math.comb(lost + won, k) for k in range(lost, lost + won + 1)) / 2 ** (lost + won)
        assert metrics.drop_p_value(lost, won, 274) == pytest.approx(exact, abs=0.02)
    assert metrics.drop_p_value(0, 0, 274) == metrics.drop_p_value(3, 9, 274) == metrics.drop_p_value(0, 0, 0) == 0.5


@pytest.mark.parametrize("max_drop", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("num_examples", [20, 50, 274])
def test_a_model_at_the_margin_is_rarely_shown_to_be_worse(num_examples: int, max_drop: float) -> None:
    # On 5 % of the photos this model alone is right, on so much more the other alone.
    shares = [0.05 + max_drop, 0.05, 0.9 - max_drop]
    draws = np.random.default_rng(0).multinomial(num_examples, shares, size=2000)
    values = [metrics.drop_p_value(int(lost), int(won), num_examples, max_drop=max_drop) for lost, won, _ in draws]
    assert np.mean(np.array(values) < 0.05) < 0.06


def test_confusion_matrix_counts_true_classes_in_rows() -> None:
    labels, predicted = np.array([0, 0, 0, 1, 2]), np.array([0, 1, 1, 1, 0])
    assert metrics.confusion_matrix(labels, predicted, 3).tolist() == [[1, 2, 0], [0, 1, 0], [1, 0, 0]]


def test_precision_recall_and_f1_of_each_class() -> None:
    found = metrics.per_class(np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]]), ["a", "b", "empty"])
    assert found["a"]["precision"] == pytest.approx(3 / 5)
    assert found["a"]["recall"] == pytest.approx(3 / 4)
    assert found["a"]["f1"] == pytest.approx(2 * 3 / (4 + 5))
    assert found["b"]["precision"] == pytest.approx(4 / 5)
    assert found["b"]["recall"] == pytest.approx(4 / 6)
    assert found["b"]["recall_interval"] == metrics.wilson_interval(4, 6)
    assert found["empty"] == {
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "num_examples": 0,
        "recall_interval": [0.0, 1.0],
    }


def test_calibration_error_is_the_weighted_distance_of_confidence_and_accuracy() -> None:
    # Bins are 1/15 wide: 0.55 falls into the ninth, 0.95 and 1 into the last.
    found = metrics.calibration(np.array([0.55, 0.55, 0.95, 1.0]), np.array([True, False, True, True]))
    assert found["ece"] == pytest.approx(0.5 * abs(0.55 - 0.5) + 0.5 * abs(0.975 - 1))
    assert [b["num_examples"] for b in found["bins"]] == [0] * 8 + [2] + [0] * 5 + [2]
    assert found["bins"][8]["accuracy"] == 0.5
    assert found["bins"][0] == {
        "lower": 0.0,
        "upper": pytest.approx(1 / 15),
        "confidence": None,
        "accuracy": None,
        "num_examples": 0,
    }


def test_confident_and_right_is_perfectly_calibrated() -> None:
    assert metrics.calibration(np.ones(5), np.ones(5, bool))["ece"] == 0


def test_summary_puts_it_all_together() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]], np.float32)
    found = metrics.summarize(probabilities, np.array([0, 1, 1, 0]), ["a", "b", "c"])
    assert found["accuracy"] == 0.5
    assert found["accuracy_interval"] == metrics.wilson_interval(2, 4)
    assert found["num_examples"] == 4
    assert found["loss"] == pytest.approx(-(math.log(0.7) + math.log(0.8) + math.log(0.3) + math.log(0.2)) / 4)
    assert found["confusion_matrix"] == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert found["macro"]["recall"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert found["macro"]["precision"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert found["calibration"]["ece"] == pytest.approx((abs(0.7 - 1) + abs(0.8 - 1) + 0.5 + 0.6) / 4)


def test_impossible_prediction_costs_much_but_not_everything() -> None:
    found = metrics.summarize(np.array([[1.0, 0.0]], np.float32), np.array([1]), ["a", "b"])
    assert found["loss"] == pytest.approx(-math.log(1e-7))


def test_predictions_that_are_not_numbers_show_in_the_loss() -> None:
    found = metrics.summarize(np.array([[np.nan, np.nan], [0.9, 0.1]], np.float32), np.array([0, 0]), ["a", "b"])
    assert found["loss"] is None
    assert math.isnan(found["calibration"]["ece"])


def test_a_mean_rise_is_tested_as_by_student() -> None:
    rises = np.random.default_rng(0).normal(0.02, 0.2, 274)
    # scipy.stats.ttest_1samp(rises, 0.0, alternative="greater"), which knows that the deviation is estimated.
    t = rises.mean() / (rises.std(ddof=1) / math.sqrt(274))
    assert metrics.rise_p_value(rises) == pytest.approx(0.5 * math.erfc(t / math.sqrt(2)))
    assert metrics.rise_p_value(rises, max_rise=0.05) > 0.9
    assert metrics.rise_p_value(np.array([3.0])) == 0.5  # one example shows nothing
    assert metrics.rise_p_value(np.zeros(9)) == 1.0


def test_a_model_at_the_margin_is_rarely_shown_to_be_calibrated_worse() -> None:
    generator = np.random.default_rng(0)
    values = [metrics.rise_p_value(generator.exponential(0.3, 274) - 0.25, max_rise=0.05) for _ in range(2000)]
    assert np.mean(np.array(values) < 0.05) < 0.06


def test_auroc_counts_pairs_and_half_of_the_ties() -> None:
    known, foreign = np.array([0.1, 0.5, 0.9, 0.9]), np.array([0.1, 0.1, 0.5])
    pairs = [(k > f) + (k == f) / 2 for k in known for f in foreign]
    assert metrics.auroc(known, foreign) == pytest.approx(np.mean(pairs))
    assert metrics.auroc(foreign, known) == pytest.approx(1 - np.mean(pairs))
    assert metrics.auroc(known, known) == 0.5


@pytest.mark.parametrize("num_examples", [1, 7, 50, 274])
def test_risk_is_that_of_the_most_confident_share(num_examples: int) -> None:
    generator = np.random.default_rng(0)
    confidence, right = generator.random(num_examples).astype(np.float32), generator.random(num_examples) < 0.8
    points = metrics.risk_coverage(confidence, right)
    assert len(points) == min(num_examples, 50)
    assert points[-1]["coverage"] == 1
    order = np.argsort(-confidence)
    for point in points:
        count = round(point["coverage"] * num_examples)
        assert point["error"] == pytest.approx(1 - right[order[:count]].mean())
    worst = metrics.risk_coverage(np.array([0.9, np.nan, 0.4]), np.array([True, False, True]))
    assert [round(point["error"], 2) for point in worst] == [0.0, 0.0, 0.33]


def test_p_values_are_counted_in_bins_of_equal_ratios() -> None:
    found = metrics.p_value_histogram(np.float32([1, 0.57, 0.56, 0.1, 1 / 277, 1 / 1001, 0]))
    assert [each["num_examples"] for each in found] == [2, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 2]
    assert found[0]["upper"] == 1
    assert found[-1]["lower"] == 0
    assert all(above["lower"] == below["upper"] for above, below in itertools.pairwise(found))


def test_share_has_its_interval() -> None:
    found = metrics.share(np.array([True, False, False, False]))
    assert found == {"share": 0.25, "interval": metrics.wilson_interval(1, 4), "num_examples": 4}
