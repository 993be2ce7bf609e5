"""`push.json`: whether a model was pushed, where to, and why or why not."""

from pathlib import Path
from typing import TypedDict

from components.artifacts.manifest import Lineage
from components.storage.files import read_json, write_json


class Push(TypedDict):
    """`push.json`: paths or URLs, null where nothing was pushed."""

    pushed: bool
    version: int | None
    path: str | None
    litert_path: str | None
    litert_files: list[str]
    reason: str


class PushedOrigin(TypedDict):
    """What a pushed model was made from, as it is kept with it; the files of both kinds are SHA-256 digests by name.

    `signed_by` is the fingerprint of the key or certificate, null where nobody signed; older models lack it.
    """

    version: int
    pushed: str
    model: Lineage
    evaluation: Lineage
    infra_validation: Lineage
    litert: Lineage
    files: dict[str, str]
    litert_files: dict[str, str]
    signed_by: str | None


def read_push(push_dir: Path) -> Push:
    """Read `push.json`."""
    return read_json(push_dir / "push.json")


def write_push(out_dir: Path, push: Push) -> None:
    """Write `push.json`."""
    write_json(out_dir / "push.json", push)
