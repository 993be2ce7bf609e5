"""Predictions that were made, in their order: the output of `infer`, or what a server captured.

A folder with `.parquet` files, or such a file, is an output of `infer`; any other folder is captured traffic. One
version of one model is watched; what is of others, or has no prediction, is counted.

Captured traffic has the order in which it came. An output of `infer` has that of the photos' paths, in which all
photos of a folder stand together, as if the photos changed from one folder to the next: unless that order is wanted, it
is shuffled.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from components.errors import ComponentError
from components.monitoring.brightness import measure_brightness
from components.monitoring.drift import Predictions
from components.storage.bucket import is_url
from components.storage.store import open_store
from serving.shared.capture import Captured, read_captured

log = logging.getLogger(__name__)

OpenCaptured = Callable[[Path], Iterable[Captured]]
"""Reads a folder's records in the order in which they came."""

_COLUMNS = ["image", "probabilities", "model_version", "error", "p_value", "is_known"]
_NUM_ALL_MEASURED, _EVERY = 1000, 10
"""The brightness of so many photos is measured, and of each tenth that follows: each must be decoded."""
_SUCCESS = "_SUCCESS"
_SEED = 0


@dataclass(frozen=True)
class Record:
    """One prediction.

    Attributes:
        version: of the model; empty where it is not known.
        probabilities: by class, 0–1; empty where the photo could not be read.
        p_value: 0–1; `None` where the model does not tell.
        is_known: `None` likewise.
        name: the photo's path, URL or time; empty where nothing is known of it.
        image: the encoded photo; `None` where it is at the path, or was not kept.
        model_name: `None` where it is not known.
    """

    version: str
    probabilities: Mapping[str, float]
    p_value: float | None
    is_known: bool | None
    name: str = ""
    image: bytes | None = None
    model_name: str | None = None


@dataclass(frozen=True)
class Strange:
    """One of the strangest photos, and what the model takes it for."""

    p_value: float
    position: int
    label: str
    confidence: float
    is_known: bool
    name: str
    image: bytes | None


@dataclass(frozen=True)
class Traffic:
    """What is watched, and what is not.

    Attributes:
        predictions: of the version.
        strangest: of its photos, the strangest first.
        left_out: records that are not watched, by what they are.
        order: of the photos, in words.
    """

    predictions: Predictions
    strangest: list[Strange]
    left_out: Counter[str]
    order: str


def read_traffic(
    path_or_url: str,
    *,
    model_name: str,
    version: str,
    class_names: list[str],
    num_strangest: int,
    keeps_order: bool = False,
    open_captured: OpenCaptured = read_captured,
) -> Traffic:
    """Read the predictions of one version of a model.

    Args:
        path_or_url: a folder or a file.
        model_name: of the model.
        version: likewise.
        class_names: in the order of its reference.
        num_strangest: how many photos are kept, at most.
        keeps_order: whether the photos of an output of `infer` are taken in the order of their paths.
        open_captured: reads a folder of captured traffic.

    Raises:
        ComponentError: there are no predictions, none of this version, or they have other classes.
    """
    rows: list[tuple[float, ...]] = []
    left_out, strangest = Counter[str](), list[Strange]()
    records, is_by_path = _open(path_or_url, open_captured)
    for record in records:
        reason = _find_reason_against(record, model_name, version)
        if reason:
            left_out[reason] += 1
            continue
        if record.probabilities.keys() != set(class_names):
            raise ComponentError(
                f"Predictions must have the classes of the model that is watched, {', '.join(class_names)}. Received: "
                f"{', '.join(record.probabilities)} in {path_or_url}. Choose the model's own with --model-name and "
                "--models-dir."
            )
        probabilities = [record.probabilities[name] for name in class_names]
        p_value = math.nan if record.p_value is None else record.p_value
        if not math.isnan(p_value):
            number = int(np.argmax(probabilities))
            label, confidence = class_names[number], probabilities[number]
            strange = Strange(p_value, len(rows), label, confidence, bool(record.is_known), record.name, record.image)
            strangest = _keep(strangest, strange, num_strangest)
        is_measured = len(rows) < _NUM_ALL_MEASURED or len(rows) % _EVERY == 0
        brightness = measure_brightness(record.image or Path(record.name)) if is_measured else math.nan
        rows.append((p_value, bool(record.is_known), brightness, *probabilities))
    if not rows:
        found = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common()) or "no records"
        raise ComponentError(
            f"--input must hold predictions of the version that is watched, {version} of {model_name}. Received: "
            f"{path_or_url} ({found}). Choose another with --version."
        )
    table = np.array(rows, np.float64)
    order = "in the order of their paths" if is_by_path else "as they came"
    if is_by_path and not keeps_order:
        order = "in random order, as paths tell no time"
        np.random.default_rng(_SEED).shuffle(table)
    predictions = Predictions(
        probabilities=np.clip(table[:, 3:], 0, 1),
        p_values=np.clip(table[:, 0], 0, 1),
        are_known=table[:, 1] > 0,
        brightness=table[:, 2],
    )
    return Traffic(predictions, sorted(strangest, key=_rank)[:num_strangest], left_out, order)


