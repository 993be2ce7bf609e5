"""`blessing.json`: whether a validator lets a model be pushed, and every check for or against."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from components.storage.files import read_json, write_json

log = logging.getLogger(__name__)

_FILE = "blessing.json"


class Check(TypedDict):
    """One condition, and a message that says how it was met or missed."""

    name: str
    passed: bool
    message: str


class Blessing(TypedDict):
    """`blessing.json`: a model is blessed when it passes every check."""

    blessed: bool
    checks: list[Check]


def write_blessing(out_dir: Path, checks: Sequence[Check], *, validator: str) -> bool:
    """Write a blessing, log each check that failed, and return whether the model is blessed."""
    blessed = all(check["passed"] for check in checks)
    write_json(out_dir / _FILE, Blessing(blessed=blessed, checks=list(checks)))
    for check in checks:
        if not check["passed"]:
            log.warning("%s: not blessed: %s", validator, check["message"])
    return blessed


def read_blessing(validation_dir: Path) -> Blessing:
    """Read a blessing."""
    return read_json(validation_dir / _FILE)


def is_blessed(validation_dir: Path) -> bool:
    """Return whether a validator blessed the model."""
    return read_blessing(validation_dir)["blessed"]


def find_objection(validation_dir: Path) -> str | None:
    """Return what speaks against a push: the failed checks, or that there is no blessing; `None` if nothing does."""
    path = validation_dir / _FILE
    if not path.is_file():
        return f"there is no {path}"
    blessing = read_blessing(validation_dir)
    if blessing["blessed"]:
        return None
    return "; ".join(check["message"] for check in blessing["checks"] if not check["passed"]) or f"{path} says so"
