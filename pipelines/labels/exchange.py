"""Take the labels of a file into `labels.jsonl`, and write those of `labels.jsonl` to a file."""

import difflib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from components.artifacts.labels import UNDO, Decision, add_decisions, find_current, read_decisions
from components.artifacts.suspects import Suspect
from components.data.sources.unlabelled import open_unlabelled
from components.errors import DataError
from components.storage.files import atomic_write
from pipelines.authorship import now
from pipelines.labels import fiftyone, label_studio, plain_csv
from pipelines.labels.entries import Contents, Entry
from pipelines.labels.photos import Photo, find_in, find_known

CSV, LABEL_STUDIO, FIFTYONE = "csv", "label-studio", "fiftyone"
FORMATS = (CSV, LABEL_STUDIO, FIFTYONE)


@dataclass(frozen=True)
class LastRun:
    """What the newest run knows of photos.

    Attributes:
        photos: SHA-256 by path.
        class_names: of its examples.
        suspects: labels that it doubts.
    """

    photos: Mapping[str, str] = field(default_factory=dict)
    class_names: Sequence[str] = ()
    suspects: Sequence[Suspect] = ()


@dataclass(frozen=True)
class Imported:
    """What became of the entries of a file.

    Attributes:
        added: decisions that were added.
        num_current: entries that said what counts already.
        num_undecided: photos that the file names without a label.
        num_repeated: entries on the same photo as an earlier one, by its content.
        new_classes: that neither the last run nor an earlier decision has.
        left_out: why an entry was not imported, a line for each.
    """

    added: list[Decision]
    num_current: int
    num_undecided: int
    num_repeated: int
    new_classes: list[str]
    left_out: list[str]


