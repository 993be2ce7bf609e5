"""What watching found as metrics of Prometheus: a file for node-exporter's textfile collector."""

import math

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from components.monitoring.betting import threshold
from components.monitoring.drift import Verdict

_LABELS = ("model_name", "version")


def to_text(verdict: Verdict, *, model_name: str, version: str, time_s: float) -> bytes:
    """Return the metrics in the text format; what cannot be told has none.

    Args:
        verdict: what was found.
        model_name: whose predictions were watched.
        version: likewise.
        time_s: now, in seconds since 1970.
    """
    registry = CollectorRegistry()
    labels = (model_name, version)

    def gauge(name: str, text: str, *more: str) -> Gauge:
        return Gauge(f"classifier_watch_{name}", text, (*_LABELS, *more), registry=registry)

    gauge("timestamp_seconds", "When traffic was last watched, in seconds since 1970.").labels(*labels).set(time_s)
    gauge("photos", "Photos that were watched.").labels(*labels).set(verdict.num_photos)
    status = gauge("status", "The exit status: 0 nothing found, 3 alarm, 4 too little to tell.")
    status.labels(*labels).set(verdict.status)
    alarm = gauge("alarm", "1 where it is known that this has moved.", "question")
    evidence = gauge(
        "evidence", "The most evidence so far, as a share of what an alarm takes (logarithms).", "question"
    )
    mean = gauge("mean", "The mean of a measure over the photos.", "question", "measure")
    for finding in verdict.findings:
        alarm.labels(*labels, finding.question).set(finding.alarm_at is not None)
        most = finding.evidence.max(initial=0) / threshold(finding.error)
        evidence.labels(*labels, finding.question).set(most)
        for measure in finding.measures:
            if not math.isnan(measure.mean):
                mean.labels(*labels, finding.question, measure.name).set(measure.mean)
    if verdict.accuracy.accuracy is not None and verdict.accuracy.interval is not None:
        accuracy = gauge("accuracy", "The accuracy without labels, and its 95 % interval.", "bound")
        bounds = {"expected": verdict.accuracy.accuracy, "low": verdict.accuracy.interval[0]}
        for name, value in {**bounds, "high": verdict.accuracy.interval[1]}.items():
            accuracy.labels(*labels, name).set(value)
    return generate_latest(registry)
