"""The command `review`: its options, and what they become."""

import argparse
import asyncio
import ipaddress
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts.labels import LABELS_FILE, is_class_name
from components.errors import StorageError
from pipelines.authorship import find_login
from pipelines.config import Config, override
from pipelines.folders import Folders

if TYPE_CHECKING:
    from pipelines.review.desk import Task
    from serving.web.settings import Settings

TOKEN = "REVIEW_TOKEN"
_PORT, _COUNT = 8090, 50


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--labels", type=Path, default=Path(LABELS_FILE), help=f"decisions (default: {LABELS_FILE})")
    photos = parser.add_mutually_exclusive_group()
    photos.add_argument("--input", default="", metavar="FOLDER|URL", help="photos without labels, to choose from")
    photos.add_argument(
        "--captured", type=Path, metavar="DIR", help="what servers captured: photos that the model was not sure of"
    )
    parser.add_argument("--count", type=int, default=_COUNT, help=f"how many of them to choose (default: {_COUNT})")
    parser.add_argument("--who", default="", metavar="NAME", help="who decides (default: the login name)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=_PORT, help=f"0 takes a free one (default: {_PORT})")
    parser.add_argument(
        "--allowed-host",
        dest="allowed_hosts",
        metavar="NAME",
        action="append",
        default=[],
        help="as python -m serving.web",
    )
    parser.add_argument(
        "--token-file", metavar="FILE", type=Path, help=f"holds the token of those who review; or set {TOKEN}"
    )


def read(options: argparse.Namespace, folders: Folders) -> "tuple[Task, Settings]":
    """Return what is to be reviewed, and where the page listens.

    Raises:
        ValueError: the options do not fit.
        StorageError: the token's file cannot be read.
    """
    from pipelines.review.desk import Task
    from serving.web.settings import Settings

    if folders.remote_runs:
        raise ValueError(f"review reads runs of this machine. Received: {options.runs_dir}. Give a folder.")
    if options.count < 1:
        raise ValueError(f"--count takes a number of photos, 1 or more. Received: {options.count}")
    override(Config(), options.set)
    who = options.who or find_login()
    if who and not is_class_name(who):
        raise ValueError(f"--who takes printable text without a space at either end. Received: {who!r}")
    token = _read_token(options.token_file)
    if not token and not _is_loopback(options.host):
        raise ValueError(
            f"Other machines can reach {options.host}, so the page needs a token. Set {TOKEN}, or give --token-file."
        )
    settings = Settings(
        host=options.host, port=options.port, allowed_hosts=tuple(options.allowed_hosts), token=token or None
    )
    # It goes to another process, so it has nothing of this module's options.
    arguments = (options.input, options.count, tuple(options.set), options.labels, folders)
    choose = partial(_choose, *arguments) if options.input else None
    task = Task(
        runs_dir=folders.runs,
        models_dir=str(folders.models),
        labels=options.labels,
        input=options.input,
        choose=choose,
        captured=options.captured,
        assignments=options.set,
        who=who,
    )
    return task, settings


def show(task: "Task", settings: "Settings", on_ready: Callable[[str], None]) -> None:
    """Show the page until a signal ends it.

    Raises:
        ComponentError: it cannot start.
    """
    # Starlette takes a moment to import: not before all is known to be good.
    from pipelines.review.desk import Desk
    from pipelines.review.server import serve

    asyncio.run(serve(Desk(task), settings, on_ready))


def _choose(
    folder: str, count: int, assignments: Sequence[str], labels: Path, folders: Folders
) -> list[tuple[str, str, str]]:
    from pipelines.review.desk import assign_labels
    from pipelines.select import select

    config = override(Config(), [*assignments, assign_labels(labels)])
    name = config.export.model_name
    chosen = select(folder, count, config=config, folders=folders, model_name=name)
    return [(each.path, each.sha256, each.reason) for each in chosen]


def _read_token(path: Path | None) -> str:
    if path is None:
        return os.environ.get(TOKEN, "")
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as exc:
        raise StorageError(f"--token-file must be readable. {path}: {exc.strerror}.") from exc


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
