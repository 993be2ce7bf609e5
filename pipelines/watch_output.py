"""What watching found, for people and for machines: lines, an object, a page and metrics."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.classifier_client import ImageError
from components.artifacts.watch_reference import WatchReference
from components.bulk_inference.images import ListedImage, fetch_image
from components.errors import StorageError
from components.monitoring import exposition
from components.monitoring.drift import Verdict
from components.storage.files import atomic_write
from pipelines.traffic import Strange, Traffic


@dataclass(frozen=True)
class Watched:
    """What was watched, and what was found."""

    model_name: str
    version: int
    source: str
    reference: WatchReference
    traffic: Traffic
    verdict: Verdict


def describe(watched: Watched) -> dict[str, Any]:
    """Return it for machines."""
    verdict, accuracy = watched.verdict, watched.verdict.accuracy
    return {
        "status": verdict.status,
        "reason": verdict.reason,
        "model_name": watched.model_name,
        "version": watched.version,
        "input": watched.source,
        "num_photos": verdict.num_photos,
        "order": watched.traffic.order,
        "left_out": dict(watched.traffic.left_out),
        "questions": {
            finding.question: {
                "alarm_at": finding.alarm_at,
                "measures": {
                    measure.name: {
                        "mean": _to_number(measure.mean),
                        "interval": measure.interval,
                        "reference": measure.reference,
                        "tolerated": measure.tolerated,
                    }
                    for measure in finding.measures
                },
            }
            for finding in verdict.findings
        },
        "accuracy": {
            "expected": accuracy.accuracy,
            "interval": accuracy.interval,
            "reason": accuracy.reason,
        },
    }


def write_page(watched: Watched, path: Path) -> None:
    """Write the page, with thumbnails of the strangest photos where they are there."""
    # matplotlib and Jinja take a second, and who wants the exit status alone need not wait.
    from components.reporting import watch_page
    from components.reporting.gallery import to_thumbnail

    strangest = []
    for strange in watched.traffic.strangest:
        encoded = _fetch(strange)
        thumbnail = to_thumbnail(encoded) if encoded else None
        strangest.append(
            watch_page.StrangePhoto(
                strange.label, strange.p_value, strange.confidence, strange.is_known, strange.name, thumbnail
            )
        )
    html = watch_page.build(
        watched.verdict,
        watched.traffic.predictions,
        watched.reference,
        model=f"{watched.model_name} version {watched.version}",
        source=watched.source,
        order=watched.traffic.order,
        left_out=watched.traffic.left_out,
        strangest=strangest,
    )
    with atomic_write(path) as temporary:
        temporary.write_text(html, encoding="utf-8", errors="backslashreplace")


def write_metrics(watched: Watched, path: Path) -> None:
    """Write the metrics for node-exporter; it sees the old file or the new one."""
    text = exposition.to_text(
        watched.verdict, model_name=watched.model_name, version=str(watched.version), time_s=time.time()
    )
    with atomic_write(path) as temporary:
        temporary.write_bytes(text)


def to_lines(watched: Watched) -> Iterator[str]:
    """Yield what was found in words, a line a measure."""
    verdict = watched.verdict
    photos = f"{verdict.num_photos} photos of {watched.model_name} version {watched.version}"
    yield f"{photos}, {watched.traffic.order}: {verdict.reason}"
    for finding in verdict.findings:
        if not len(finding.photos):
            yield f"{finding.question}: cannot tell, as no record has what it takes"
            continue
        alarm = f"ALARM after {finding.alarm_at} photos" if finding.alarm_at else "no alarm"
        yield f"{finding.question}: {alarm}"
        for measure in finding.measures:
            low, high = measure.interval
            least, most = measure.tolerated
            yield (
                f"  {measure.name:<16} {measure.mean:.3f} ({low:.3f} to {high:.3f}); "
                f"validation {measure.reference:.3f}, tolerated {least:.3f} to {most:.3f}"
            )
    accuracy = verdict.accuracy
    if accuracy.accuracy is None or accuracy.interval is None:
        yield f"accuracy: cannot tell: {accuracy.reason}"
    else:
        low, high = accuracy.interval
        yield (
            f"accuracy: {accuracy.accuracy:.3f} ({low:.3f} to {high:.3f}), if photos are right as often as validation "
            "photos at the same confidence"
        )


def _fetch(strange: Strange) -> bytes | None:
    """Return the encoded photo; `None` where it was not kept, or is no more where it was."""
    if strange.image is not None or not strange.name:
        return strange.image
    try:
        fetched = fetch_image(ListedImage(strange.name))
        if isinstance(fetched, ImageError):
            return None
        return Path(fetched).read_bytes() if isinstance(fetched, str) else fetched
    except (OSError, StorageError):
        return None


def _to_number(value: float) -> float | None:
    """Return a number that JSON has."""
    return None if math.isnan(value) else value
