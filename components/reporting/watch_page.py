"""The page of what watching found."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.artifacts.watch_reference import WatchReference
from components.monitoring.drift import ALARM, NOTHING_FOUND, STRANGENESS, Predictions, Verdict
from components.reporting import page, watch_plots

_PNG = "image/png"


@dataclass(frozen=True)
class StrangePhoto:
    """One of the strangest photos.

    Attributes:
        label: the most probable class.
        p_value: 0–1.
        confidence: 0–1.
        is_known: whether it is not refused.
        name: its path, URL or time.
        thumbnail: a data URI; `None` where the photo was not kept or cannot be read.
    """

    label: str
    p_value: float
    confidence: float
    is_known: bool
    name: str
    thumbnail: str | None


def build(
    verdict: Verdict,
    predictions: Predictions,
    reference: WatchReference,
    *,
    model: str,
    source: str,
    order: str,
    left_out: Mapping[str, int],
    strangest: Sequence[StrangePhoto],
) -> str:
    """Return the page as HTML that needs no other file.

    Args:
        verdict: what was found.
        predictions: in which.
        reference: of the model.
        model: its name and version, in words.
        source: of the predictions.
        order: of the photos, in words.
        left_out: records that are not watched, by what they are.
        strangest: photos, the strangest first.
    """
    told = next(finding.photos for finding in verdict.findings if finding.question == STRANGENESS)
    groups = defaultdict(list)
    for photo in strangest:
        groups[photo.label].append(photo)
    return page.template("watch").render(
        verdict=verdict,
        heading={NOTHING_FOUND: "Nothing found", ALARM: "Alarm"}.get(verdict.status, "Too little to tell"),
        tone={NOTHING_FOUND: "good", ALARM: "bad"}.get(verdict.status, ""),
        model=model,
        source=source,
        order=order,
        left_out=left_out,
        reference=reference,
        groups=sorted(groups.items(), key=lambda group: -len(group[1])),
        plots={
            "evidence": page.to_data_uri(watch_plots.evidence(verdict.findings), _PNG),
            "p_values": page.to_data_uri(watch_plots.p_values(predictions.p_values[told]), _PNG),
        },
    )
