"""A release as a machine: fed what two versions return, it promotes one, rolls it back, or cannot tell.

It knows of no server, no file and no clock: fed the same again, it decides the same again. Each test has its part of
`ALPHA`, the probability at which a version that is not worse is rolled back, whichever test errs and whenever.

Pairs (shadow and offline): both versions see each photo. Split: each photo goes to one, drawn with probability
`share`. Then the share that the canary has of all failures says which fails more often; and a mean is compared by
weighting each value with the inverse of its probability, as Horvitz and Thompson do (JASA 1952).
"""

import math
from bisect import insort
from collections import Counter
from dataclasses import dataclass, field

from components.monitoring.betting import (
    NUM_PLANNED,
    Counts,
    log_evidence_above,
    log_evidence_below,
    log_evidence_of_planned_share,
    log_evidence_of_share,
    threshold,
    upper_limit,
)
from components.monitoring.observation import Observation, Reply
from components.options import check_above, check_at_least

ALPHA = {
    "errors": 0.004,
    "latency": 0.004,
    "refusals": 0.003,
    "disagreement": 0.002,
    "estimated accuracy": 0.002,
    "labelled accuracy": 0.035,
}
"""Sums to 5 %. Labels have most of it: small differences need it, while a crash is proved at any level."""
ALPHA_PROMOTED = 0.05
"""The probability of promoting what is worse than allowed; each of two ways has half of it."""

PROMOTE, ROLL_BACK, CONTINUE, CANNOT_TELL = "promote", "roll back", "continue", "cannot tell"
_SHARES = ("errors", "latency")
_NUM_REFERENCE = 5


@dataclass(frozen=True, kw_only=True)
class ReleaseOptions:
    """What a canary may do, and how long it is watched.

    Attributes:
        min_requests: compared before it is promoted.
        max_requests: compared before the release gives up.
        max_accuracy_drop: it is promoted when it is shown to be at most so much worse, 0–1.
        max_disagreement: it is rolled back when it is shown to predict another label more often than that, 0–1.
        max_refusal_increase: it is rolled back when it is shown to refuse so much more of the photos, 0–1.
        max_slowdown: a response is slow if it takes so many times as long as stable's.
        share: of the photos that go to the canary, in split; `None` where both see each.
    """

    min_requests: int = 200
    max_requests: int = 10_000
    max_accuracy_drop: float = 0.02
    max_disagreement: float = 0.2
    max_refusal_increase: float = 0.05
    max_slowdown: float = 2.0
    share: float | None = None

    def __post_init__(self) -> None:
        check_at_least(self, 1, "min_requests")
        check_at_least(self, self.min_requests, "max_requests")
        check_above(self, 1, "max_slowdown")
        rates = ["max_accuracy_drop", "max_disagreement", "max_refusal_increase"]
        for name in rates if self.share is None else [*rates, "share"]:
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be above 0 and below 1. Received: {getattr(self, name)}")


@dataclass(frozen=True)
class Verdict:
    """A decision, and why."""

    decision: str
    reason: str


