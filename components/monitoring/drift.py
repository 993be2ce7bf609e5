"""Whether photos are still like those that a model was validated on, as far as its predictions show it.

Four questions, each a test that may be looked at after every photo (`sequential`): are the photos stranger, has the
confidence moved, has the mix of predicted classes, are the photos darker or brighter? A null hypothesis is that a mean
lies within a tolerance of validation's. The tolerance is what an option says, and what so few validation photos leave
open on top of it: 1.645 standard errors, so that 19 of 20 validation splits would have been within them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from components.artifacts.watch_reference import WatchReference
from components.monitoring import accuracy, sequential
from components.monitoring.accuracy import AccuracyEstimate
from components.options import check_at_least, check_fraction, check_range

NOTHING_FOUND, ALARM, TOO_LITTLE = 0, 3, 4
"""What a verdict is, and the exit status of the command."""

STRANGENESS, CONFIDENCE, CLASSES, BRIGHTNESS = "strangeness", "confidence", "classes", "brightness"
ERROR_SHARES = {STRANGENESS: 0.6, CONFIDENCE: 0.2, CLASSES: 0.15, BRIGHTNESS: 0.05}
"""How the questions share the probability of a false alarm: most often it is the strangeness that tells."""

_WEIGHTS = (0.75, 0.25)
"""Of the two measures of strangeness: that all photos are somewhat stranger, and that some are very strange, which is
seen soon enough with less."""

_STANDARD_ERRORS = NormalDist().inv_cdf(0.95)
_INTERVAL_ERROR = 0.05


@dataclass(frozen=True)
class WatchOptions:
    """What counts as moved, and how sure an alarm is.

    Attributes:
        false_alarm: the probability that there is ever an alarm, 0.0001–0.5, where nothing is beyond its tolerance.
        strangeness_tolerance: by which the mean squared p-value may be below one third, 0 to below 1.
        refused_tolerance: by which the share of refused photos may be above validation's, 0 to below 1.
        confidence_tolerance: by which the mean confidence may differ from validation's, 0 to below 1.
        class_tolerance: by which the share of a predicted class may differ from validation's, 0 to below 1.
        brightness_tolerance: by which the mean brightness may differ from validation's, 0 to below 1.
        accuracy_margin: half the width of an interval of the accuracy that is worth telling, 0.001–0.5.
        min_photos: with fewer photos it is too early to say that nothing is found, at least 1.
    """

    false_alarm: float = 0.05
    strangeness_tolerance: float = 0.01
    refused_tolerance: float = 0.02
    confidence_tolerance: float = 0.03
    class_tolerance: float = 0.1
    brightness_tolerance: float = 0.1
    accuracy_margin: float = 0.03
    min_photos: int = 300

    def __post_init__(self) -> None:
        check_range(self, 0.0001, 0.5, "false_alarm")
        check_range(self, 0.001, 0.5, "accuracy_margin")
        check_fraction(self, "strangeness_tolerance", "refused_tolerance", "confidence_tolerance", "class_tolerance")
        check_fraction(self, "brightness_tolerance")
        check_at_least(self, 1, "min_photos")


@dataclass(frozen=True)
class Predictions:
    """Predictions in the order in which the photos came.

    Attributes:
        probabilities: `float64 [N, C]`, 0–1, in the reference's order of classes.
        p_values: `float64 [N]`, 0–1; NaN where the model does not tell.
        are_known: `bool [N]`; nothing where the p-value is NaN.
        brightness: `float64 [N]`, mean grey values, 0–1; NaN where the photo is not at hand.
    """

    probabilities: NDArray[np.float64]
    p_values: NDArray[np.float64]
    are_known: NDArray[np.bool_]
    brightness: NDArray[np.float64]

    @property
    def confidence(self) -> NDArray[np.float64]:
        """The highest probability of each, `[N]`."""
        return self.probabilities.max(axis=1, initial=0)


@dataclass(frozen=True)
class Measure:
    """A mean over the photos beside what is tolerated.

    Attributes:
        name: what is measured.
        mean: of the photos; NaN without any.
        interval: between what the mean lies, 95 %, at all times at once.
        reference: validation's.
        tolerated: the least and the greatest mean that is no alarm.
        evidence: `[N]`, the natural logarithm, against the mean being tolerated.
    """

    name: str
    mean: float
    interval: tuple[float, float]
    reference: float
    tolerated: tuple[float, float]
    evidence: NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """The reply to one question.

    Attributes:
        question: one of `ERROR_SHARES`.
        error: its share of the probability of a false alarm.
        alarm_at: after how many photos there was an alarm; `None` without.
        evidence: the natural logarithm after each photo that tells of it, the mean of its measures'.
        photos: `int [M]`, which photos these are.
        measures: what it is made of.
    """

    question: str
    error: float
    alarm_at: int | None
    evidence: NDArray[np.float64]
    photos: NDArray[np.intp]
    measures: tuple[Measure, ...]


@dataclass(frozen=True)
class Verdict:
    """What watching found.

    Attributes:
        status: `NOTHING_FOUND`, `ALARM` or `TOO_LITTLE`.
        reason: in words.
        num_photos: that were watched.
        findings: one a question.
        accuracy: without labels.
    """

    status: int
    reason: str
    num_photos: int
    findings: tuple[Finding, ...]
    accuracy: AccuracyEstimate


def judge(predictions: Predictions, reference: WatchReference, options: WatchOptions) -> Verdict:
    """Compare predictions with the reference of their model."""
    num_photos = len(predictions.p_values)
    findings = tuple(
        _reply(question, photos, measures, error=options.false_alarm * ERROR_SHARES[question])
        for question, photos, measures in _measure(predictions, reference, options)
    )
    alarms = {finding.question: finding.alarm_at for finding in findings if finding.alarm_at}
    num_told = len(findings[0].photos)
    status = NOTHING_FOUND
    if alarms:
        status = ALARM
        reason = ", ".join(f"{question} moved (known after {at} photos)" for question, at in alarms.items())
    elif num_photos < options.min_photos:
        status, reason = TOO_LITTLE, f"{num_photos} photos, and it takes {options.min_photos} to say that nothing moved"
    elif num_told < options.min_photos:
        status = TOO_LITTLE
        reason = f"{num_told} photos have a p-value, and it takes {options.min_photos} to say that none are stranger"
    else:
        reason = "nothing is beyond its tolerance"
    estimate = accuracy.estimate(
        predictions.confidence,
        reference,
        margin=options.accuracy_margin,
        doubt=None if status == NOTHING_FOUND else reason,
    )
    return Verdict(status, reason, num_photos, findings, estimate)


def _measure(
    predictions: Predictions, reference: WatchReference, options: WatchOptions
) -> Iterator[tuple[str, NDArray[np.intp], tuple[Measure, ...]]]:
    """Yield each question, the photos that tell of it, and the measures."""
    num_examples = reference["num_examples"]
    told = np.flatnonzero(~np.isnan(predictions.p_values))
    # Of photos like those to validate on, p-values are uniform. Worse photos lose the highest ones first, which count
    # more in squares: validation photos at half their brightness are found sooner by these.
    mean, std = 1 / 3, math.sqrt(1 / 5 - 1 / 9)
    width = options.strangeness_tolerance + _leave_open(std, num_examples)
    squares = predictions.p_values[told] ** 2
    strangeness = [_compare("squared p-value", squares, mean, (max(0.0, mean - width), 1.0))]
    if reference["num_refused"]:
        share = reference["num_refused"] / (reference["num_scores"] + 1)
        width = options.refused_tolerance + _leave_open_share(share, num_examples)
        are_refused = (~predictions.are_known[told]).astype(float)
        strangeness.append(_compare("refused photos", are_refused, share, (0.0, min(1.0, share + width))))
    yield STRANGENESS, told, tuple(strangeness)

    everything = np.arange(len(predictions.p_values))
    mean = reference["confidence"]["mean"]
    width = options.confidence_tolerance + _leave_open(reference["confidence"]["std"], num_examples)
    yield CONFIDENCE, everything, (_compare("confidence", predictions.confidence, mean, _around(mean, width)),)

    predicted = predictions.probabilities.argmax(axis=1)
    classes = []
    for number, (name, count) in enumerate(zip(reference["class_names"], reference["predicted"], strict=True)):
        share = count / num_examples
        width = options.class_tolerance + _leave_open_share(share, num_examples)
        classes.append(_compare(name, (predicted == number).astype(float), share, _around(share, width)))
    yield CLASSES, everything, tuple(classes)

    told = np.flatnonzero(~np.isnan(predictions.brightness))
    mean = reference["brightness"]["mean"]
    width = options.brightness_tolerance + _leave_open(reference["brightness"]["std"], num_examples)
    yield BRIGHTNESS, told, (_compare("brightness", predictions.brightness[told], mean, _around(mean, width)),)


def _compare(name: str, values: NDArray[np.float64], reference: float, tolerated: tuple[float, float]) -> Measure:
    return Measure(
        name,
        mean=float(values.mean()) if len(values) else math.nan,
        interval=sequential.interval(values, _INTERVAL_ERROR),
        reference=reference,
        tolerated=tolerated,
        evidence=sequential.weigh_range(values, *tolerated),
    )


def _reply(question: str, photos: NDArray[np.intp], measures: tuple[Measure, ...], *, error: float) -> Finding:
    weights = _WEIGHTS if question == STRANGENESS and len(measures) == len(_WEIGHTS) else None
    evidence = sequential.mean_of([measure.evidence for measure in measures], weights)
    number = sequential.find_alarm(evidence, error)
    alarm_at = None if number is None else int(photos[number - 1]) + 1
    return Finding(question, error, alarm_at, evidence, photos, measures)


def _leave_open(std: float, num_examples: int) -> float:
    return _STANDARD_ERRORS * std / math.sqrt(num_examples)


def _leave_open_share(share: float, num_examples: int) -> float:
    # Wilson's centre: where no photo or every one is of a class, it need not stay so.
    share = (share * num_examples + 1) / (num_examples + 2)
    return _leave_open(math.sqrt(share * (1 - share)), num_examples)


def _around(mean: float, width: float) -> tuple[float, float]:
    return max(0.0, mean - width), min(1.0, mean + width)
