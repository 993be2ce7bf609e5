"""`python -m pipelines labels list | import | export | undo | extract`."""

import argparse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts.examples import read_examples, read_index
from components.artifacts.labels import LABEL, LABELS_FILE, NONE, SKIP, UNDO, find_current, read_decisions
from components.artifacts.suspects import read_suspects
from components.errors import DataError
from components.storage.files import read_json
from pipelines import captured
from pipelines.authorship import find_login
from pipelines.folders import Folders
from pipelines.labels import exchange
from pipelines.labels.exchange import CSV, FORMATS, LastRun

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_parser(commands: "_SubParsersAction[argparse.ArgumentParser]", common: argparse.ArgumentParser) -> None:
    """Add the command `labels`, and what it can do, to a command line."""
    parser = commands.add_parser("labels", help="what people decided about photos: show, import, export, undo")
    actions = parser.add_subparsers(required=True, metavar="list|import|export|undo|extract")
    shared = argparse.ArgumentParser(add_help=False, parents=[common])
    shared.add_argument(
        "--labels", type=Path, default=Path(LABELS_FILE), metavar="FILE", help=f"decisions (default: {LABELS_FILE})"
    )
    signed = argparse.ArgumentParser(add_help=False)
    signed.add_argument("--who", metavar="NAME", help="decides (default: the login name)")

    list_ = actions.add_parser("list", parents=[shared], help="how many photos have a label, by class and by person")
    list_.set_defaults(command=_list)

    import_ = actions.add_parser("import", parents=[shared, signed], help="labels of a CSV, Label Studio or FiftyOne")
    import_.add_argument("file", type=Path, metavar="FILE")
    import_.add_argument("--format", choices=FORMATS, help="default: what the file looks like")
    import_.add_argument("--input", metavar="FOLDER|URL", help="the photos, where the last run does not have them")
    import_.add_argument(
        "--new-classes", action="store_true", help="accept names that are nearly those of known classes"
    )
    import_.set_defaults(command=_import)

    export = actions.add_parser("export", parents=[shared], help="the decisions that count, for other tools")
    export.add_argument("file", type=Path, metavar="FILE")
    export.add_argument("--format", choices=FORMATS, help="default: csv where the file's name ends so")
    export.add_argument("--all", action="store_true", help="the whole history (csv)")
    export.add_argument("--suspects", action="store_true", help="and the last run's, as predictions (label-studio)")
    export.set_defaults(command=_export)

    undo = actions.add_parser("undo", parents=[shared, signed], help="take back the last decision on photos")
    undo.add_argument("photos", nargs="+", metavar="PHOTO|SHA256")
    undo.set_defaults(command=_undo)

    extract = actions.add_parser("extract", parents=[shared], help="captured photos that have a label, as files")
    extract.add_argument("--captured", required=True, type=Path, metavar="DIR", help="what servers captured")
    extract.add_argument(
        "--to", type=Path, default=Path(captured.PHOTOS_DIR), metavar="FOLDER", help=f"default: {captured.PHOTOS_DIR}"
    )
    extract.add_argument("--all", action="store_true", help="all photos, not only those with a label")
    extract.set_defaults(command=_extract)


def read_last_run(folders: Folders) -> LastRun:
    """Return what the newest run that finished knows of photos; nothing where there is none.

    Raises:
        DataError: its examples cannot be read.
        StorageError: its outputs cannot be fetched.
    """
    examples_dir, suspects_dir = (_find_output(folders, step) for step in ("examples", "suspects"))
    if examples_dir is None:
        return LastRun()
    return LastRun(
        photos={row["filename"]: row["sha256"] for row in read_index(examples_dir)},
        class_names=read_examples(examples_dir)["class_names"],
        suspects=read_suspects(suspects_dir) if suspects_dir else (),
    )


def _find_output(folders: Folders, step: str) -> Path | None:
    record = folders.fetch_newest()
    try:
        reference = read_json(record)["steps"].get(step)
    except (OSError, ValueError, KeyError, TypeError):  # no run, or a damaged record
        return None
    artifact = folders.store.get(reference) if reference else None
    return folders.store.fetch(artifact).path if artifact else None


def _list(options: argparse.Namespace, _: Folders) -> int:
    decisions = read_decisions(options.labels)
    current = find_current(decisions).values()
    print(f"{options.labels}: {len(current)} photos decided, {len(decisions)} decisions in all")
    classes = Counter(each["label"] for each in current if each["label"] is not None)
    kinds = Counter(each["decision"] for each in current)
    others = {
        "none of the classes": kinds[NONE],
        "skipped": kinds[SKIP],
        "undone": sum(each["decision"] == UNDO for each in decisions),
    }
    _print_counts("label", [*sorted(classes.items()), *others.items()])
    _print_counts("who", Counter(each["who"] or "somebody" for each in current).most_common())
    return 0


def _print_counts(title: str, counts: Iterable[tuple[str | None, int]]) -> None:
    rows = [(str(name), str(count)) for name, count in counts]
    width = max(len(name) for name, _ in [(title, ""), *rows])
    print()
    print(f"{title:<{width}}  photos")
    for name, count in rows:
        print(f"{name:<{width}}  {count:>6}")


def _import(options: argparse.Namespace, folders: Folders) -> int:
    imported = exchange.import_labels(
        exchange.read_file(options.file, options.format),
        labels=options.labels,
        last_run=read_last_run(folders),
        folder=options.input,
        who=_sign(options),
        why=f"imported from {options.file.name}",
        new_classes=options.new_classes,
    )
    for line in imported.left_out:
        print(f"Left out: {line}")
    kinds = Counter(each["decision"] for each in imported.added)
    print(
        f"Imported: {len(imported.added)} decisions into {options.labels} ({kinds[LABEL]} labels, {kinds[NONE]} none "
        f"of the classes, {kinds[SKIP]} skipped). As decided before: {imported.num_current}. Photos twice in the "
        f"file: {imported.num_repeated}. Without a label: {imported.num_undecided}. Left out: {len(imported.left_out)}."
    )
    if imported.new_classes:
        print(f"New classes: {', '.join(imported.new_classes)}")
    return 0


def _export(options: argparse.Namespace, folders: Folders) -> int:
    format_ = options.format or (CSV if options.file.suffix.lower() == ".csv" else None)
    if format_ is None:
        raise DataError(f"The format of a file that is no .csv must be named. Received: {options.file}. Use --format.")
    count = exchange.export_labels(
        options.labels,
        options.file,
        format_=format_,
        last_run=read_last_run(folders) if options.suspects else None,
        whole_history=options.all,
    )
    print(f"Exported: {options.file} ({count} {'decisions' if options.all else 'photos'})")
    return 0


def _undo(options: argparse.Namespace, _: Folders) -> int:
    for decision in exchange.undo(options.labels, options.photos, who=_sign(options)):
        print(f"Undone: {decision['photo']}: {decision['label'] or decision['decision']}")
    return 0


def _extract(options: argparse.Namespace, _: Folders) -> int:
    wanted = None if options.all else captured.find_labelled(options.labels)
    found = captured.extract(options.captured, options.to, wanted=wanted)
    print(f"Extracted: {found.num_written} photos into {options.to}. There already: {found.num_there}.")
    if found.num_written + found.num_there:
        print(f'Learn from those with a label: make train SET="examples.unlabelled={options.to}"')
    return 0


def _sign(options: argparse.Namespace) -> str:
    """Return who decides: the name that was given, or the login name."""
    return find_login() if options.who is None else str(options.who)
