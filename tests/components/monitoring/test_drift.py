"""Traffic is judged by what moved, how surely, and what that leaves to say of its accuracy."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from components.artifacts.watch_reference import WatchReference
from components.monitoring import drift
from components.monitoring.drift import ALARM, NOTHING_FOUND, TOO_LITTLE, Predictions, Verdict, WatchOptions, judge
from components.monitoring.reference import summarize

NUM_SCORES, NUM_REFUSED = 1000, 30
NAMES = ["a", "b", "c"]


def draw(count: int, *, seed: int = 0, sharpness: float = 3) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return probabilities, and labels that are as often right as these say."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, sharpness, (count, len(NAMES)))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (generator.random((count, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    return probabilities, labels


def refer(count: int = 20_000) -> WatchReference:
    probabilities, labels = draw(count, seed=99)
    brightness = np.random.default_rng(98).normal(0.5, 0.1, count)
    return summarize(
        probabilities, labels, brightness, class_names=NAMES, num_scores=NUM_SCORES, num_refused=NUM_REFUSED
    )


def traffic(count: int = 1000, *, seed: int = 0, power: float = 1, share_strange: float = 0) -> Predictions:
    """Return predictions; p-values are uniform ones to a power, above 1 for stranger photos."""
    probabilities, _ = draw(count, seed=seed)
    generator = np.random.default_rng([seed, 1])
    p_values = generator.random(count) ** power
    p_values[generator.random(count) < share_strange] = 0.001
    brightness = np.random.default_rng([seed, 2]).normal(0.5, 0.1, count).clip(0, 1)
    return Predictions(probabilities, p_values, p_values > NUM_REFUSED / (NUM_SCORES + 1), brightness)


def alarms(verdict: Verdict) -> set[str]:
    return {finding.question for finding in verdict.findings if finding.alarm_at}


def test_unchanged_traffic_raises_few_alarms() -> None:
    reference = refer()
    verdicts = [judge(traffic(seed=seed), reference, WatchOptions()) for seed in range(60)]
    # 5 % at most, far less within the tolerances: 5 of 60 have a probability below 1 in 50 even at 5 %.
    assert sum(verdict.status == ALARM for verdict in verdicts) <= 4
    assert verdicts[0].status == NOTHING_FOUND
    assert verdicts[0].num_photos == 1000


@pytest.mark.parametrize(
    ("changed", "question"),
    [
        (traffic(power=1.6), drift.STRANGENESS),
        (traffic(share_strange=0.2), drift.STRANGENESS),
        (replace(traffic(), brightness=traffic().brightness * 0.6), drift.BRIGHTNESS),
        (replace(traffic(), probabilities=draw(1000, sharpness=1)[0]), drift.CONFIDENCE),
        (replace(traffic(), probabilities=draw(1000, sharpness=9)[0]), drift.CONFIDENCE),
        (replace(traffic(), probabilities=np.sort(draw(1000)[0], axis=1)), drift.CLASSES),
    ],
    ids=["stranger", "strange ones among them", "darker", "unsure", "too sure", "one class"],
)
def test_what_moved_is_named(changed: Predictions, question: str) -> None:
    verdict = judge(changed, refer(), WatchOptions())
    assert verdict.status == ALARM
    assert alarms(verdict) == {question}
    assert f"{question} moved (known after " in verdict.reason
    assert verdict.accuracy.accuracy is None
    assert verdict.accuracy.reason == verdict.reason


def test_tolerance_allows_what_would_be_an_alarm() -> None:
    changed = traffic(share_strange=0.2)
    tolerant = WatchOptions(strangeness_tolerance=0.3, refused_tolerance=0.3)
    assert judge(changed, refer(), tolerant).status == NOTHING_FOUND


def test_few_validation_photos_tolerate_more() -> None:
    many, few = (judge(traffic(), refer(count), WatchOptions()).findings[1].measures[0] for count in (20_000, 50))
    assert few.tolerated[0] < many.tolerated[0] < many.reference


def test_alarm_is_at_the_photo_that_gave_it_away() -> None:
    changed = traffic(2000)
    changed.p_values[500:] = 0.001
    changed.are_known[500:] = False
    changed.p_values[::2] = np.nan  # every second photo tells nothing
    found = judge(changed, refer(), WatchOptions()).findings[0].alarm_at
    assert found is not None
    assert 500 < found < 560


def test_few_photos_are_too_little_to_tell_but_enough_for_an_alarm() -> None:
    calm = judge(traffic(299), refer(), WatchOptions())
    assert calm.status == TOO_LITTLE
    assert calm.reason == "299 photos, and it takes 300 to say that nothing moved"
    assert calm.accuracy.reason == calm.reason
    assert judge(traffic(100, share_strange=0.9), refer(), WatchOptions()).status == ALARM


def test_photos_without_p_values_leave_it_open_whether_they_are_stranger() -> None:
    untold = replace(traffic(), p_values=np.full(1000, np.nan))
    verdict = judge(untold, refer(), WatchOptions())
    assert verdict.status == TOO_LITTLE
    assert verdict.reason == "0 photos have a p-value, and it takes 300 to say that none are stranger"


def test_model_that_refuses_nothing_is_watched_by_its_p_values_alone() -> None:
    reference: WatchReference = {**refer(), "num_refused": 0}
    measures = judge(traffic(), reference, WatchOptions()).findings[0].measures
    assert [measure.name for measure in measures] == ["squared p-value"]


def test_accuracy_is_told_within_its_interval_where_nothing_moved() -> None:
    reference = refer()
    for seed in range(20):
        probabilities, labels = draw(3000, seed=seed)
        found = judge(traffic(3000, seed=seed), reference, WatchOptions()).accuracy
        assert found.accuracy is not None
        assert found.interval is not None
        truth = (probabilities.argmax(axis=1) == labels).mean()
        assert found.accuracy == pytest.approx(truth, abs=0.03)
        assert found.interval[0] < found.accuracy < found.interval[1]


def test_accuracy_of_an_overconfident_model_is_corrected_by_validation() -> None:
    sharper, labels = draw(20_000, seed=99)
    sharper = sharper**2 / (sharper**2).sum(axis=1, keepdims=True)
    counts = {"num_scores": NUM_SCORES, "num_refused": NUM_REFUSED}
    reference = summarize(sharper, labels, np.full(20_000, 0.5), class_names=NAMES, **counts)
    probabilities, labels = draw(5000)
    truth = (probabilities.argmax(axis=1) == labels).mean()
    overconfident = probabilities**2 / (probabilities**2).sum(axis=1, keepdims=True)
    assert overconfident.max(axis=1).mean() - truth > 0.05
    found = judge(replace(traffic(5000), probabilities=overconfident), reference, WatchOptions()).accuracy
    assert found.accuracy == pytest.approx(truth, abs=0.02)


def test_accuracy_is_not_told_where_the_interval_is_wide() -> None:
    assert "for want of validation photos" in judge(traffic(), refer(100), WatchOptions()).accuracy.reason
    assert judge(traffic(), refer(100), WatchOptions(accuracy_margin=0.5)).accuracy.accuracy is not None


def test_accuracy_of_a_model_that_was_always_right_is_not_taken_for_certain() -> None:
    sure = np.tile([0.999, 0.0005, 0.0005], (100, 1))
    reference = summarize(sure, np.zeros(100, int), np.full(100, 0.5), class_names=NAMES, num_scores=100, num_refused=3)
    few = replace(traffic(2000), probabilities=np.tile(sure[0], (2000, 1)))
    found = judge(few, reference, WatchOptions(accuracy_margin=0.5)).accuracy
    assert found.interval is not None
    assert found.interval[0] < 0.97  # at 0.963 a hundred right ones have a probability of 1 in 43


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"false_alarm": 0}, r"false_alarm must be 0\.0001 to 0\.5\. Received: 0"),
        ({"class_tolerance": 1.0}, r"class_tolerance must be at least 0 and below 1\. Received: 1\.0"),
        ({"min_photos": 0}, r"min_photos must be at least 1\. Received: 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WatchOptions(**options)