def _find_reason_against(record: Record, model_name: str, version: str) -> str | None:
    """Return why a record is not watched, if it is not: what it is, after a number."""
    if record.model_name not in (None, model_name):
        return f"of model {record.model_name}"
    if not record.probabilities:
        return "without a prediction"
    if not all(map(math.isfinite, record.probabilities.values())):
        return "with a prediction that is no number"
    return None if record.version == version else f"of version {record.version or 'unknown'}"


def _keep(strangest: list[Strange], strange: Strange, num_strangest: int) -> list[Strange]:
    """Add a photo, and drop all but the strangest now and then: traffic may be larger than memory."""
    strangest.append(strange)
    return strangest if len(strangest) < 4 * num_strangest + 100 else sorted(strangest, key=_rank)[:num_strangest]


def _rank(strange: Strange) -> tuple[float, int]:
    return strange.p_value, strange.position


def _open(path_or_url: str, open_captured: OpenCaptured) -> tuple[Iterator[Record], bool]:
    """Return the records, and whether they are in the order of the photos' paths."""
    if path_or_url.endswith(".parquet") and Path(path_or_url).is_file():
        return _read_parquet(path_or_url, Path(path_or_url).read_bytes()), True
    store = open_store(path_or_url)
    names = store.names()
    parts = [name for name in names if name.endswith(".parquet") and name[0] not in "._"]
    if parts:
        if _SUCCESS not in names:
            log.warning("watch: %s is not finished; the photos that it has so far are watched", path_or_url)
        contents = zip(parts, store.read_each(parts), strict=True)
        return (row for name, found in contents for row in _read_parquet(f"{path_or_url}/{name}", found or b"")), True
    if is_url(path_or_url) or not Path(path_or_url).is_dir():
        raise ComponentError(
            "--input is an output of `python -m pipelines infer`, or a folder of captured traffic. Nothing is there: "
            f"{path_or_url}. Choose another --input."
        )
    return map(_of_captured, open_captured(Path(path_or_url))), False


def _read_parquet(path: str, content: bytes) -> Iterator[Record]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(BytesIO(content))
        for batch in file.iter_batches(columns=_COLUMNS):
            for row in batch.to_pylist():
                yield Record(
                    version=row["model_version"] or "",
                    probabilities=dict(row["probabilities"] or ()),
                    p_value=row["p_value"],
                    is_known=row["is_known"],
                    name=row["image"],
                )
    except (pa.ArrowException, OSError, KeyError, TypeError) as exc:
        raise ComponentError(
            f"--input must hold what `python -m pipelines infer` wrote. Received: {path}, which cannot be read "
            f"({exc}). The same infer command makes it again."
        ) from exc


def _of_captured(captured: Captured) -> Record:
    is_prediction = len(captured.probabilities) > 0
    return Record(
        version="" if captured.version is None else str(captured.version),
        probabilities=dict(zip(captured.class_names, map(float, captured.probabilities), strict=True))
        if is_prediction
        else {},
        p_value=captured.p_value,
        is_known=captured.is_known,
        name=captured.when.isoformat(timespec="seconds") if captured.when else "",
        image=captured.image,
        model_name=captured.model_name,
    )
