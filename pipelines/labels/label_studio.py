"""Label Studio's JSON of images with one choice each.

Written is what its import reads, tasks with annotations; read is what its exports JSON and JSON-MIN write
(https://labelstud.io/guide/task_format and https://labelstud.io/guide/export). A task carries the photo's SHA-256 in
its data, which Label Studio hands back. A cancelled annotation is a photo that somebody skipped.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from components.artifacts.labels import LABEL, SKIP, Decision
from components.artifacts.suspects import Suspect
from components.errors import DataError
from pipelines.labels.entries import NONE_OF_THESE, Contents, Entry, as_utc, decide

LOCAL_FILES = "/data/local-files/?d="
"""Where Label Studio serves local files: paths below LOCAL_FILES_DOCUMENT_ROOT (https://labelstud.io/guide/storage)."""

_OF_JSON_MIN = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement", "sha256"}


def is_label_studio(value: object) -> bool:
    """Return whether a JSON value looks like tasks."""
    return isinstance(value, list) or (isinstance(value, dict) and "data" in value)


def read(value: object) -> Contents:
    """Read a JSON value: a list of tasks, or one.

    Raises:
        DataError: a task is not as it must be; the message gives its number and id.
    """
    entries: list[Entry] = []
    num_undecided = 0
    for number, task in enumerate(value if isinstance(value, list) else [value], start=1):
        if not isinstance(task, dict):
            raise DataError(f"A task of Label Studio is a JSON object. Received: {task!r:.200} as task {number}.")
        where = f"task {number} (id {task['id']})" if "id" in task else f"task {number}"
        try:
            found = _read_task(task, where) if "data" in task else _read_flat(task, where)
        except (TypeError, AttributeError, KeyError) as exc:
            raise DataError(
                f"A task must be as Label Studio exports it. Received: {json.dumps(task):.200} as {where} ({exc})."
            ) from exc
        entries += found
        num_undecided += not found
    return Contents(entries, num_undecided)


def write(decisions: Iterable[Decision], suspects: Iterable[tuple[Suspect, str]] = ()) -> str:
    """Return tasks with annotations, and after them suspects (each with its SHA-256) with predictions."""
    tasks: list[dict[str, Any]] = []
    for decision in decisions:
        name = decision["label"] if decision["decision"] == LABEL else NONE_OF_THESE
        annotation: dict[str, Any] = {"result": [_choose(name)], "created_at": decision["when"]}
        if decision["decision"] == SKIP:
            annotation = {**annotation, "result": [], "was_cancelled": True}
        data = _describe(decision["photo"], decision["sha256"])
        tasks.append({"data": data, "annotations": [annotation], "meta": {"who": decision["who"]}})
    for suspect, sha256 in suspects:
        prediction = {"result": [_choose(suspect["suggested_label"])], "score": suspect["score"]}
        tasks.append({"data": _describe(suspect["photo"], sha256), "predictions": [prediction]})
    return json.dumps(tasks, indent=1) + "\n"


def _describe(photo: str, sha256: str) -> dict[str, str]:
    return {"image": photo if "://" in photo else LOCAL_FILES + quote(photo, errors="replace"), "sha256": sha256}


def _choose(label: str | None) -> dict[str, Any]:
    return {"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": [label]}}


def _read_task(task: Mapping[str, Any], where: str) -> list[Entry]:
    """Return what each annotation of a task says; none where it has none."""
    data, annotations = task["data"], task.get("annotations", task.get("completions", []))
    if not isinstance(data, dict) or not isinstance(annotations, list):
        raise DataError(f"A task must have data, an object, and annotations, a list. Received: neither in {where}.")
    photo, sha256 = _find_photo(data, where), _find_sha256(data)
    entries = []
    # A person marks the annotation that is right, where several were made.
    for annotation in [each for each in annotations if each.get("ground_truth")] or annotations:
        said = (sha256, _name(annotation.get("completed_by")), as_utc(annotation.get("created_at")))
        if annotation.get("was_cancelled"):
            entries.append(Entry(where, photo, SKIP, None, *said))
            continue
        results = [result for result in annotation.get("result", []) if result.get("type") == "choices"]
        choices = [choice for result in results for choice in result["value"].get("choices", [])]
        if choices:
            entries.append(Entry(where, photo, *decide(_only(choices, where), where), *said))
    return entries


def _read_flat(task: Mapping[str, Any], where: str) -> list[Entry]:
    """Return what a task of JSON-MIN says: its data and its results stand side by side, by their names."""
    key = _find_photo_key(task, where)
    others = {name: value for name, value in task.items() if name not in {*_OF_JSON_MIN, key}}
    choices = others.get("choice", next(iter(others.values())) if len(others) == 1 else None)
    if choices is None and others:
        raise DataError(
            f"A task of JSON-MIN must have one choice, best called choice. Received: {', '.join(others)} in {where}. "
            "Export as JSON instead."
        )
    if isinstance(choices, dict):
        choices = choices.get("choices")
    if not choices:
        return []
    label = _only(choices if isinstance(choices, list) else [choices], where)
    said = (_find_sha256(task), _name(task.get("annotator")), as_utc(task.get("created_at")))
    return [Entry(where, str(task[key]), *decide(label, where), *said)]


def _only(choices: list[Any], where: str) -> Any:
    if len(choices) != 1:
        raise DataError(f"A photo has one label. Received: {choices!r:.200} in {where}. Leave one of them.")
    return choices[0]


def _find_photo(data: Mapping[str, Any], where: str) -> str:
    return str(data[_find_photo_key(data, where)])


def _find_photo_key(data: Mapping[str, Any], where: str) -> str:
    """Return the key of a photo's path or URL: `image`, as in Label Studio's templates, or the only one like a path."""
    paths = [key for key, value in data.items() if isinstance(value, str) and ("/" in value or "." in value)]
    paths = [key for key in paths if key not in _OF_JSON_MIN]
    if "image" in data or len(paths) == 1:
        return "image" if "image" in data else paths[0]
    raise DataError(
        f"A task must name its photo, best as image. Received: the keys {', '.join(map(str, data))} in {where}."
    )


def _find_sha256(data: Mapping[str, Any]) -> str:
    text = str(data.get("sha256", "")).lower()
    return text if len(text) == 64 and set(text) <= set("0123456789abcdef") else ""


def _name(person: object) -> str:
    """Return who annotated: an email address, or the number that Label Studio gives a user."""
    if isinstance(person, dict):
        person = person.get("email") or person.get("id")
    if person is None:
        return ""
    return person if isinstance(person, str) else f"Label Studio user {person}"
