"""`parity.json`: how far the predictions of each form of a model are from the reference's, on the same photos."""

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from components.storage.files import read_json, write_json

if TYPE_CHECKING:
    from export.parity import FormParity


class Parity(TypedDict):
    """`parity.json`: the form that the others are compared with, and a row for each of the others."""

    reference: str
    forms: "list[FormParity]"


def read_parity(parity_dir: Path) -> Parity:
    """Read `parity.json`."""
    return read_json(parity_dir / "parity.json")


def write_parity(out_dir: Path, parity: Parity) -> None:
    """Write `parity.json`."""
    write_json(out_dir / "parity.json", parity)
