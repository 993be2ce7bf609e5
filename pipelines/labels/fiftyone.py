"""FiftyOne's JSON of images with one classification each.

Written is `labels.json` of a `fiftyone.types.FiftyOneImageClassificationDataset`: class names, and for each photo,
named without its ending, an index of them or null
(https://docs.voxel51.com/user_guide/export_datasets.html#fiftyoneimageclassificationdataset). Read is the same in all
its variants, and `samples`, as `write_json` and the export of a whole `FiftyOneDataset` write them.
"""

import json
import posixpath
from collections.abc import Iterable, Mapping
from typing import Any

from components.artifacts.labels import LABEL, NONE, Decision
from components.errors import DataError
from pipelines.labels.entries import NONE_OF_THESE, Contents, Entry, decide

_DATA = "data/"
"""The folder that FiftyOne copies photos to."""


def is_fiftyone(value: object) -> bool:
    """Return whether a JSON value looks like a data set."""
    return isinstance(value, dict) and bool({"labels", "samples"} & value.keys())


def read(value: Mapping[str, Any]) -> Contents:
    """Read a JSON value.

    Raises:
        DataError: an entry is not as it must be; the message gives its number and name.
    """
    return _read_samples(value["samples"]) if "samples" in value else _read_labels(value)


def write(decisions: Iterable[Decision]) -> str:
    """Return `labels.json`; photos that somebody skipped have no label.

    Raises:
        DataError: two photos have names that differ by their endings alone.
    """
    names: dict[str, str] = {}
    labels: dict[str, str | None] = {}
    for decision in decisions:
        photo = decision["photo"]
        key = posixpath.splitext(photo)[0]
        if key in names:
            raise DataError(
                f"FiftyOne knows photos by their names without endings. Received: {names[key]} and {photo}. Export a "
                "CSV, or rename one."
            )
        names[key] = photo
        labels[key] = {LABEL: decision["label"], NONE: NONE_OF_THESE}.get(decision["decision"])
    classes = sorted({label for label in labels.values() if label is not None})
    targets = {key: None if label is None else classes.index(label) for key, label in labels.items()}
    return json.dumps({"classes": classes, "labels": targets}, indent=1) + "\n"


def _read_labels(value: Mapping[str, Any]) -> Contents:
    classes, labels = value.get("classes"), value["labels"]
    if not isinstance(labels, dict) or not (classes is None or isinstance(classes, list)):
        raise DataError("FiftyOne's labels.json has labels, an object, and classes, a list or null. Received: others.")
    entries = []
    for number, (photo, target) in enumerate(labels.items(), start=1):
        where = f"entry {number} ({photo})"
        label = _only(target, where)
        if label is None:
            continue
        if isinstance(label, int) and not isinstance(label, bool) and classes is not None:
            if not 0 <= label < len(classes):
                raise DataError(
                    f"A label must be an index of the {len(classes)} classes. Received: {label} in {where}. Correct it."
                )
            label = classes[label]
        entries.append(Entry(where, photo, *decide(label, where)))
    return Contents(entries, num_undecided=len(labels) - len(entries))


def _read_samples(samples: object) -> Contents:
    if not isinstance(samples, list):
        raise DataError(f"FiftyOne's samples are a list. Received: {samples!r:.200}.")
    entries = []
    for number, sample in enumerate(samples, start=1):
        photo = sample.get("filepath") if isinstance(sample, dict) else None
        if not isinstance(photo, str):
            raise DataError(f"A sample of FiftyOne has a filepath. Received: {sample!r:.200} as sample {number}.")
        where = f"sample {number} ({photo})"
        fields = [k for k, v in sample.items() if isinstance(v, dict) and v.get("_cls") == "Classification"]
        if len(fields) > 1 and "ground_truth" not in fields:
            raise DataError(
                f"A sample must have one classification, or ground_truth. Received: {', '.join(fields)} in {where}. "
                "Export with that field alone: select_fields."
            )
        label = sample["ground_truth" if "ground_truth" in fields else fields[0]].get("label") if fields else None
        if label is not None:
            entries.append(Entry(where, photo.removeprefix(_DATA), *decide(label, where)))
    return Contents(entries, num_undecided=len(samples) - len(entries))


def _only(target: Any, where: str) -> Any:
    """Return the label of a target: itself, or that of an object with a confidence, or of a list of one."""
    if isinstance(target, list):
        if len(target) > 1:
            raise DataError(f"A photo has one label. Received: {target!r:.200} in {where}. Leave one of them.")
        target = target[0] if target else None
    return target.get("label") if isinstance(target, dict) else target