def read_file(path: Path, format_: str | None) -> Contents:
    """Read a file of labels.

    Args:
        path: of the file.
        format_: one of `FORMATS`; without, what the file looks like.

    Raises:
        DataError: the file is not what it must be, or not known.
        OSError: it cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if format_ == CSV or (format_ is None and path.suffix.lower() != ".json"):
            return plain_csv.read(text)
        value = _parse_json(text)
        if format_ == FIFTYONE or (format_ is None and fiftyone.is_fiftyone(value)):
            if not fiftyone.is_fiftyone(value):
                raise DataError("FiftyOne's JSON is an object with labels or samples. Received: another value.")
            return fiftyone.read(value)  # type: ignore[arg-type]
        if format_ == LABEL_STUDIO or label_studio.is_label_studio(value):
            return label_studio.read(value)
    except UnicodeDecodeError as exc:
        raise DataError(f"{path} must be text in UTF-8. Received: {exc}. Save it as UTF-8.") from exc
    except DataError as exc:
        raise DataError(f"{path}: {exc} Nothing was imported.") from exc
    raise DataError(
        f"A file of labels has the format {', '.join(FORMATS)}. Received: {path}, which looks like none of them. "
        "Choose one: --format"
    )


def import_labels(
    contents: Contents,
    *,
    labels: Path,
    last_run: LastRun,
    folder: str | None,
    who: str,
    why: str,
    new_classes: bool = False,
) -> Imported:
    """Add the decisions of a file that do not count already.

    Args:
        contents: of the file.
        labels: path of the decisions.
        last_run: where photos and classes are known from, beside earlier decisions.
        folder: path or URL where photos are looked for first.
        who: imports them; stands where the file does not say who decided.
        why: stands for the file in each decision.
        new_classes: accept names that are nearly those of known classes.

    Raises:
        DataError: a name is nearly that of a known class, or no photo of the file is known. Nothing is written.
        StorageError: the URL cannot be read. Nothing is written.
        OSError: the decisions cannot be written.
    """
    before = read_decisions(labels)
    current = find_current(before)
    known_names = {*last_run.class_names, *(d["label"] for d in current.values() if d["label"])}
    new = sorted({entry.label for entry in contents.entries if entry.label} - known_names)
    if not new_classes:
        _check_new(new, known_names, contents.entries)

    known = {**{d["photo"]: d["sha256"] for d in before if d["photo"]}, **last_run.photos}
    photos = _find(contents.entries, known, folder)
    left_out: list[str] = []
    by_content: dict[str, list[Decision]] = defaultdict(list)
    lines: dict[str, list[str]] = defaultdict(list)
    for entry in contents.entries:
        found = photos[entry.where]
        if len(found) != 1:
            candidates = ", ".join(photo.path for photo in found[:3]) + (" or others" if len(found) > 3 else "")
            left_out.append(f"{entry.where}: {entry.photo}: " + (f"may be {candidates}" if found else "no such photo"))
            continue
        by_content[found[0].sha256].append(_as_decision(entry, found[0], who=who, why=why))
        lines[found[0].sha256].append(entry.where)
    if contents.entries and not by_content:
        raise DataError(
            f"The photos of a file must be known. Received: {len(left_out)} that are not, such as {left_out[0]}. Say "
            "where they lie: --input FOLDER|URL"
        )
    added: list[Decision] = []
    num_current = num_repeated = 0
    for sha256, decisions in by_content.items():
        if not contents.is_history and len({(d["decision"], d["label"]) for d in decisions}) > 1:
            said = ", ".join(
                f"{d['label'] or d['decision']} ({w})" for d, w in zip(decisions, lines[sha256], strict=True)
            )
            left_out.append(f"{decisions[0]['photo']}: contradictory: {said}")
            continue
        num_repeated += len(decisions) - 1
        decision = find_current(decisions).get(sha256)
        now = current.get(sha256)
        if decision and now and (decision["decision"], decision["label"]) == (now["decision"], now["label"]):
            num_current += 1
        elif decision:
            added.append(decision)
        else:
            left_out.append(f"{decisions[0]['photo']}: undone in the file itself")
    if added:
        add_decisions(labels, added)
    kept = {decision["label"] for decision in added}
    new_kept = [name for name in new if name in kept]
    return Imported(added, num_current, contents.num_undecided, num_repeated, new_kept, left_out)


def export_labels(
    labels: Path, path: Path, *, format_: str, last_run: LastRun | None = None, whole_history: bool = False
) -> int:
    """Write the decisions that count to a file, which is replaced, and return their number.

    Args:
        labels: path of the decisions.
        path: of the file.
        format_: one of `FORMATS`.
        last_run: for Label Studio: its suspects that nobody decided on follow, with the labels that it suggests.
        whole_history: all decisions that were ever made; a CSV alone can hold them.

    Raises:
        DataError: the format cannot hold them.
        OSError: the file cannot be written.
    """
    if whole_history and format_ != CSV:
        raise DataError(f"Only a CSV holds the whole history. Received: --all with {format_}. Use --format csv.")
    if last_run and format_ != LABEL_STUDIO:
        raise DataError(f"Only Label Studio is given suspects. Received: {format_}. Use --format label-studio.")
    all_decisions = read_decisions(labels)
    current = find_current(all_decisions)
    if format_ == CSV:
        decisions: Iterable[Decision] = all_decisions if whole_history else current.values()
        text = plain_csv.write(decisions)
        count = len(all_decisions) if whole_history else len(current)
    elif format_ == FIFTYONE:
        text, count = fiftyone.write(current.values()), len(current)
    else:
        suspects = [
            (suspect, last_run.photos[suspect["photo"]])
            for suspect in (last_run.suspects if last_run else ())
            if last_run and suspect["is_suspect"] and suspect["photo"] in last_run.photos
        ]
        suspects = [(suspect, sha256) for suspect, sha256 in suspects if sha256 not in current]
        text, count = label_studio.write(current.values(), suspects), len(current) + len(suspects)
    with atomic_write(path) as temporary:
        # A photo's name may be no UTF-8; its SHA-256 names it all the same.
        temporary.write_bytes(text.encode(errors="backslashreplace"))
    return count


def undo(labels: Path, photos: Sequence[str], *, who: str) -> list[Decision]:
    """Take the decisions back that count for some photos, and return them.

    Args:
        labels: path of the decisions.
        photos: paths as `photos.find_known` takes them, or SHA-256.
        who: takes them back.

    Raises:
        DataError: one has no decision, or may be several photos. Nothing is written.
        OSError: the decisions cannot be written.
    """
    current = find_current(read_decisions(labels))
    by_path = {decision["photo"]: sha256 for sha256, decision in current.items()}
    found = find_known(photos, by_path)
    taken = []
    for photo in photos:
        matches = [photo] if photo in current else [each.sha256 for each in found.get(photo, [])]
        if len(matches) != 1:
            paths = ", ".join(f"{current[sha256]['photo']} ({sha256})" for sha256 in matches)
            raise DataError(
                f"undo takes back the decision on a photo. Received: {photo}, "
                + (f"which may be {paths}. Name one of them." if matches else f"on which {labels} has no decision.")
            )
        taken.append(current[matches[0]])
    taken = list({decision["sha256"]: decision for decision in taken}.values())
    when = now()
    add_decisions(
        labels,
        [{**each, "decision": UNDO, "label": None, "who": who, "when": when, "why": "undo"} for each in taken],
    )
    return taken


def _check_new(new: Iterable[str], known: Iterable[str], entries: Sequence[Entry]) -> None:
    by_folded = {name.casefold(): name for name in known}
    near = {name: difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.8) for name in new}
    wrong = {name: by_folded[matches[0]] for name, matches in near.items() if matches}
    if wrong:
        named = "; ".join(
            f"{name} ({next(entry.where for entry in entries if entry.label == name)}): did you mean {other}?"
            for name, other in wrong.items()
        )
        raise DataError(
            f"A label must be a class that is known, or one that looks like none. Received: {named} Correct the file, "
            "or accept them with --new-classes. Nothing was imported."
        )


def _find(entries: Sequence[Entry], known: Mapping[str, str], folder: str | None) -> dict[str, list[Photo]]:
    """Return the photos that each entry may mean, by where it stands: in the folder first, then among the known."""
    wanted = {entry.photo for entry in entries if not entry.sha256}
    found = find_in(wanted, open_unlabelled(folder)) if folder is not None else {}
    found = {**find_known(wanted - found.keys(), known), **found}
    paths = {sha256: path for path, sha256 in known.items()}
    return {
        entry.where: [Photo(paths.get(entry.sha256, entry.photo), entry.sha256)]
        if entry.sha256
        else found.get(entry.photo, [])
        for entry in entries
    }


def _as_decision(entry: Entry, photo: Photo, *, who: str, why: str) -> Decision:
    return Decision(
        sha256=photo.sha256,
        photo=photo.path,
        decision=entry.decision,
        label=entry.label,
        who=entry.who or who,
        when=entry.when or now(),
        why=f"{why}: {entry.why}" if entry.why else why,
    )


def _parse_json(text: str) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise DataError(f"The file must be JSON. Received: {exc}. Export it again.") from exc
    return value
