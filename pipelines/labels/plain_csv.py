"""A plain CSV of decisions: photo, sha256, decision, label, who, when, why. Spreadsheets and scripts read and write it.

A file needs `label`, and `photo` or `sha256`; other columns are passed over. As Excel writes them, files may begin with
a byte order mark, end lines with CR LF, and separate by semicolons.
"""

import csv
import io
from collections.abc import Iterable

from components.artifacts.labels import DECISIONS, LABEL, Decision
from components.errors import DataError
from pipelines.labels.entries import Contents, Entry, decide

COLUMNS = ("photo", "sha256", "decision", "label", "who", "when", "why")


def read(text: str) -> Contents:
    """Read a file's text.

    Raises:
        DataError: the columns or a line are not as they must be; the message gives the line.
    """
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    entries: list[Entry] = []
    num_undecided = 0
    names: list[str] = []
    try:
        for number, row in enumerate(rows):
            where = f"line {rows.line_num}"
            if number == 0:
                names = [name.strip().casefold() for name in row]
                if "label" not in names or not {"photo", "sha256"} & set(names):
                    raise DataError(
                        "The first line of a CSV names its columns: label, and photo or sha256. Received: "
                        f"{header.strip()[:200]!r}. Add the names."
                    )
            elif any(cell.strip() for cell in row):
                if len(row) != len(names):
                    raise DataError(
                        f"Each line must have the {len(names)} columns of the first. Received: {len(row)} in {where}: "
                        f"{delimiter.join(row)[:200]!r}. Correct it; a text with {delimiter!r} stands in quotes."
                    )
                entry = _parse({name: cell.strip() for name, cell in zip(names, row, strict=True)}, where)
                entries += [entry] if entry else []
                num_undecided += entry is None
    except csv.Error as exc:
        raise DataError(f"A CSV must be well-formed. Received: line {rows.line_num}: {exc}. Correct it.") from exc
    if not names:
        raise DataError(
            "A CSV names its columns in the first line: label, and photo or sha256. Received: an empty file."
        )
    return Contents(entries, num_undecided, is_history={"decision", "when"} <= set(names))


def write(decisions: Iterable[Decision]) -> str:
    """Return the file's text."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(decisions)
    return file.getvalue()


def _parse(row: dict[str, str], where: str) -> Entry | None:
    """Return what a line says; `None` for a photo without a label."""
    photo, sha256, label = row.get("photo", ""), row.get("sha256", "").lower(), row["label"]
    if sha256 and not (len(sha256) == 64 and set(sha256) <= set("0123456789abcdef")):
        raise DataError(f"sha256 must be 64 hexadecimal digits. Received: {sha256!r} in {where}. Correct or empty it.")
    if not (photo or sha256):
        raise DataError(f"Each line must name a photo by photo or sha256. Received: neither in {where}. Add one.")
    decision = row.get("decision", "").casefold()
    if decision and decision not in DECISIONS:
        raise DataError(
            f"decision must be one of {', '.join(DECISIONS)}, or empty. Received: {decision!r} in {where}. Correct it."
        )
    if decision in ("", LABEL):
        if not label and not decision:
            return None
        decision, name = decide(label, where)
    elif label:
        raise DataError(f"label must be empty where decision is {decision}. Received: {label!r} in {where}. Empty it.")
    else:
        name = None
    return Entry(where, photo, decision, name, sha256, *(row.get(key, "") for key in ("who", "when", "why")))
