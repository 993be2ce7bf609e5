"""Read what was captured: one entry for each photo, in order of time, whoever wrote it."""

import heapq
import io
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from PIL import Image

from client.classifier_client.transports import prediction_pb2
from serving.shared.capture.messages import PredictionLog, read_numbers, read_strings
from serving.shared.capture.tfrecord import SUFFIX, TornError, read_records
from serving.shared.capture.writer import parse_name

log = logging.getLogger(__name__)

_INCOMPLETE = "files whose last record is incomplete, as of a writer that was killed or writes just now"
_DAMAGED = "damaged records"
_OTHER = "records of requests that no classifier like ours responds to"
_GONE = "files that went while they were read, or cannot be read"


class Captured(NamedTuple):
    """A photo that a model was asked about, and its prediction.

    Attributes:
        when: UTC, to the second; `None` where the record does not say.
        model_name: of the model.
        version: of the model; `None` where the record does not say.
        class_names: in the order of the probabilities.
        probabilities: `float32 [C]`.
        p_value: conformal p-value of the photo; `None`, as is the next, where the model does not tell.
        is_known: whether the photo looks like any of the classes.
        image: the encoded image; `None` where the scores alone are kept.
        prediction_set: the labels that together hold the truth; `None` where the model does not tell.
    """

    when: datetime | None
    model_name: str
    version: int | None
    class_names: tuple[str, ...]
    probabilities: NDArray[np.float32]
    p_value: float | None
    is_known: bool | None
    image: bytes | None
    prediction_set: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Position:
    """Where a photo is: a file, where its record begins there, and which photo of the record it is."""

    path: Path
    offset: int
    index: int


def read_captured(folder: Path) -> Iterator[Captured]:
    """Read all photos that were captured into the files below a folder, in order of time.

    What cannot be read is passed over, and said once, at the end.

    Raises:
        OSError: the folder cannot be read.
    """
    return (captured for _, captured in read_positions(folder))


def read_positions(folder: Path) -> Iterator[tuple[Position, Captured]]:
    """Do what `read_captured` does, and say where each photo is.

    Raises:
        OSError: the folder cannot be read.
    """
    next(folder.iterdir(), None)  # `rglob` finds nothing in a folder that it cannot read
    return _read_all(folder)


def read_at(position: Position) -> Captured:
    """Read a photo again.

    Raises:
        OSError: its file is gone, or cannot be read.
        ValueError: it holds something else now.
    """
    with position.path.open("rb") as file:
        file.seek(position.offset)
        try:
            record = next(read_records(file), None)
            if record and record.data is not None:
                return _to_captured(PredictionLog.FromString(record.data))[position.index]
        except (TornError, DecodeError, LookupError) as exc:
            raise ValueError(f"{position.path} has changed.") from exc
    raise ValueError(f"{position.path} has changed.")


def _read_all(folder: Path) -> Iterator[tuple[Position, Captured]]:
    passed_over: Counter[str] = Counter()
    for path, offset, message in _merge(folder, passed_over):
        try:
            photos = _to_captured(message)
        except (ValueError, OverflowError):
            passed_over[_OTHER] += 1
            continue
        yield from ((Position(path, offset, index), photo) for index, photo in enumerate(photos))
    if passed_over:
        found = ", ".join(f"{count} {what}" for what, count in passed_over.items())
        log.warning("captured requests of %s: passed over %s", folder, found)


def _merge(folder: Path, passed_over: Counter[str]) -> Iterator[tuple[Path, int, Any]]:
    """Yield all messages in order of time. Only files that overlap in time are open at once."""
    found = ((parse_name(path), path) for path in folder.rglob(f"*{SUFFIX}"))
    # A file of another program may have begun at any time.
    waiting = sorted((((parsed[1] if parsed else 0.0), path) for parsed, path in found), reverse=True)
    heap: list[tuple[float, int, Path, int, Any, Iterator[tuple[int, Any]]]] = []

    def push(number: int, path: Path, messages: Iterator[tuple[int, Any]]) -> None:
        for offset, message in messages:
            heapq.heappush(heap, (message.log_metadata.timestamp_secs, number, path, offset, message, messages))
            return

    while waiting or heap:
        # A record's time is cut to its second.
        while waiting and (not heap or waiting[-1][0] < heap[0][0] + 1):
            _, path = waiting.pop()
            push(-len(waiting), path, _read_file(path, passed_over))
        if heap:
            _, number, path, offset, message, messages = heapq.heappop(heap)
            yield path, offset, message
            push(number, path, messages)


def _read_file(path: Path, passed_over: Counter[str]) -> Iterator[tuple[int, Any]]:
    try:
        with path.open("rb") as file:
            for record in read_records(file):
                try:
                    message = PredictionLog.FromString(record.data) if record.data is not None else None
                except DecodeError:
                    message = None
                if message is None:
                    passed_over[_DAMAGED] += 1
                else:
                    yield record.offset, message
    except TornError:
        passed_over[_INCOMPLETE] += 1
    except OSError:
        passed_over[_GONE] += 1


def _to_captured(message: Any) -> list[Captured]:
    """Return the photos of a record.

    Raises:
        ValueError: it is of another request, or another model.
    """
    metadata, outputs = message.log_metadata, message.predict_log.response.outputs
    if not {"probabilities", "classes"} <= outputs.keys():
        raise ValueError("no classifier's response")
    probabilities, classes = read_numbers(outputs["probabilities"]), read_strings(outputs["classes"])
    if probabilities.ndim != 2 or probabilities.dtype != np.float32 or probabilities.shape != classes.shape:
        raise ValueError("no classifier's response")
    count = len(probabilities)
    p_values, are_known, sets = (
        read_numbers(outputs[name]) if name in outputs else None for name in ("p_value", "is_known", "prediction_set")
    )
    shapes = {1: (count,), 2: probabilities.shape}
    for limit, rank in ((p_values, 1), (are_known, 1), (sets, 2)):
        if limit is not None and limit.shape != shapes[rank]:
            raise ValueError("no classifier's response")
    images = _read_images(message.predict_log.request.inputs, count)
    seconds = metadata.timestamp_secs
    when = datetime.fromtimestamp(seconds, timezone.utc) if seconds else None
    version = metadata.model_spec.version.value if metadata.model_spec.HasField("version") else None
    photos = []
    for index in range(count):
        names = tuple(name.decode("utf-8", "replace") for name in classes[index])
        held = None if sets is None else tuple(name for name, is_in in zip(names, sets[index], strict=True) if is_in)
        photos.append(
            Captured(
                when=when,
                model_name=metadata.model_spec.name,
                version=version,
                class_names=names,
                probabilities=probabilities[index],
                p_value=None if p_values is None else float(p_values[index]),
                is_known=None if are_known is None else bool(are_known[index]),
                image=images[index],
                prediction_set=held,
            )
        )
    return photos


def _read_images(inputs: Any, count: int) -> list[bytes | None]:
    """Return the encoded images of a request; pixels become a BMP, which has one encoding alone."""
    for tensor in inputs.values():
        if tensor.dtype == prediction_pb2.DT_STRING and len(tensor.string_val) == count:
            return list(tensor.string_val)
        if tensor.dtype == prediction_pb2.DT_UINT8 and tensor.tensor_content:
            pixels = read_numbers(tensor)
            if pixels.ndim == 4 and len(pixels) == count and pixels.shape[3] == 3:
                return [_write_bmp(each) for each in pixels]
    return [None] * count


def _write_bmp(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "BMP")
    return buffer.getvalue()
