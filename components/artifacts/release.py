"""Releases, beside the models: what was decided, by whom or what, and every observation that it stands on.

    <models>/.releases/<name>/<number>.json    the release and its decision, replaced atomically
    <models>/.releases/<name>/<number>.jsonl   its evidence: lines are added, never changed
    <models>/.releases/<name>/order.json       what a person asks of the release that goes on

A line of the evidence is an observation (`photo`, `stable`, `canary`, `estimated_drop`) or a label (`photo`, `label`).
Read again in order, they give the same decision again: so a release that was killed goes on. Photos are named by their
SHA-256; no photo is kept.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from components.storage.files import read_json, write_json, write_jsonl

RUNNING, PROMOTING, ROLLING_BACK = "running", "promoting", "rolling back"
PROMOTED, ROLLED_BACK, CANNOT_TELL, STOPPED = "promoted", "rolled back", "cannot tell", "stopped"
OPEN = (RUNNING, PROMOTING, ROLLING_BACK)
"""What goes on; a release that is promoting or rolling back is decided, and not yet in force on the server."""

_ORDER = "order.json"


class ReleaseRecord(TypedDict):
    """A release.

    Attributes:
        number: 1 for the first of a model.
        model_name: the model.
        stable: the version that serves when it begins.
        canary: the version to be released.
        mode: `shadow`, `split` or `offline`.
        salt: chooses the photos of a split.
        config: path of the server's `models.config`; `None` where the release changes no server.
        server: `host:port` of its REST API.
        options: of the comparison, by name.
        status: one of those above.
        who: decided: `tests`, or a person.
        reason: of the decision, or of its being open.
        started: UTC, ISO 8601.
        decided: the same; `None` while it is open.
        evidence: the tests at the decision, by name.
    """

    number: int
    model_name: str
    stable: int
    canary: int
    mode: str
    salt: str
    config: str | None
    server: str | None
    options: dict[str, float | None]
    status: str
    who: str
    reason: str
    started: str
    decided: str | None
    evidence: dict[str, dict[str, float]]


class Order(TypedDict):
    """What a person asks: `what` is `promote`, `roll back` or `stop`."""

    what: str
    who: str
    why: str


def releases_dir(models_dir: Path, model_name: str) -> Path:
    """Return the folder of a model's releases."""
    return models_dir / ".releases" / model_name


def read_releases(folder: Path) -> list[ReleaseRecord]:
    """Read all releases, the oldest first."""
    paths = (path for path in folder.glob("*.json") if path.stem.isdecimal())
    return [read_json(path) for path in sorted(paths, key=lambda path: int(path.stem))]


def write_release(folder: Path, record: ReleaseRecord) -> None:
    """Write a release, atomically."""
    write_json(folder / f"{record['number']}.json", record)


def add_evidence(folder: Path, number: int, lines: Iterable[Mapping[str, Any]]) -> None:
    """Add lines to a release's evidence."""
    write_jsonl(folder / f"{number}.jsonl", lines, append=True)


def read_evidence(folder: Path, number: int) -> list[dict[str, Any]]:
    """Read a release's evidence, but for a line that is not written to its end."""
    try:
        content = (folder / f"{number}.jsonl").read_bytes()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


def cut_evidence(folder: Path, number: int) -> None:
    """Cut off a line that a killed writer has not written to its end; hold the release's lock."""
    path = folder / f"{number}.jsonl"
    if path.exists():
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def write_order(folder: Path, order: Order) -> None:
    """Ask something of the release that goes on."""
    write_json(folder / _ORDER, order)


def read_order(folder: Path) -> Order | None:
    """Read what a person asks; `None` where nobody does."""
    try:
        order: Order = read_json(folder / _ORDER)
    except FileNotFoundError:
        return None
    return order


def remove_order(folder: Path) -> None:
    """Remove what a person asks, once it is done or comes too late."""
    (folder / _ORDER).unlink(missing_ok=True)
