"""`python -m pipelines watch` on traffic whose truth is known: false alarms, how soon a change is found, the accuracy.

Each photo is classified once in each condition, by the int8 LiteRT file; traffic is then drawn from these predictions
with replacement. Unchanged traffic is drawn from the test photos and those from elsewhere; the others from the same
photos after a corruption (`components.evaluation.corruption`), or with other things among them.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import photos
from client.classifier_client import LiteRTTransport
from client.classifier_client.preprocessing import load
from components.artifacts.watch_reference import WATCH_REFERENCE, WatchReference, parse_watch_reference
from components.evaluation.corruption import CORRUPTIONS
from components.monitoring import accuracy
from components.monitoring.drift import Predictions, WatchOptions, judge

NUM_UNCHANGED, NUM_CHANGED = 200, 100
"""Replays."""
LENGTH, SOON = 1000, 300
"""Photos of unchanged traffic, and those within which a change is to be found."""
OTHER_SHARE = 0.3
CHANGES = ("blurred", "darkened", "cropped")
_UNCHANGED = "as they are"
_CLASS = "*/*.jpg"


@dataclass(frozen=True)
class _Pool:
    """Predictions for photos, and whether they are right."""

    predictions: Predictions
    are_right: NDArray[np.bool_]

    def draw(self, rows: NDArray[np.intp]) -> Predictions:
        found = self.predictions
        return Predictions(*(values[rows] for values in vars(found).values()))

    def __add__(self, other: "_Pool") -> "_Pool":
        parts = self.predictions, other.predictions
        joined = Predictions(*(np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])))
        return _Pool(joined, np.concatenate([self.are_right, other.are_right]))


def measure(data: str, model_dir: Path, file: Path, *, elsewhere: Path | None, others: Path | None) -> None:
    """Print how often there is an alarm, and how well the accuracy is told, a line a kind of traffic."""
    path = model_dir / WATCH_REFERENCE
    if not path.is_file():
        sys.exit(f"watch needs a model with a reference, and there is no {path}: run make train")
    reference = parse_watch_reference(path.read_bytes())
    transport = LiteRTTransport(file, num_threads=1)
    with photos.folder(data) as folder:
        paths = sorted((folder / "test").glob(_CLASS)) + (sorted(elsewhere.glob(_CLASS)) if elsewhere else [])
        images = [load(path, name=path.name, size_px=transport.image_size_px()) for path in paths]
    labels = [path.parent.name for path in paths]
    pools = {name: _classify(transport, images, labels, name, reference) for name in (_UNCHANGED, *CHANGES)}
    generator = np.random.default_rng(0)
    _report_unchanged(pools[_UNCHANGED], reference, generator)
    for name in CHANGES:
        rows = (generator.integers(0, len(paths), SOON) for _ in range(NUM_CHANGED))
        _report_changed(name, pools[name], rows, reference)
    if others:
        paths = sorted(others.glob("*.jpg"))
        images = [load(path, name=path.name, size_px=transport.image_size_px()) for path in paths]
        pool = pools[_UNCHANGED] + _classify(transport, images, [""] * len(paths), _UNCHANGED, reference)
        num_known = len(labels)
        rows = (
            np.where(
                generator.random(SOON) < OTHER_SHARE,
                generator.integers(num_known, num_known + len(paths), SOON),
                generator.integers(0, num_known, SOON),
            )
            for _ in range(NUM_CHANGED)
        )
        _report_changed(f"{OTHER_SHARE:.0%} other things", pool, rows, reference)


def _classify(
    transport: LiteRTTransport, images: list[Image.Image], labels: list[str], change: str, reference: WatchReference
) -> _Pool:
    changed = [Image.fromarray(CORRUPTIONS[change](np.asarray(image), i)) for i, image in enumerate(images)]
    answers = transport.predict(changed)
    names = reference["class_names"]
    by_name = [dict(zip(answer.class_names, answer.probabilities, strict=True)) for answer in answers]
    probabilities = np.clip([[found[name] for name in names] for found in by_name], 0, 1)
    predictions = Predictions(
        probabilities,
        p_values=np.array([np.nan if answer.p_value is None else answer.p_value for answer in answers], np.float64),
        are_known=np.array([bool(answer.is_known) for answer in answers]),
        brightness=np.array([np.asarray(image.convert("L")).mean() / 255 for image in changed]),
    )
    predicted = [names[number] for number in probabilities.argmax(axis=1)]
    return _Pool(predictions, np.array(predicted) == np.array(labels))


def _report_unchanged(pool: _Pool, reference: WatchReference, generator: np.random.Generator) -> None:
    options = WatchOptions()
    num_alarms, told, errors = 0, list[float](), list[float]()
    for _ in range(NUM_UNCHANGED):
        rows = generator.integers(0, len(pool.are_right), LENGTH)
        predictions, truth = pool.draw(rows), pool.are_right[rows].mean()
        verdict = judge(predictions, reference, options)
        num_alarms += any(finding.alarm_at for finding in verdict.findings)
        if verdict.accuracy.accuracy is not None:
            told.append(verdict.accuracy.accuracy - truth)
        anyway = accuracy.estimate(predictions.confidence, reference, margin=1.0)
        errors.append((anyway.accuracy or 0.0) - truth)
    margin = options.accuracy_margin
    num_near = sum(abs(error) <= margin for error in told)
    print(
        f"watch, unchanged traffic: alarms in {num_alarms} of {NUM_UNCHANGED} replays of {LENGTH} photos; accuracy "
        f"told in {len(told)}, within {100 * margin:.0f} points in {num_near} of these (told in all, it would be off "
        f"by {100 * np.mean(errors):+.1f} points on average)",
        flush=True,
    )


def _report_changed(name: str, pool: _Pool, replays: Iterator[NDArray[np.intp]], reference: WatchReference) -> None:
    found, num_told = list[float](), 0
    for rows in replays:
        verdict = judge(pool.draw(rows), reference, WatchOptions())
        found.append(min((each.alarm_at for each in verdict.findings if each.alarm_at), default=np.inf))
        num_told += verdict.accuracy.accuracy is not None
    print(
        f"watch, {name}: found within {SOON} photos in {int(np.isfinite(found).sum())} of {len(found)} replays, after "
        f"{np.median(found):.0f} in the median; accuracy told in {num_told}",
        flush=True,
    )
