"""What the command prints of results: a table or JSON lines, with a progress bar where there are many."""

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from typing import TextIO, TypeAlias

from .client import Prediction
from .errors import ImageError

Results: TypeAlias = Iterator[Prediction | ImageError]

REFUSED = "none of these"
"""Of an image that looks like none of the classes."""

_TABLE_TOP_K = 3
_MANY = 16
_BAR_CHARS = 30
_CLEAR_LINE = "\r\x1b[K"


def to_text(name: str) -> str:
    """Return a name with what is not printed, such as control characters and marks of direction, as escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)


def print_json(results: Results, top_k: int | None) -> bool:
    """Print an object a line; return whether every image was readable."""
    is_readable = True
    for result in results:
        if isinstance(result, ImageError):
            is_readable = False
            document = {"image": result.image, "error": result.reason}
        else:
            probabilities = dict(islice(result.probabilities.items(), top_k))
            document = asdict(replace(result, probabilities=probabilities, latency_ms=round(result.latency_ms, 2)))
        print(json.dumps(document), flush=True)
    return is_readable


def print_table(results: Results, top_k: int | None, image_chars: int) -> bool:
    """Print a row for each image, and a summary line; return whether every image was readable."""
    is_readable = True
    predictions = []
    for result in results:
        if isinstance(result, ImageError):
            is_readable = False
            print(f"{to_text(result.image):<{image_chars}}  {to_text(result.reason)}")
            continue
        predictions.append(result)
        labels = [(to_text(label), probability) for label, probability in result.probabilities.items()]
        label_chars = max(len(label) for label, _ in labels)
        best = labels[: top_k or _TABLE_TOP_K]
        row = "  ".join(f"{label:<{label_chars}} {probability:6.1%}" for label, probability in best)
        print(f"{to_text(result.image):<{image_chars}}  {_describe_limits(result, row)}")
    if predictions:
        latency_ms = statistics.median(prediction.latency_ms for prediction in predictions)
        version = to_text(predictions[-1].model_version) or "unknown"
        print(f"model version {version}, {latency_ms:.1f} ms (median){_count_refused(predictions)}")
    return is_readable


def _describe_limits(prediction: Prediction, row: str) -> str:
    """Return a row with what the model says of its limits: before it a column, after it the set where it is larger."""
    if prediction.p_value is None or prediction.prediction_set is None:
        return row
    row = f"{'' if prediction.is_known else REFUSED:<{len(REFUSED)}}  p={prediction.p_value:.3f}  {row}"
    if prediction.is_known and len(prediction.prediction_set) > 1:
        row += f"  set: {', '.join(map(to_text, prediction.prediction_set))}"
    return row


def _count_refused(predictions: Sequence[Prediction]) -> str:
    """Return how many images look like none of the classes, as the end of a line; empty where no model says so."""
    known = [prediction.is_known for prediction in predictions if prediction.is_known is not None]
    if not known:
        return ""
    num_refused = known.count(False)
    return f", {num_refused} of {len(known)} {'looks' if num_refused == 1 else 'look'} like {REFUSED}"


def show_progress(results: Results, total: int, stream: TextIO) -> Results:
    """Pass results on, and draw a progress bar below them where there are many and the stream is a terminal."""
    if total <= _MANY or not stream.isatty():
        yield from results
        return
    try:
        for done, result in enumerate(results, start=1):
            print(end=_CLEAR_LINE, file=stream, flush=True)
            yield result
            bar = "#" * (_BAR_CHARS * done // total)
            print(end=f"[{bar:<{_BAR_CHARS}}] {done}/{total}", file=stream, flush=True)
    finally:
        print(end=_CLEAR_LINE, file=stream, flush=True)