@dataclass
class Release:
    """A comparison of two versions that goes on.

    Attributes:
        options: of the release.
        counts: what each test has seen, by its name; `drop` has the differences of labelled photos, and `changed` the
            photos with another label, or none because the canary failed; `first` has the first of "labelled accuracy",
            as many as its test is planned for.
    """

    options: ReleaseOptions
    counts: dict[str, Counter[float]] = field(
        default_factory=lambda: {name: Counter() for name in (*ALPHA, "drop", "changed", "first")}
    )
    num_compared: int = 0
    num_labelled: int = 0
    _against: str = ""
    _seen: dict[str, Observation | None] = field(default_factory=dict)
    _latencies_ms: list[float] = field(default_factory=list)
    _mix: dict[str, Counter[str]] = field(default_factory=lambda: {"stable": Counter(), "canary": Counter()})

    def observe(self, observation: Observation) -> None:
        """Take in what was returned for a photo."""
        stable, canary, is_new = observation.stable, observation.canary, observation.photo not in self._seen
        if is_new:
            self._seen[observation.photo] = observation
        if self.options.share is None:
            if stable and canary:
                self._observe_pair(stable, canary, observation.estimated_drop, is_new)
        elif is_new:
            # A photo always goes to the same version: what comes of it again is not drawn again.
            self._observe_one(stable, canary, self.options.share)

    def add_label(self, photo: str, truth: str | None) -> bool:
        """Take in the true label of a photo, `None` for none of the classes; return whether it could be used."""
        seen = self._seen.get(photo)
        if seen is None:
            return False
        self._seen[photo] = None  # each photo counts once
        self.num_labelled += 1
        stable, canary = (reply and not reply.is_right(truth) for reply in (seen.stable, seen.canary))
        share = self.options.share
        if share is None:
            self.counts["drop"][float(bool(canary)) - float(bool(stable))] += 1
            if canary != stable:
                self._count("labelled accuracy", float(bool(canary)))
            return True
        is_canary = seen.canary is not None
        is_wrong = bool(canary if is_canary else stable)
        self.counts["drop"][_weigh(float(is_wrong), is_canary, share)] += 1
        if is_wrong:
            self._count("labelled accuracy", float(is_canary))
        return True

    def verdict(self) -> Verdict:
        """Return the decision as of now."""
        options = self.options
        if self._against:
            return Verdict(ROLL_BACK, self._against)
        if self.num_compared < options.min_requests:
            return Verdict(CONTINUE, f"{self.num_compared} of at least {options.min_requests} requests are compared")
        proof = threshold(ALPHA_PROMOTED / 2)
        for name, words in (("drop", "labels show"), ("changed", "disagreement is so rare")):
            counts = self._promoting(name)
            if counts and log_evidence_below(counts, options.max_accuracy_drop, high=self._high(name)) >= proof:
                return Verdict(
                    PROMOTE,
                    f"no test speaks against it, and {words} that it is at most {self.upper(name):.1%} worse "
                    f"(allowed: {options.max_accuracy_drop:.1%})",
                )
        if self.num_compared >= options.max_requests:
            return Verdict(CANNOT_TELL, self.describe())
        return Verdict(CONTINUE, "no decision yet")

    def describe(self) -> str:
        """Return how far the comparison is: what is shown, and what is not."""
        if self._against:
            return self._against
        limits = [
            f"by {self.num_labelled} labels at most {self.upper('drop'):.1%}" if self.num_labelled else "no labels"
        ]
        limits.append(
            "a split sees no disagreement"
            if self.options.share
            else f"by disagreement at most {self.upper('changed'):.1%}"
        )
        return (
            f"after {self.num_compared} requests no test speaks against it; that it is at most "
            f"{self.options.max_accuracy_drop:.1%} worse must be shown, and is: {', '.join(limits)}"
        )

    def evidence(self) -> dict[str, dict[str, float]]:
        """Return for each test its log-evidence and what it needs to roll back, for people and records."""
        return {
            name: {
                "num_observations": self.counts[name].total(),
                "log_evidence": round(self._log_evidence(name), 3),
                "needed": round(threshold(alpha), 3),
            }
            for name, alpha in ALPHA.items()
        }

    def upper(self, name: str) -> float:
        """Return the upper limit of the loss of accuracy, by `drop` (labels) or by `changed` (disagreement)."""
        high = self._high(name)
        return min(upper_limit(self._promoting(name), ALPHA_PROMOTED / 2, low=-high, high=high), 1.0)

    def _observe_pair(self, stable: Reply, canary: Reply, estimated_drop: float | None, is_new: bool) -> None:
        self.num_compared += 1
        if stable.failed != canary.failed:
            self._count("errors", float(canary.failed))
        if stable.latency_ms and canary.latency_ms and not (stable.failed or canary.failed):
            is_slow = canary.latency_ms > self.options.max_slowdown * stable.latency_ms
            if is_slow or stable.latency_ms > self.options.max_slowdown * canary.latency_ms:
                self._count("latency", float(is_slow))
        if not is_new or stable.failed:
            return
        self.counts["changed"][float(canary.label != stable.label)] += 1
        if canary.failed:
            return
        self._count("disagreement", float(canary.label != stable.label))
        if stable.is_known is not None and canary.is_known is not None:
            self._count("refusals", float(stable.is_known) - float(canary.is_known))
        if estimated_drop is not None:
            self._count("estimated accuracy", round(estimated_drop, 2))

    def _observe_one(self, stable: Reply | None, canary: Reply | None, share: float) -> None:
        reply, is_canary = canary or stable, canary is not None
        if reply is None:
            return
        self.num_compared += is_canary
        if reply.failed:
            self._count("errors", float(is_canary))
            return
        if reply.latency_ms is not None:
            known = self._latencies_ms
            slow_ms = self.options.max_slowdown * known[len(known) // 2] if len(known) >= _NUM_REFERENCE else math.inf
            if reply.latency_ms > slow_ms:
                self._count("latency", float(is_canary))
            if not is_canary:
                insort(known, reply.latency_ms)
        if reply.label is not None:
            own, other = self._mix["canary"], self._mix["stable"]
            # The labels that the canary has predicted more often so far: a set that this photo had no part in.
            is_in = own[reply.label] / max(own.total(), 1) > other[reply.label] / max(other.total(), 1)
            self._count("disagreement", _weigh(float(is_in), is_canary, share))
            self._mix["canary" if is_canary else "stable"][reply.label] += 1
        if reply.is_known is not None:
            self._count("refusals", _weigh(float(not reply.is_known), is_canary, share))
        if reply.probability is not None:
            self._count("estimated accuracy", _weigh(round(1 - reply.probability, 2), is_canary, share))

    def _count(self, name: str, value: float) -> None:
        self.counts[name][value] += 1
        if name == "labelled accuracy" and self.counts[name].total() <= NUM_PLANNED:
            self.counts["first"][value] += 1
        if value > 0 and not self._against and self._log_evidence(name) >= threshold(ALPHA[name]):
            told = ", ".join(f"{value:g}: {num}" for value, num in sorted(self.counts[name].items())[:8])
            self._against = (
                f"{name} of the canary: the evidence is {math.exp(min(self._log_evidence(name), 700)):.3g} to 1 that "
                f"it is worse than allowed, and {1 / ALPHA[name]:.0f} is enough (values seen: {told})"
            )

    def _log_evidence(self, name: str) -> float:
        counts, options = self.counts[name], self.options
        if name in _SHARES:
            return log_evidence_of_share(counts[1.0], counts[0.0], options.share or 0.5)
        if name == "labelled accuracy":
            first = self.counts["first"][1.0]
            return log_evidence_of_planned_share(counts[1.0], counts[0.0], first, options.share or 0.5)
        bound = {
            "disagreement": options.max_disagreement,
            "refusals": options.max_refusal_increase,
            "estimated accuracy": options.max_accuracy_drop,
        }[name]
        low = -1 / (1 - options.share) if options.share else 0.0 if name == "disagreement" else -1.0
        return log_evidence_above(counts, bound, low=low)

    def _high(self, name: str) -> float:
        return 1 / self.options.share if self.options.share else 1.0

    def _promoting(self, name: str) -> Counts:
        """Return the counts that may prove how much is lost; in split a disagreement is not seen."""
        return {} if name == "changed" and self.options.share else self.counts[name]


def _weigh(value: float, is_canary: bool, share: float) -> float:
    """Return a value whose mean is the canary's minus stable's."""
    return value / share if is_canary else -value / (1 - share)
